//! Responses on their way into the store (RFC 9111 §3): whether and as what one is kept while the client gets it, and how a
//! stored prefix is completed (§3.3, §3.4). The content itself is moved by `fill`.

use super::fetch::landing;
use super::{Arrived, Cache, Fetch, now};
use crate::collapse::{Landing, Ticket};
use crate::content::{Content, Fill, Keeping};
use crate::fill::{Filling, Gathering};
use crate::reply::{Body, Inbound, Reply, Report, push_age};
use crate::stored::{Stored, Tags};
use eleven_net::clock;
use eleven_semantics::caching::key::{self, Vary};
use eleven_semantics::caching::partial::{self, Held, Part};
use eleven_semantics::caching::status::Handling;
use eleven_semantics::caching::storing::{fields_to_store, may_store};
use eleven_semantics::caching::validation;
use eleven_semantics::caching::{Freshness, NotStored, Response, ResponseDirectives};
use eleven_semantics::range;
use eleven_semantics::{Fields, Known, Method, Status};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What [`Cache::begin`] starts with.
pub(super) struct Start {
    /// The response as it will be stored, its content still the fill.
    stored: Arc<Stored>,
    fill: Arc<Fill>,
    /// Blocks of it that are full already.
    full: Vec<bytes::Bytes>,
    gathering: Gathering,
    /// What the client gets.
    status: Status,
    fields: Fields,
}

impl Cache {
    pub(super) async fn store_or_forward<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        arrived: Arrived,
        ticket: Option<Ticket>,
        inbound: &I,
    ) -> Reply {
        let status = arrived.answer.status;
        let superseded = fetch.selected.clone().filter(|_| validation::supersedes(status));
        let reply = self.store_or_forward_now(fetch, arrived, ticket, inbound);
        // 9111-4.3.3-01: what was stored is no longer what the origin server says.
        if let Some(old) = superseded
            && reply.report.not_stored.is_some()
            && reply.status() != Status::PARTIAL_CONTENT
        {
            self.store.remove(&old).await;
        }
        reply
    }

    /// Stores a response while it is forwarded, or only forwards it.
    pub(super) fn store_or_forward_now<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        arrived: Arrived,
        ticket: Option<Ticket>,
        inbound: &I,
    ) -> Reply {
        let (stored, fill, part) = match self.storable(fetch, &arrived) {
            Ok(storable) => storable,
            Err(why) => {
                if let Some(mut ticket) = ticket {
                    ticket.land(Landing::Refused(why), clock::now());
                }
                return self.forwarded(fetch, arrived.answer, why);
            }
        };
        let (status, fields) = (arrived.answer.status, arrived.answer.fields.clone());
        let gathering = match part {
            Part::Whole => Gathering::Whole { digest: self.promised_digest(&fields) },
            Part::Span(span, complete) => Gathering::Part { span, complete },
        };
        let start = Start { stored, fill, full: Vec::new(), gathering, status, fields };
        self.begin(fetch, start, arrived, ticket, inbound)
    }

    /// What is to be stored of a response, or why nothing is.
    pub(super) fn storable(
        &self,
        fetch: &Fetch,
        arrived: &Arrived,
    ) -> Result<(Arc<Stored>, Arc<Fill>, Part), NotStored> {
        let &Arrived { ref answer, request_time, now, id } = arrived;
        let policy = &self.config.policy;
        let directives = ResponseDirectives::of(&answer.fields, &policy.targets);
        let response = Response { status: answer.status, fields: &answer.fields };
        let freshness = Freshness::of(&response, &directives, policy, request_time, now);
        let own_location = fetch.asked.content_location_is_target(&answer.fields);
        may_store(&fetch.asked.view(), &response, &directives, &freshness, policy, own_location)?;
        let part = partial::part(answer.status, &answer.fields, answer.length)?;
        let Vary::Names(vary) = key::nominated(&answer.fields) else { return Err(NotStored::VaryAny) };
        let mut variant = Vec::new();
        key::write_variant(&mut variant, &vary, &fetch.asked.fields);
        let (expected, held, status) = match part {
            Part::Whole => (answer.length, None, answer.status),
            // 9111-3.3-02: as an incomplete 200.
            Part::Span(span, complete) => (Some(span.len()), Some(Held::new(span, complete)), Status::OK),
        };
        let keeping = self.store.keeping(expected);
        if keeping == Keeping::Pass || (held.is_some() && keeping != Keeping::Memory) {
            return Err(NotStored::TooLarge);
        }
        let mut fields = fields_to_store(&answer.fields, &directives, policy.shared);
        if !fields.contains(Known::Date) {
            // RFC 9110 §6.6.1: a recipient with a clock adds it.
            let _ = fields.push(Known::Date, now.imf());
        }
        if held.is_some() {
            fields.remove(Known::ContentRange);
        }
        let fill = Fill::new(expected, Keeping::Memory);
        let stored = Arc::new(Stored {
            id,
            key: fetch.asked.key.clone().into(),
            uri_length: fetch.asked.uri_length,
            vary,
            variant: variant.into(),
            status,
            tags: Tags::of(&fields),
            fields: Arc::new(fields),
            directives,
            freshness,
            received: now,
            held,
            content: Content::Filling(fill.clone()),
            body: None,
            marked: AtomicBool::new(false),
        });
        Ok((stored, fill, part))
    }

    pub(super) fn promised_digest(&self, fields: &Fields) -> Option<eleven_semantics::digest_fields::Digest> {
        if !self.config.verify_digests {
            return None;
        }
        let of = |name| {
            if !fields.contains(name) {
                return None;
            }
            eleven_semantics::digest_fields::promised(fields, name).ok()?.into_iter().next()
        };
        // Without a content coding both are over the same octets.
        of(Known::ContentDigest).or_else(|| of(Known::ReprDigest))
    }

    /// Starts the task that fills, and gives the client its reader.
    pub(super) fn begin<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        start: Start,
        arrived: Arrived,
        mut ticket: Option<Ticket>,
        inbound: &I,
    ) -> Reply {
        let Start { stored, fill, full, gathering, status, fields } = start;
        let Arrived { answer, now, .. } = arrived;
        // The reader comes first, so that the fill cannot run away from it.
        let reader = match (&stored.held, fetch.asked.method == Method::Head) {
            (Some(_), _) => Content::Filling(fill.clone()).reader(None),
            _ => stored.content.reader(None),
        };
        if let Some(ticket) = &mut ticket {
            ticket.land(landing(&stored, now), clock::now());
        }
        let ttl_seconds = Some(stored.freshness.remaining(now));
        let combine = fetch.selected.clone().filter(|old| old.held.is_some());
        let (arriving, body) = (stored.clone(), answer.body);
        let filling = Filling { cache: self.clone(), stored, fill, full, body, gathering, combine };
        tokio::task::spawn_local(filling.run(ticket));
        let handling = Handling::Forwarded {
            why: fetch.why,
            status: (answer.status != status).then_some(answer.status),
            stored: true,
            collapsed: fetch.collapsed,
        };
        let report = Report { handling: Some(handling), ttl_seconds, ..Report::default() };
        let body = match reader {
            _ if status.never_has_content() => Body::Empty,
            Some(reader) => Body::Reader(reader),
            None => Body::Empty,
        };
        let reply = Reply::made(status, fields, body, report);
        if arriving.held.is_some() || fetch.asked.method == Method::Post {
            // A part stays in memory; and POST is not repeated.
            return reply;
        }
        self.protected(reply, &arriving, &fetch.asked.fields, &fetch.asked.target, inbound)
    }

    /// Turns a request for the whole of a stored prefix into one for the rest (9111-3.3-04). Gives back the
    /// stored response that is to be completed.
    pub(super) fn write_completion(
        &self,
        fetch: &Fetch,
        fields: &mut Fields,
        unconditional: bool,
    ) -> Option<Arc<Stored>> {
        let stored = fetch.selected.as_ref().filter(|stored| stored.held.is_some() && !unconditional)?;
        let asks_whole = fetch.asked.method == Method::Get
            && !fields.contains_any(&[Known::Range, Known::IfNoneMatch, Known::IfModifiedSince]);
        let [prefix] = stored.held.as_ref()?.spans() else { return None };
        if !asks_whole || prefix.first != 0 {
            return None;
        }
        // 9111-3.4-01: only with a strong validator.
        let validator = partial::if_range(&stored.fields, now())?.to_vec();
        let mut range = Vec::new();
        range::write_range(&mut range, prefix.last + 1, None);
        let _ = fields.set(Known::Range, range);
        let _ = fields.set(Known::IfRange, validator);
        Some(stored.clone())
    }

    /// The rest of a stored prefix arrived, or everything anew. A different part is given back.
    pub(super) fn complete<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        stored: &Arc<Stored>,
        arrived: Arrived,
        ticket: Option<Ticket>,
        inbound: &I,
    ) -> Result<Reply, Option<Ticket>> {
        let &Arrived { ref answer, request_time, now, id } = &arrived;
        let have = stored.held.as_ref().and_then(|held| held.spans().first().copied());
        let (Some(have), Some(prefix)) = (have, stored.held_bytes(0)) else { return Err(ticket) };
        let rest = match partial::part(answer.status, &answer.fields, answer.length) {
            Ok(Part::Whole) => {
                let reply = self.store_or_forward_now(fetch, arrived, ticket, inbound);
                return Ok(reply);
            }
            Ok(Part::Span(span, Some(complete)))
                if span.first == have.last + 1
                    && span.last + 1 == complete
                    && stored.held.as_ref().is_some_and(|h| h.complete().is_none_or(|c| c == complete))
                    && partial::may_combine(&stored.fields, &answer.fields, now) =>
            {
                complete
            }
            _ => return Err(ticket),
        };
        // 9111-3.4-02: the new response's fields count.
        let mut new = self.updated(stored, &answer.fields, request_time, now);
        new.id = id;
        new.held = None;
        let fill = Fill::new(Some(rest), Keeping::Memory);
        let full = fill.push(&prefix);
        new.content = Content::Filling(fill.clone());
        let new = Arc::new(new);
        let mut fields = (*new.fields).clone();
        push_age(&mut fields, new.freshness.age(now));
        let gathering = Gathering::Whole { digest: None };
        let start = Start { stored: new, fill, full, gathering, status: Status::OK, fields };
        Ok(self.begin(fetch, start, arrived, ticket, inbound))
    }
}

impl Stored {
    /// The octets of the held part that begins at this place of the list.
    fn held_bytes(&self, place: usize) -> Option<bytes::Bytes> {
        match &self.content {
            Content::Parts(parts) => parts.0.get(place).map(|(_, bytes)| bytes.clone()),
            _ => None,
        }
    }
}
