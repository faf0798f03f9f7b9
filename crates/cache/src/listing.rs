//! What is stored, told to an operator: a line for each stored response. Looks only; nothing it does counts as a
//! use.

use crate::engine::Cache;
use crate::purge::Selection;
use crate::stored::Stored;
use eleven_net::clock;
use eleven_semantics::caching::freshness::Source;
use eleven_semantics::caching::key;
use eleven_semantics::date::HttpDate;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

/// A stored response in words and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its URI.
    pub uri: String,
    /// The partition of its key; empty for none.
    pub partition: String,
    /// Its status.
    pub status: u16,
    /// Octets of its content, as far as it is held.
    pub bytes: Option<u64>,
    /// Whether only a part of the representation is held.
    pub is_partial: bool,
    /// Seconds since the origin server made or confirmed it.
    pub age_seconds: u32,
    /// Seconds for which it is fresh; negative once it is stale.
    pub ttl_seconds: i64,
    /// Where its lifetime comes from.
    pub lifetime_from: &'static str,
    /// Must be validated before its next use (a soft purge, or a response to HEAD that did not match).
    pub is_marked: bool,
    /// Its tags: Surrogate-Key, Cache-Tag and cache groups.
    pub tags: Vec<String>,
    /// The request fields it varies by.
    pub vary: Vec<String>,
    /// Whether it is in memory.
    pub in_memory: bool,
    /// Whether it is on disk.
    pub on_disk: bool,
    /// Its number, for order: higher ones are newer.
    pub id: u64,
}

impl Entry {
    fn of(stored: &Stored, now: HttpDate) -> Entry {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let (partition, uri) = match key::read_uri(&stored.key) {
            Some((partition, site, target)) => {
                let host = text(&site.host);
                let port = match site.port {
                    port if port == site.scheme.default_port() => String::new(),
                    port => format!(":{port}"),
                };
                (partition.to_owned(), format!("{}://{host}{port}{}", site.scheme.as_str(), text(target)))
            }
            None => (String::new(), String::new()),
        };
        Entry {
            uri,
            partition,
            status: stored.status.code(),
            bytes: match &stored.held {
                Some(held) => Some(held.spans().iter().map(|span| span.len()).sum()),
                None => stored.content.length(),
            },
            is_partial: stored.held.is_some(),
            age_seconds: stored.freshness.age(now),
            ttl_seconds: stored.freshness.remaining(now),
            lifetime_from: source(stored.freshness.source),
            is_marked: stored.marked.load(Ordering::Relaxed),
            tags: stored.tags.all().iter().map(|tag| tag.to_string()).collect(),
            vary: stored.vary.iter().map(|name| text(name)).collect(),
            in_memory: false,
            on_disk: stored.body.is_some(),
            id: stored.id,
        }
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::SMaxage => "s-maxage",
        Source::MaxAge => "max-age",
        Source::Expires => "Expires",
        Source::Heuristic => "Last-Modified",
        Source::Default => "default",
        Source::Invalid => "invalid",
        Source::Nothing => "nothing",
    }
}

/// The newest of what was found, and how many there were.
#[derive(Default)]
struct Found {
    newest: BTreeMap<u64, Entry>,
    ids: HashSet<u64>,
}

impl Found {
    fn take(&mut self, stored: &Stored, in_memory: bool, max: usize, now: HttpDate) {
        if !self.ids.insert(stored.id) {
            // On disk as well.
            if let Some(known) = self.newest.get_mut(&stored.id) {
                known.on_disk = true;
            }
            return;
        }
        self.newest.insert(stored.id, Entry { in_memory, on_disk: !in_memory, ..Entry::of(stored, now) });
        if self.newest.len() > max {
            self.newest.pop_first();
        }
    }
}

impl Cache {
    /// The stored responses among `selection`, newest first, at most `max` of them; and how many there are in
    /// all. Reads the head of every object on disk.
    pub async fn list(&self, selection: &Selection, max: usize) -> (Vec<Entry>, usize) {
        let now = HttpDate(clock::unix_seconds());
        let mut found = Found::default();
        self.store().memory().visit(|stored| {
            if selection.chooses(stored) {
                found.take(stored, true, max, now);
            }
        });
        if let Some(disk) = self.store().disk().cloned() {
            let (selection, policy) = (selection.clone(), self.config().policy.clone());
            let visit = move || {
                disk.visit(&policy, |stored| {
                    if selection.chooses(stored) {
                        found.take(stored, false, max, now);
                    }
                });
                found
            };
            // A visit that panicked has said so itself.
            found = tokio::task::spawn_blocking(visit).await.unwrap_or_default();
        }
        let total = found.ids.len();
        (found.newest.into_values().rev().collect(), total)
    }
}
