//! Replies made of stored responses (RFC 9111 §4): whole, in ranges, as 304 to a client that has it, and stale where that is
//! allowed. Whether one may be served is decided before; content that may turn out bad is given a helper on its way.

use super::{Cache, Fetch, now};
use crate::content::Content;
use crate::heal::Healing;
use crate::reply::{Ask, Body, Head, Inbound, Reply, Report, push_age};
use crate::stored::Stored;
use eleven_semantics::caching::Request as View;
use eleven_semantics::caching::RequestDirectives;
use eleven_semantics::caching::reuse::{self, Failure, Stale, Verdict};
use eleven_semantics::caching::status::{Forward, Handling};
use eleven_semantics::caching::validation;
use eleven_semantics::conditional::Verdict as Condition;
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::{self, ContentRange, Ranges, Span};
use eleven_semantics::{Fields, Known, Method, Status, conditional};
use std::sync::Arc;

impl Cache {
    /// Serves what another request brought, if this one may use it (9111-4-R1).
    pub(super) fn share(
        &self,
        view: &View<'_>,
        stored: &Arc<Stored>,
        directives: &RequestDirectives,
        scratch: &mut Vec<u8>,
    ) -> Option<Reply> {
        if !stored.is_selected_by(view.fields, scratch) {
            return None;
        }
        let now = now();
        match reuse::decide(&stored.candidate(), directives, &self.config.policy, now) {
            Verdict::Fresh { age } => self.serve(view, stored, age, None, now),
            _ => None,
        }
    }

    /// Makes a reply from a stored response, conditions and ranges of the client included. `None` if what is
    /// held does not suffice.
    pub(super) fn serve(
        &self,
        view: &View<'_>,
        stored: &Arc<Stored>,
        age: u32,
        stale: Option<Stale>,
        now: HttpDate,
    ) -> Option<Reply> {
        let report = Report {
            handling: Some(Handling::Hit),
            ttl_seconds: Some(stored.freshness.remaining(now)),
            stale,
            not_stored: None,
        };
        if view.fields.contains_any(&[Known::IfNoneMatch, Known::IfModifiedSince])
            && let Condition::NotModified(_) =
                validation::client_condition(view, stored.status, &stored.fields, stored.received, now)
        {
            let mut fields = validation::write_not_modified(&stored.fields);
            push_age(&mut fields, age);
            return Some(Reply::made(Status::NOT_MODIFIED, fields, Body::Empty, report));
        }
        if view.fields.contains(Known::Range)
            && stored.status == Status::OK
            && *view.method == Method::Get
            && let Some(ranged) = self.serve_range(view, stored, age, now, report)
        {
            return ranged;
        }
        // 9111-3.3-05: an incomplete response only for ranges within it.
        if stored.held.is_some() {
            return None;
        }
        let body = match *view.method {
            Method::Head => Body::Described(stored.content.length()),
            _ if stored.status.never_has_content() => Body::Empty,
            _ => match &stored.content {
                Content::Whole(octets) => Body::Whole(octets.clone()),
                content => Body::Reader(content.reader(None)?),
            },
        };
        Some(Reply { head: Head::Stored { stored: stored.clone(), age }, body, report })
    }

    /// `None`: Range does not count, serve the whole. `Some(None)`: what is held does not suffice.
    #[allow(clippy::option_option)]
    pub(super) fn serve_range(
        &self,
        view: &View<'_>,
        stored: &Arc<Stored>,
        age: u32,
        now: HttpDate,
        report: Report,
    ) -> Option<Option<Reply>> {
        let validators = validation::stored_validators(&stored.fields, now);
        let limits = &self.config.ranges;
        let span = match &stored.held {
            None => match stored.content.length() {
                Some(length) => {
                    match range::select(view.method, view.fields, &validators, length, now, limits) {
                        Ranges::Single(span) => span,
                        Ranges::Unsatisfiable => {
                            let mut fields = Fields::new();
                            let value = ContentRange::Unsatisfied { complete: length }.to_bytes();
                            let _ = fields.push(Known::ContentRange, value);
                            let status = Status::RANGE_NOT_SATISFIABLE;
                            return Some(Some(Reply::made(status, fields, Body::Described(Some(0)), report)));
                        }
                        // Several ranges of what is not in memory are served as the whole (RFC 9110 §14.2).
                        Ranges::Several(spans) => {
                            return several(stored, &spans, length, age, report).map(Some);
                        }
                        Ranges::Whole(_) => return None,
                    }
                }
                None => return None,
            },
            Some(held) => {
                let wanted = view.fields.only(Known::Range).one()?;
                if !conditional::if_range(view.fields, &validators, now).allows_ranges() {
                    return Some(None);
                }
                match range::parse(wanted, limits).as_deref() {
                    Ok([only]) => match held.resolve(*only) {
                        Some(span) => span,
                        None => return Some(None),
                    },
                    _ => return Some(None),
                }
            }
        };
        Some(stored.content.reader(Some(span)).map(|reader| {
            let mut fields = (*stored.fields).clone();
            let complete = stored.complete_length();
            let _ = fields.set(Known::ContentRange, ContentRange::Part { span, complete }.to_bytes());
            push_age(&mut fields, age);
            Reply::made(Status::PARTIAL_CONTENT, fields, Body::Reader(reader), report)
        }))
    }

    /// As [`Cache::serve`]; content on disk is healed from inbound if a block turns out to be bad.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn serve_safely<I: Inbound>(
        self: &Arc<Self>,
        view: &View<'_>,
        stored: &Arc<Stored>,
        age: u32,
        stale: Option<Stale>,
        now: HttpDate,
        inbound: &I,
        target: &[u8],
    ) -> Option<Reply> {
        let reply = self.serve(view, stored, age, stale, now)?;
        Some(self.protected(reply, stored, view.fields, target, inbound))
    }

    /// The reply, its content helped from inbound if it is on disk or on its way there.
    pub(super) fn protected<I: Inbound>(
        &self,
        mut reply: Reply,
        stored: &Arc<Stored>,
        fields: &Fields,
        target: &[u8],
        inbound: &I,
    ) -> Reply {
        if !Healing::<I>::may_help(&self.store, &stored.content) {
            return reply;
        }
        reply.body = match reply.body {
            Body::Reader(reader) => {
                let length = reader.remaining();
                let mut fields = fields.clone();
                for name in conditional::CONDITIONAL_FIELDS {
                    fields.remove(name);
                }
                let ask = Ask { method: Method::Get, target: target.to_vec(), fields, with_content: false };
                let healing = Healing::new(self.store.clone(), stored.clone(), reader, ask, inbound.clone());
                Body::Flowing(Box::new(healing), length)
            }
            other => other,
        };
        reply
    }

    /// After a failure: a stale response, if that is permitted.
    pub(super) fn stale_reply<I: Inbound>(
        self: &Arc<Self>,
        view: &View<'_>,
        fetch: &Fetch,
        failure: Failure,
        inbound: &I,
    ) -> Option<Reply> {
        let stored = fetch.selected.as_ref()?;
        let directives = RequestDirectives::of(&fetch.asked.fields);
        let now = now();
        let (age, why) =
            reuse::stale_after(failure, &stored.candidate(), &directives, &self.config.policy, now)?;
        self.serve_safely(view, stored, age, Some(why), now, inbound, &fetch.asked.target)
    }
}

/// Several ranges as multipart/byteranges (RFC 9110 §15.3.7.2). `None` if the content is not in memory.
fn several(stored: &Stored, spans: &[Span], length: u64, age: u32, report: Report) -> Option<Reply> {
    // No octets of the content decide it, so nobody can foresee it and put it into the content.
    let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), stored.id);
    let boundary = format!("{seed:016x}{:016x}", stored.id);
    let mut pieces = Vec::new();
    for span in spans {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(media_type) = stored.fields.get(Known::ContentType) {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(media_type);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: ");
        ContentRange::Part { span: *span, complete: Some(length) }.write(&mut head);
        head.extend_from_slice(b"\r\n\r\n");
        pieces.push(head.into());
        pieces.extend(stored.content.reader(Some(*span))?.take_pieces()?);
    }
    pieces.push(format!("\r\n--{boundary}--\r\n").into_bytes().into());
    let mut fields = (*stored.fields).clone();
    let _ = fields.set(Known::ContentType, format!("multipart/byteranges; boundary={boundary}"));
    push_age(&mut fields, age);
    Some(Reply::made(Status::PARTIAL_CONTENT, fields, Body::Pieces(pieces), report))
}

impl Reply {
    pub(super) fn made(status: Status, fields: Fields, body: Body, report: Report) -> Reply {
        Reply { head: Head::Made { status, fields }, body, report }
    }

    /// 9111-5.2.1.7-01.
    pub(super) fn gateway_timeout() -> Reply {
        Reply::made(Status::GATEWAY_TIMEOUT, Fields::new(), Body::Described(Some(0)), Report::default())
    }

    pub(super) fn collapsed(mut self, collapsed: Option<bool>) -> Reply {
        if let (Some(true), Some(Handling::Hit)) = (collapsed, self.report.handling) {
            // Another request went forward for it.
            self.report.handling =
                Some(Handling::Forwarded { why: Forward::UriMiss, status: None, stored: true, collapsed });
        }
        self
    }
}
