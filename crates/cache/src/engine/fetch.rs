//! The way inbound (RFC 9111 §4.3): a request with conditions for what is stored, and what its answer means: a 304 that makes
//! stored responses fresh again, a failure that a stale one stands in for, or a response to be kept.

use super::{Arrived, Asked, Cache, Fetch, now};
use crate::collapse::{Landing, Role, Ticket};
use crate::reply::{Answer, Ask, Body, Failed, Inbound, Reply, Report};
use crate::stored::{self, Stored, Tags, next_id};
use eleven_net::clock;
use eleven_semantics::caching::freshness;
use eleven_semantics::caching::reuse::Failure;
use eleven_semantics::caching::status::{Forward, Handling};
use eleven_semantics::caching::validation::{self, Answer as Validated};
use eleven_semantics::caching::{NotStored, ResponseDirectives};
use eleven_semantics::date::HttpDate;
use eleven_semantics::{Fields, Known, Method, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Cache {
    /// Sends the request inbound, with conditions for what is stored, and deals with what comes back.
    pub(super) async fn fetch<I: Inbound>(
        self: &Arc<Self>,
        fetch: Fetch,
        mut ticket: Option<Ticket>,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
        let mut unconditional = false;
        loop {
            let request_time = now();
            let id = next_id(request_time);
            let mut fields = fetch.asked.fields.clone();
            let completing = self.write_completion(&fetch, &mut fields, unconditional);
            let stored: Vec<&Fields> =
                fetch.candidates.iter().filter(|s| s.held.is_none()).map(|s| &*s.fields).collect();
            let conditional =
                !unconditional && completing.is_none() && validation::write_conditions(&mut fields, &stored);
            let ask = Ask {
                method: fetch.asked.method.clone(),
                target: fetch.asked.target.clone(),
                fields,
                with_content: false,
            };
            let answer = match inbound.send(ask).await {
                Ok(answer) => answer,
                Err(error) => return self.failed(&fetch, ticket, error, inbound),
            };
            let now = now();
            if conditional {
                let complete: Vec<&Arc<Stored>> =
                    fetch.candidates.iter().filter(|s| s.held.is_none()).collect();
                match validation::read_answer(
                    answer.status,
                    &answer.fields,
                    &fetch.asked.fields,
                    &stored,
                    now,
                ) {
                    Validated::Freshen(places) => {
                        let all: Vec<Arc<Stored>> = places.iter().map(|&i| complete[i].clone()).collect();
                        let arrived = Arrived { answer, request_time, now, id };
                        return self.freshened(&fetch, &all, &arrived, ticket, inbound).await;
                    }
                    Validated::ForClient => {
                        return Ok(self.forwarded(&fetch, answer, NotStored::StatusNotUnderstood));
                    }
                    Validated::Unknown => {
                        unconditional = true;
                        continue;
                    }
                    Validated::Error => {
                        let view = fetch.asked.view();
                        if let Some(reply) = self.stale_reply(&view, &fetch, Failure::Error, inbound) {
                            if let Some(ticket) = &mut ticket {
                                ticket.land(Landing::Failed(Failure::Error), clock::now());
                            }
                            return Ok(reply);
                        }
                    }
                    Validated::Full => {}
                }
            } else if matches!(answer.status.code(), 500 | 502 | 503 | 504)
                && let Some(reply) = self.stale_reply(&fetch.asked.view(), &fetch, Failure::Error, inbound)
            {
                if let Some(ticket) = &mut ticket {
                    ticket.land(Landing::Failed(Failure::Error), clock::now());
                }
                return Ok(reply);
            }
            let arrived = Arrived { answer, request_time, now, id };
            if let Some(stored) = completing {
                match self.complete(&fetch, &stored, arrived, ticket, inbound) {
                    Ok(reply) => return Ok(reply),
                    Err(returned) => {
                        // Another part than was asked for: of no use to this request.
                        ticket = returned;
                        unconditional = true;
                        continue;
                    }
                }
            }
            if fetch.asked.method == Method::Head {
                self.head_arrived(&fetch, &arrived).await;
                return Ok(self.forwarded(&fetch, arrived.answer, NotStored::Method));
            }
            return Ok(self.store_or_forward(&fetch, arrived, ticket, inbound).await);
        }
    }

    /// stale-while-revalidate: validates in the background, unless somebody does already.
    pub(super) fn revalidate_later<I: Inbound>(
        self: &Arc<Self>,
        asked: Asked,
        stored: &Arc<Stored>,
        inbound: &I,
    ) {
        let mut asked = asked;
        // For the store, not for this client.
        asked.method = Method::Get;
        for name in
            [Known::Range, Known::IfRange, Known::IfNoneMatch, Known::IfModifiedSince, Known::CacheControl]
        {
            asked.fields.remove(name);
        }
        let fetch = Fetch {
            asked,
            why: Forward::Stale,
            selected: Some(stored.clone()),
            candidates: vec![stored.clone()],
            collapsed: None,
        };
        if let Role::Fetch(ticket) = self.collapse.join(&self.flight_key(&fetch), clock::now()) {
            let (cache, inbound) = (self.clone(), inbound.clone());
            tokio::task::spawn_local(async move {
                let _ = cache.fetch(fetch, Some(ticket), &inbound).await;
            });
        }
    }

    pub(super) fn failed<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        ticket: Option<Ticket>,
        error: I::Error,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
        if let Some(mut ticket) = ticket {
            ticket.land(Landing::Failed(Failure::Disconnected), clock::now());
        }
        if let Some(reply) = self.stale_reply(&fetch.asked.view(), fetch, Failure::Disconnected, inbound) {
            return Ok(reply);
        }
        Err(if fetch.selected.is_some() { Failed::MustRevalidate(error) } else { Failed::Inbound(error) })
    }

    /// A reply with what came from inbound.
    pub(super) fn forwarded(&self, fetch: &Fetch, answer: Answer, why_not: NotStored) -> Reply {
        let handling =
            Handling::Forwarded { why: fetch.why, status: None, stored: false, collapsed: fetch.collapsed };
        let report = Report { handling: Some(handling), not_stored: Some(why_not), ..Report::default() };
        let body = answer_body(&fetch.asked.method, answer.status, answer.body, answer.length);
        Reply::made(answer.status, answer.fields, body, report)
    }

    /// A 304 arrived for these (RFC 9111 §4.3.4): update all, serve the one that answers the request.
    pub(super) async fn freshened<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        identified: &[Arc<Stored>],
        arrived: &Arrived,
        mut ticket: Option<Ticket>,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
        let &Arrived { ref answer, request_time, now, .. } = arrived;
        let mut scratch = Vec::new();
        let mut chosen: Option<Arc<Stored>> = None;
        for old in identified {
            let mut new = self.updated(old, &answer.fields, request_time, now);
            // Another variant that the origin server selects for this request: from now on it is this
            // request's variant as well (RFC 9111 §4.1 allows it after validation).
            let selected = old.is_selected_by(&fetch.asked.fields, &mut scratch);
            if !selected && chosen.is_none() {
                let mut twin = new.copy();
                twin.variant = scratch.clone().into();
                twin.id = next_id(now);
                let twin = Arc::new(twin);
                self.store.memory().insert(twin.clone());
                chosen = Some(twin);
            }
            new.id = next_id(now);
            let new = Arc::new(new);
            self.store.replace(old.id, new.clone()).await;
            if selected {
                chosen = Some(new);
            }
        }
        let Some(stored) = chosen else {
            unreachable!("read_answer gives at least one place");
        };
        if let Some(ticket) = &mut ticket {
            ticket.land(landing(&stored, now), clock::now());
        }
        drop(ticket);
        let view = fetch.asked.view();
        let age = stored.freshness.age(now);
        let mut reply = self
            .serve_safely(&view, &stored, age, None, now, inbound, &fetch.asked.target)
            // What was validated is complete; only a fill that let go of its beginning gives no reader.
            .unwrap_or_else(Reply::gateway_timeout);
        reply.report.handling = Some(Handling::Forwarded {
            why: fetch.why,
            status: Some(answer.status),
            stored: true,
            collapsed: fetch.collapsed,
        });
        Ok(reply)
    }

    /// A stored response with new fields: the content stays.
    pub(super) fn updated(
        &self,
        old: &Stored,
        received: &Fields,
        request_time: HttpDate,
        now: HttpDate,
    ) -> Stored {
        let policy = &self.config.policy;
        let mut fields = validation::update(
            &old.fields,
            received,
            &ResponseDirectives::of(received, &policy.targets),
            policy.shared,
        );
        if !received.contains(Known::Date) {
            let _ = fields.set(Known::Date, now.imf());
        }
        // Age is not stored; it counts from what was received.
        let age = freshness::initial_age(received, request_time, now);
        let (directives, freshness) = stored::meaning(old.status, &fields, policy, (request_time, now), age);
        let mut new = old.copy();
        new.freshness = freshness;
        new.tags = Tags::of(&fields);
        new.directives = directives;
        new.fields = Arc::new(fields);
        new.marked = AtomicBool::new(false);
        new
    }

    /// A final answer to HEAD (RFC 9111 §4.3.5).
    pub(super) async fn head_arrived(&self, fetch: &Fetch, arrived: &Arrived) {
        let &Arrived { ref answer, request_time, now, .. } = arrived;
        if answer.status != Status::OK {
            return;
        }
        for old in fetch.selected.iter() {
            let matches = validation::head_matches(
                &old.fields,
                old.complete_length(),
                &answer.fields,
                answer.length,
                now,
            );
            if matches {
                let mut new = self.updated(old, &answer.fields, request_time, now);
                new.id = next_id(now);
                self.store.replace(old.id, Arc::new(new)).await;
            } else {
                old.marked.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// What waiters are told of a response that is being stored.
pub(super) fn landing(stored: &Arc<Stored>, now: HttpDate) -> Landing {
    let shared = stored.held.is_none()
        && stored.freshness.is_fresh(now)
        && stored.directives.no_cache != eleven_semantics::caching::directives::Qualified::Whole;
    if shared { Landing::Stored(stored.clone()) } else { Landing::NotShared }
}

fn answer_body(
    method: &Method,
    status: Status,
    body: Box<dyn crate::reply::Source>,
    length: Option<u64>,
) -> Body {
    if status.never_has_content() {
        Body::Empty
    } else if *method == Method::Head {
        Body::Described(length)
    } else {
        Body::Flowing(body, length)
    }
}
