//! Makers of stored responses for the tests of this crate.

use crate::content::Content;
use crate::stored::{Stored, Tags};
use bytes::Bytes;
use eleven_semantics::caching::key::{self, Vary};
use eleven_semantics::caching::{Freshness, Policy, Response, ResponseDirectives};
use eleven_semantics::date::HttpDate;
use eleven_semantics::{Fields, Status};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// 2026-11-24 12:00:00.
pub const NOW: HttpDate = HttpDate(1_795_521_600);

/// A stored 200 for `key`, received at [`NOW`].
pub fn stored(
    key: &[u8],
    id: u64,
    fields: &[(&str, &str)],
    request: &[(&str, &str)],
    content: &[u8],
) -> Arc<Stored> {
    let fields: Fields = fields.iter().collect();
    let Vary::Names(vary) = key::nominated(&fields) else { panic!("a Vary that never matches") };
    let mut variant = Vec::new();
    key::write_variant(&mut variant, &vary, &request.iter().collect());
    let directives = ResponseDirectives::cache_control(&fields);
    let response = Response { status: Status::OK, fields: &fields };
    let freshness = Freshness::of(&response, &directives, &Policy::default(), NOW, NOW);
    Arc::new(Stored {
        id,
        key: key.into(),
        uri_length: key.len(),
        vary,
        variant: variant.into(),
        status: Status::OK,
        tags: Tags::of(&fields),
        fields: Arc::new(fields),
        directives,
        freshness,
        received: NOW,
        held: None,
        body: None,
        content: Content::Whole(Bytes::copy_from_slice(content)),
        marked: AtomicBool::new(false),
    })
}
