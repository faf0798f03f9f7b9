//! What becomes invalid: by unsafe requests (RFC 9111 §4.4), by groups (RFC 9875), and by the operator's purges; also while it
//! is still on its way into the store.

use super::{Cache, RECENT_MAX, now};
use crate::purge::{How, Selection};
use crate::reply::{Answer, Request};
use crate::stored::{Stored, next_id};
use eleven_semantics::caching::invalidation;
use eleven_semantics::caching::key;
use std::sync::PoisonError;

impl Cache {
    /// RFC 9111 §4.4, RFC 9875.
    pub(super) async fn invalidate(&self, request: &Request<'_>, target: &[u8], answer: &Answer) {
        let mut groups = invalidation::invalidated_groups(request.method, answer.status, &answer.fields);
        for target in invalidation::invalidated(request.site, target, &answer.fields) {
            let target = self.config.keys.target(&target).into_owned();
            let mut uri = Vec::new();
            key::write_uri(&mut uri, &self.config.keys.partition, request.site, &target);
            self.note_recent(Selection::Uri(request.site.clone(), target));
            let mut gone = self.store.remove_key(&uri).await;
            if !self.config.keys.fields.is_empty() || !self.config.keys.cookies.is_empty() {
                // There are more keys of this URI.
                let mut keys = Vec::new();
                self.store.memory().visit(|stored| {
                    if *stored.uri_key() == uri[..] {
                        keys.push(stored.key.clone());
                    }
                });
                for key in keys {
                    gone.extend(self.store.remove_key(&key).await);
                }
                if let (Some(selection), Some(_)) = (uri_selection(&uri), self.store.disk()) {
                    self.store.purge(&selection, How::Hard, next_id(now()), &self.config.policy).await;
                }
            }
            // RFC 9875 §2.2.1: those that share a group, without going on from there.
            for stored in gone {
                for group in stored.tags.groups() {
                    if !groups.contains(group) {
                        groups.push(group.clone());
                    }
                }
            }
        }
        for group in groups {
            self.purge(&Selection::Group(request.site.clone(), group), How::Hard).await;
        }
    }

    pub(super) fn note_recent(&self, selection: Selection) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_MAX {
            // Too many to remember one by one: whatever began before now is not stored.
            recent.clear();
            recent.push_back((next_id(now()), Selection::All));
        }
        recent.push_back((next_id(now()), selection));
    }

    /// Whether a response that was asked for at this number was made invalid while it arrived.
    pub(crate) fn was_invalidated(&self, stored: &Stored) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().any(|(at, selection)| *at > stored.id && selection.chooses(stored))
    }

    /// Purges what is chosen; how many stored responses are known to be concerned.
    pub async fn purge(&self, selection: &Selection, how: How) -> usize {
        if how != How::DryRun {
            self.note_recent(selection.clone());
        }
        self.store.purge(selection, how, next_id(now()), &self.config.policy).await
    }
}

fn uri_selection(uri_key: &[u8]) -> Option<Selection> {
    key::read_uri(uri_key).map(|(_, site, target)| Selection::Uri(site, target.to_vec()))
}
