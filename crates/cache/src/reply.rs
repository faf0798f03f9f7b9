//! What the engine asks for and what it answers with: the request as it sees it, the way inbound, and the
//! reply with its report. Types only; decisions are in `engine`.

use crate::content::Reader;
use crate::stored::Stored;
use bytes::Bytes;
use eleven_net::pipe::{Next, PipeReader};
use eleven_semantics::caching::NotStored;
use eleven_semantics::caching::key::Site;
use eleven_semantics::caching::reuse::{Failure, Stale};
use eleven_semantics::caching::status::{CacheStatus, Handling};
use eleven_semantics::{Fields, Method, Status};
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request, as the cache sees it: the end-to-end part of what the client sent.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The site it is for.
    pub site: &'a Site,
    /// Path and query, as received.
    pub target: &'a [u8],
    /// Its header section.
    pub fields: &'a Fields,
    /// Whether it carries content.
    pub has_content: bool,
}

/// What is to be sent inbound.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query: what was keyed (C06).
    pub target: Vec<u8>,
    /// The header section: the client's, with the cache's own conditions.
    pub fields: Fields,
    /// Whether the client's content goes along.
    pub with_content: bool,
}

/// What came back.
pub struct Answer {
    /// The final status.
    pub status: Status,
    /// The header section, without what belongs to the connection.
    pub fields: Fields,
    /// The length of the content, if it was told.
    pub length: Option<u64>,
    /// The content.
    pub body: Box<dyn Source>,
}

/// Content that flows.
pub trait Source {
    /// The next chunk, or how it ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>>;
}

impl<T> Source for PipeReader<T> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        PipeReader::poll_next(self, cx).map(|next| match next {
            Next::Data(data) => Next::Data(data),
            // Trailers are not stored (9111-3.1-05, 9111-3.1-06).
            Next::Complete(_) => Next::Complete(()),
            Next::Aborted(reason) => Next::Aborted(reason),
        })
    }
}

impl Source for Reader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        Reader::poll_next(self, cx)
    }
}

/// A way to send requests inbound: towards the origin server. Interim responses go to the client by the way,
/// and never come here (9111-3-01b).
pub trait Inbound: Clone + 'static {
    /// Why it failed.
    type Error: 'static;

    /// Sends a request; ready when the final response's header section has arrived.
    fn send(&self, ask: Ask) -> impl Future<Output = Result<Answer, Self::Error>>;
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed<E> {
    /// The origin server could not be reached, and nothing may be served instead.
    Inbound(E),
    /// As before, and something is stored that may not be used without validation: 504 (9111-5.2.2.2-03).
    MustRevalidate(E),
    /// The request waited for another one, which failed.
    Shared(Failure),
}

/// The head of a reply.
pub enum Head {
    /// The stored response's own, with Age added (9111-4-02).
    Stored {
        /// The stored response.
        stored: Arc<Stored>,
        /// Its age, in seconds.
        age: u32,
    },
    /// Another one, complete.
    Made {
        /// The status.
        status: Status,
        /// The header section.
        fields: Fields,
    },
}

/// The content of a reply.
pub enum Body {
    /// None, and none is described (304).
    Empty,
    /// None, but this length is described (HEAD).
    Described(Option<u64>),
    /// From the store, in memory and in one piece.
    Whole(Bytes),
    /// From the store.
    Reader(Reader),
    /// From the store and made for it, all in memory.
    Pieces(Vec<Bytes>),
    /// From inbound, or from the store with help from inbound; and its length.
    Flowing(Box<dyn Source>, Option<u64>),
}

/// What happened, for logs, metrics and Cache-Status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Hit or forwarded; `None` where the reply is the cache's own (504).
    pub handling: Option<Handling>,
    /// Freshness left, in seconds.
    pub ttl_seconds: Option<i64>,
    /// Why a stale response was served.
    pub stale: Option<Stale>,
    /// Why the response was not stored.
    pub not_stored: Option<NotStored>,
}

impl Report {
    /// Adds this cache's member to Cache-Status (RFC 9211).
    pub fn write_status(&self, cache: &str, response: &mut Fields) {
        let Some(handling) = self.handling else { return };
        let detail = self.not_stored.map(NotStored::token);
        CacheStatus { cache, handling, ttl_seconds: self.ttl_seconds, key: None, detail }.append(response);
    }

    /// Why the request was forwarded, in the words of RFC 9211; empty for a hit.
    pub fn reason(&self) -> &'static str {
        match self.handling {
            Some(Handling::Forwarded { why, .. }) => why.token(),
            _ => "",
        }
    }

    /// `HIT`, `STALE`, `VALIDATED`, `MISS` or `BYPASS`: for X-Cache and for access logs.
    pub fn word(&self) -> &'static str {
        use eleven_semantics::caching::status::Forward;
        match self.handling {
            Some(Handling::Hit) if self.stale.is_some() => "STALE",
            Some(Handling::Hit) => "HIT",
            Some(Handling::Forwarded { status: Some(Status::NOT_MODIFIED), .. }) => "VALIDATED",
            Some(Handling::Forwarded { why: Forward::Bypass | Forward::Method, .. }) => "BYPASS",
            Some(Handling::Forwarded { .. }) => "MISS",
            None => "NONE",
        }
    }
}

/// An answer to a request.
pub struct Reply {
    /// Status and header section.
    pub head: Head,
    /// Content.
    pub body: Body,
    /// What happened.
    pub report: Report,
}

impl Reply {
    /// The status.
    pub fn status(&self) -> Status {
        match &self.head {
            Head::Stored { stored, .. } => stored.status,
            Head::Made { status, .. } => *status,
        }
    }

    /// The header section, Age included: for callers that do not write the stored form themselves.
    pub fn fields(&self) -> Fields {
        match &self.head {
            Head::Stored { stored, age } => {
                let mut fields = (*stored.fields).clone();
                push_age(&mut fields, *age);
                fields
            }
            Head::Made { fields, .. } => fields.clone(),
        }
    }
}

/// Adds Age.
#[inline]
pub fn push_age(fields: &mut Fields, age: u32) {
    // Ten digits are the most.
    let (mut digits, mut at, mut left) = ([0; 10], 10, age);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    fields.append_parsed(b"Age", &digits[at..], Some(eleven_semantics::Known::Age));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for age in [0, 7, 10, 99, 100, 2_147_483_648, u32::MAX] {
            let mut fields = Fields::new();
            push_age(&mut fields, age);
            assert_eq!(fields.wire(), format!("Age: {age}\r\n").as_bytes());
        }
    }
}
