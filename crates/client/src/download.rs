//! One file, from wherever it can be had to where it should be: complete, verified, or not there at all.
//!
//! The driver of `segments.rs` (what next), `replies.rs` (what came), `partial.rs` (where it goes) and
//! `verify.rs` (whether it is right). `attempt` asks and begins again, `fetch` moves octets, `keep` stands beside and
//! watches, `asks` words requests for parts. Transient failures go on where they happened, in the same run; a journal
//! lets a later run do so. Does not know how to show any of it.

mod asks;
mod attempt;
mod fetch;
mod keep;
mod present;

use crate::agent::{Agent, Ask, Hop, Times};
use crate::error::{Cause, Failure, Phase};
use crate::partial::{Directory, Overwrite};
use crate::progress::Progress;
use crate::segments::SPLIT_BYTES_MIN;
use attempt::Download;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Status};
use fetch::Shared;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::Notify;

/// Octets read at a time: few system calls, and no more memory than a small image.
pub const READ_BYTES: usize = 256 * 1024;

/// How many connections fetch one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// So many, if the server and the length allow it.
    Fixed(usize),
    /// As many as make it faster.
    Auto,
}

/// How the file is named.
#[derive(Debug, Clone)]
pub enum Naming {
    /// So.
    Fixed(String),
    /// By the last part of the URI that was asked for, or by Content-Disposition if `disposition`.
    Remote {
        /// Heed Content-Disposition.
        disposition: bool,
    },
}

/// How a download behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to do if the name is taken.
    pub overwrite: Overwrite,
    /// Go on with what an earlier run left.
    pub resume: bool,
    /// A name that is taken is replaced if the server's file was modified later (RFC 9110 §13.1.3), and else kept.
    pub newer: bool,
    /// The file gets the time at which the server's was modified.
    pub remote_time: bool,
    /// A name that is taken is kept, whatever has it.
    pub keep_existing: bool,
    /// Whatever went wrong with the server is tried again, also what is no weather.
    pub retry_all: bool,
    /// Connections.
    pub segments: Segments,
    /// Smallest piece worth a connection, in octets.
    pub split_bytes_min: u64,
    /// Attempts after the first that make no progress, before it is given up.
    pub retries_max: u32,
    /// Pause before the first retry; doubled each time.
    pub retry_pause_ms: u64,
    /// Longest pause, also if the server asks for more (fault K43).
    pub retry_pause_ms_max: u64,
    /// Octets per second; none for as fast as possible.
    pub rate_limit: Option<u64>,
    /// The digest it must have.
    pub sha256: Option<[u8; 32]>,
    /// Ask for content codings and undo them. Then nothing can be resumed or split.
    pub decode: bool,
    /// Save the content of an error response under the name, too.
    pub save_errors: bool,
    /// Time between two checkpoints.
    pub checkpoint_ms: u64,
    /// Octets between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Octets of content at most.
    pub content_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            overwrite: Overwrite::Refuse,
            resume: false,
            newer: false,
            remote_time: false,
            keep_existing: false,
            retry_all: false,
            segments: Segments::Fixed(1),
            split_bytes_min: SPLIT_BYTES_MIN,
            retries_max: 5,
            retry_pause_ms: 1_000,
            retry_pause_ms_max: 300_000,
            rate_limit: None,
            sha256: None,
            decode: false,
            save_errors: false,
            checkpoint_ms: 2_000,
            checkpoint_bytes: 256 * 1024 * 1024,
            content_bytes_max: u64::MAX,
        }
    }
}

/// What to fetch.
pub struct Task {
    /// The file, and mirrors of it.
    pub uris: Vec<Uri>,
    /// Makes the request for one of them; ranges are added here.
    pub ask: Box<dyn Fn(&Uri) -> Ask>,
    /// Where it goes.
    pub directory: Directory,
    /// Under which name.
    pub naming: Naming,
    /// How.
    pub options: Options,
    /// Dropped when every octet is here: what is left to do waits for the disk, and the line is free for others.
    pub line: Option<Box<dyn std::any::Any>>,
}

/// A download that is there.
#[derive(Debug)]
pub struct Done {
    /// Where.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Octets received in this run.
    pub received: u64,
    /// Octets that an earlier run had left.
    pub resumed: u64,
    /// It was there already, complete.
    pub kept: bool,
    /// What was verified.
    pub verified: Vec<&'static str>,
    /// Who answered.
    pub uri: Uri,
    /// The way there.
    pub hops: Vec<Hop>,
    /// The status of the first response.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long the first response took.
    pub times: Times,
    /// The address that gave it.
    pub address: Option<std::net::SocketAddr>,
}

/// Runs a download. `cancel` ends it early; what was received is kept for a later run.
///
/// # Errors
/// Why the file is not there. Nothing that was there before was touched.
pub async fn run(
    agent: Rc<Agent>,
    task: Task,
    progress: Progress,
    cancel: Rc<Notify>,
) -> Result<Done, Failure> {
    let Task { uris, ask, directory, naming, options, line } = task;
    let shared = Rc::new(Shared::new(agent, progress, ask, uris, options));
    let mut download = Download::new(Rc::clone(&shared), directory, naming);
    let result = tokio::select! {
        result = download.persist() => result,
        () = cancel.notified() => Err(Failure::new(Phase::Content, Cause::Cancelled)),
    };
    drop(line);
    match result {
        Ok(()) => download.complete().await,
        Err(failure) => {
            let partial = shared.partial.borrow_mut().take();
            if let Some(mut partial) = partial {
                let done = shared.plan.borrow().done().clone();
                // The failure to tell is the first one; what was durable stays durable.
                let _ = partial.park(&done).await;
            }
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests;
