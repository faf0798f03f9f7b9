//! What a download tells while it works: plain values, for a bar, a line of JSON, or nobody.

use crate::error::Failure;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The response is there and content begins to come.
    Begun {
        /// The name it is saved under.
        name: &'a str,
        /// The complete length, if known.
        length: Option<u64>,
        /// Octets that were here already.
        resumed: u64,
    },
    /// So many octets are here.
    Here(u64),
    /// So many connections fetch.
    Connections(usize),
    /// Something worth a line, in words.
    Note(&'a str),
    /// It failed, and is tried again after a pause.
    Retry(&'a Failure, Duration),
    /// The content is complete and is being verified.
    Verifying,
    /// It is there.
    Done {
        /// Where, if in a file.
        path: Option<&'a PathBuf>,
        /// Its length.
        bytes: u64,
    },
}

/// Whoever is told.
pub type Progress = Rc<dyn Fn(&Event<'_>)>;

/// Nobody.
pub fn silent() -> Progress {
    Rc::new(|_| {})
}
