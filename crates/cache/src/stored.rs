//! A stored response (RFC 9111 §3): everything that is needed to reuse it, in one value that is shared and
//! never changed. What changes it (a 304, a response to HEAD) makes a new one that shares the content.

use crate::content::Content;
use crate::disk::Body;
use eleven_semantics::Fields;
use eleven_semantics::Status;
use eleven_semantics::caching::invalidation;
use eleven_semantics::caching::key;
use eleven_semantics::caching::partial::Held;
use eleven_semantics::caching::reuse::Candidate;
use eleven_semantics::caching::{Freshness, Policy, Response, ResponseDirectives};
use eleven_semantics::date::HttpDate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Stored responses are numbered by time, so that the numbers go on after a restart and tell which of two is
/// newer: microseconds since 1970 when it was made, and one more than the last where that is not later.
pub fn next_id(now: HttpDate) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let by_clock = (now.0.max(0) as u64).saturating_mul(1_000_000);
    let mut last = LAST.load(Ordering::Relaxed);
    loop {
        let next = by_clock.max(last + 1);
        match LAST.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return next,
            Err(other) => last = other,
        }
    }
}

/// Tells [`next_id`] of a number that was given before a restart.
pub fn raise_id(seen: u64, now: HttpDate) {
    while next_id(now) < seen {
        // One step is enough unless the clock was set back; then the numbers go on from the larger one.
        if next_id(HttpDate((seen / 1_000_000) as i64 + 1)) > seen {
            return;
        }
    }
}

/// What a stored response may be invalidated and purged by beside its URI: read from its header section, here alone.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    all: Vec<Box<str>>,
    groups: usize,
}

impl Tags {
    /// Those of a response with these fields.
    pub fn of(fields: &Fields) -> Tags {
        // The groups come first among the tags.
        Tags { all: invalidation::tags(fields), groups: invalidation::groups(fields).len() }
    }

    /// What an operator may purge it by, cache groups included.
    pub fn all(&self) -> &[Box<str>] {
        &self.all
    }

    /// Its cache groups (RFC 9875 §2).
    pub fn groups(&self) -> &[Box<str>] {
        &self.all[..self.groups]
    }
}

/// What a header section out of the store says to a cache with this policy: directives and lifetime. `initial_age` is what
/// its age was when it came: Age itself is not stored.
pub fn meaning(
    status: Status,
    fields: &Fields,
    policy: &Policy,
    (request_time, response_time): (HttpDate, HttpDate),
    initial_age: u32,
) -> (ResponseDirectives, Freshness) {
    let directives = ResponseDirectives::of(fields, &policy.targets);
    let response = Response { status, fields };
    let read = Freshness::of(&response, &directives, policy, request_time, response_time);
    (directives, Freshness { initial_age, ..read })
}

/// A stored response.
pub struct Stored {
    /// Its number ([`next_id`]).
    pub id: u64,
    /// Its primary key.
    pub key: Box<[u8]>,
    /// How much of the key names the URI.
    pub uri_length: usize,
    /// The fields that its Vary nominates.
    pub vary: Vec<Box<[u8]>>,
    /// What they come to in the request it answers, normalised.
    pub variant: Box<[u8]>,
    /// Its status.
    pub status: Status,
    /// Its header section, without what is not stored, with Date. In wire form, ready to be sent.
    pub fields: Arc<Fields>,
    /// Its directives.
    pub directives: ResponseDirectives,
    /// Its freshness.
    pub freshness: Freshness,
    /// When its content arrived: never changed by validation.
    pub received: HttpDate,
    /// What it may be invalidated and purged by.
    pub tags: Tags,
    /// Which part of the representation is held; `None`: all of it.
    pub held: Option<Held>,
    /// Its content.
    pub content: Content,
    /// The file on disk that holds the same content, if one does.
    pub body: Option<Arc<Body>>,
    /// Must be validated before the next use.
    pub marked: AtomicBool,
}

impl Stored {
    /// As the rules want to see it.
    #[inline]
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            directives: &self.directives,
            freshness: self.freshness,
            marked: self.marked.load(Ordering::Relaxed),
        }
    }

    /// Whether a request with these fields selects it (9111-4-01c).
    #[inline]
    pub fn is_selected_by(&self, request: &Fields, scratch: &mut Vec<u8>) -> bool {
        if self.vary.is_empty() {
            return true;
        }
        key::write_variant(scratch, &self.vary, request);
        scratch[..] == self.variant[..]
    }

    /// The same with its content in another place, and a body file.
    pub fn with_body(&self, content: Content, body: Arc<Body>) -> Stored {
        Stored { content, body: Some(body), ..self.copy() }
    }

    /// The same once more; content and body are shared.
    pub fn copy(&self) -> Stored {
        Stored {
            id: self.id,
            key: self.key.clone(),
            uri_length: self.uri_length,
            vary: self.vary.clone(),
            variant: self.variant.clone(),
            status: self.status,
            fields: self.fields.clone(),
            directives: self.directives.clone(),
            freshness: self.freshness,
            received: self.received,
            tags: self.tags.clone(),
            held: self.held.clone(),
            content: self.content.clone(),
            body: self.body.clone(),
            marked: AtomicBool::new(self.marked.load(Ordering::Relaxed)),
        }
    }

    /// The part of the key that names the URI.
    pub fn uri_key(&self) -> &[u8] {
        &self.key[..self.uri_length]
    }

    /// The length of the whole representation, if known.
    pub fn complete_length(&self) -> Option<u64> {
        match &self.held {
            Some(held) => held.complete(),
            None => self.content.length(),
        }
    }

    /// Octets of memory it takes, content included.
    pub fn memory_bytes(&self) -> u64 {
        let tags: usize = self.tags.all().iter().map(|tag| tag.len() + 16).sum();
        let vary: usize = self.vary.iter().map(|name| name.len() + 16).sum();
        let head = size_of::<Stored>()
            + self.key.len()
            + self.variant.len()
            + self.fields.memory_bytes()
            + tags
            + vary;
        head as u64 + self.content.memory_bytes()
    }

    /// Date, for choosing the most recent of several (9111-4-04).
    pub fn date(&self) -> HttpDate {
        eleven_semantics::caching::freshness::date_value(&self.fields, self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_tags_and_tags_are_no_groups() {
        let tags = |fields: &[(&str, &str)]| {
            let tags = Tags::of(&fields.iter().collect());
            (tags.groups().join(" "), tags.all().join(" "))
        };
        let all =
            [("Surrogate-Key", "red blue"), ("Cache-Groups", "\"g\", \"blue\""), ("Cache-Tag", "x, red")];
        assert_eq!(tags(&all), ("g blue".into(), "g blue red x".into()));
        assert_eq!(tags(&[("Cache-Tag", "x")]), (String::new(), "x".into()));
        // Not a list of strings.
        assert_eq!(tags(&[("Cache-Groups", "g, h")]), (String::new(), String::new()));
        assert_eq!(tags(&[]), (String::new(), String::new()));
    }

    #[test]
    fn numbers_rise_whatever_the_clock_does() {
        let mut last = 0;
        for seconds in [100, 100, 200, 50, -5, 200, 300] {
            let id = next_id(HttpDate(seconds));
            assert!(id > last);
            last = id;
        }
        let seen = last + 5_000_000_000;
        raise_id(seen, HttpDate(0));
        assert!(next_id(HttpDate(0)) > seen);
    }
}
