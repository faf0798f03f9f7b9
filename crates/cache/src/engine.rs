//! The engine of a cache: key → find → decide → serve, validate or fetch → store, freshen or invalidate
//! (RFC 9111 §4). It puts the rules, the stores and the collapsing together; none of them is decided here.
//!
//! It is handed a way to send requests inbound ([`Inbound`]) and knows no connection. Whatever outlives a
//! request (content on its way into the store, validation in the background) is a task on the same worker.

use crate::collapse::{Collapse, Landing, Role, Ticket, Waited};
use crate::content::{Content, Fill, Keeping};
use crate::fill::{Filling, Gathering};
use crate::heal::Healing;
use crate::memory::Found;
use crate::purge::{How, Selection};
use crate::reply::{Answer, Ask, Body, Failed, Head, Inbound, Reply, Report, Request, push_age};
use crate::store::{Store, Usage};
use crate::stored::{Stored, next_id};
use eleven_net::clock;
use eleven_semantics::caching::key::{self, KeyRules, Vary};
use eleven_semantics::caching::partial::{self, Held, Part};
use eleven_semantics::caching::reuse::{self, Bypass, Failure, Miss, Stale, Validate, Verdict};
use eleven_semantics::caching::status::{Forward, Handling};
use eleven_semantics::caching::storing::{fields_to_store, may_store};
use eleven_semantics::caching::validation::{self, Answer as Validated};
use eleven_semantics::caching::{
    Freshness, NotStored, Policy, Request as View, RequestDirectives, Response, ResponseDirectives,
    invalidation,
};
use eleven_semantics::conditional::{self, Verdict as Condition};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::{self, ContentRange, RangeLimits, Ranges, Span};
use eleven_semantics::{Fields, Known, Method, Status};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

/// How many times a request looks again before it goes by itself.
const LOOKS_MAX: usize = 3;

/// Purges and invalidations that fills still on their way are compared with.
const RECENT_MAX: usize = 4096;

/// How a cache is to work.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the rules ask the operator.
    pub policy: Arc<Policy>,
    /// What keys are made of.
    pub keys: KeyRules,
    /// Limits of ranges served from stored responses.
    pub ranges: RangeLimits,
    /// Octets in memory of all content that is on its way into the store. Beyond it, content goes to disk or
    /// passes through.
    pub filling_bytes_max: u64,
    /// Whether content is compared with Content-Digest and Repr-Digest before it is stored (C30).
    pub verify_digests: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            policy: Arc::new(Policy::default()),
            keys: KeyRules::default(),
            ranges: RangeLimits::default(),
            filling_bytes_max: 256 << 20,
            verify_digests: true,
        }
    }
}

/// Memory for look-ups, kept from request to request.
#[derive(Debug, Default)]
pub struct Scratch {
    key: Vec<u8>,
    variant: Vec<u8>,
}

/// A cache: shared by all workers.
pub struct Cache {
    pub(crate) store: Arc<Store>,
    collapse: Arc<Collapse>,
    pub(crate) config: Config,
    pub(crate) filling_bytes: Arc<AtomicU64>,
    /// What was made invalid lately, and at which number.
    recent: Arc<Mutex<VecDeque<(u64, Selection)>>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?})", self.usage())
    }
}

/// A request that outlives the one it was made from.
struct Asked {
    method: Method,
    target: Vec<u8>,
    fields: Fields,
    key: Vec<u8>,
    uri_length: usize,
}

/// What is to be fetched, and what is there already.
struct Fetch {
    asked: Asked,
    why: Forward,
    /// The stored response that the request selects.
    selected: Option<Arc<Stored>>,
    /// Those whose validators may be of use.
    candidates: Vec<Arc<Stored>>,
    collapsed: Option<bool>,
}

fn now() -> HttpDate {
    HttpDate(clock::unix_seconds())
}

fn uri_selection(uri_key: &[u8]) -> Option<Selection> {
    key::read_uri(uri_key).map(|(_, site, target)| Selection::Uri(site, target.to_vec()))
}

impl Cache {
    /// A cache over this store.
    pub fn new(store: Arc<Store>, config: Config, collapse: crate::collapse::Limits) -> Arc<Cache> {
        Arc::new(Cache {
            store,
            collapse: Collapse::new(collapse),
            config,
            filling_bytes: Arc::default(),
            recent: Arc::default(),
        })
    }

    /// The same store under other rules: of another route, or after the configuration was read again. Requests
    /// wait for each other and invalidate across all of them.
    pub fn with(&self, config: Config) -> Arc<Cache> {
        Arc::new(Cache {
            store: self.store.clone(),
            collapse: self.collapse.clone(),
            config,
            filling_bytes: self.filling_bytes.clone(),
            recent: self.recent.clone(),
        })
    }

    /// Its store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How it works.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store in numbers.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// How many fetches are under way that other requests may wait for.
    pub fn flights(&self) -> usize {
        self.collapse.flights()
    }

    /// The way of a hit: one look-up in memory, nothing awaited. `None`: ask [`Cache::respond`].
    pub fn hit(&self, request: &Request<'_>, scratch: &mut Scratch) -> Option<Reply> {
        let view = view(request);
        if reuse::bypass(&view).is_some() {
            return None;
        }
        let target = self.config.keys.target(request.target);
        self.config.keys.write_key(&mut scratch.key, request.site, &target, request.fields);
        let Found::Selected(stored) = self.store.find_now(&scratch.key, request.fields, &mut scratch.variant)
        else {
            return None;
        };
        if matches!(stored.content, Content::Disk(_)) {
            // It may need help from inbound.
            return None;
        }
        let asked = RequestDirectives::of(request.fields);
        let now = now();
        match reuse::decide(&stored.candidate(), &asked, &self.config.policy, now) {
            Verdict::Fresh { age } => self.serve(&view, &stored, age, None, now),
            Verdict::Stale { age, why: Stale::MaxStale } => {
                self.serve(&view, &stored, age, Some(Stale::MaxStale), now)
            }
            _ => None,
        }
    }

    /// Answers a request: from the store, or by way of `inbound`.
    ///
    /// # Errors
    /// If it had to go inbound and that failed, and no stale response may be served.
    pub async fn respond<I: Inbound>(
        self: &Arc<Self>,
        request: &Request<'_>,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
        let view = view(request);
        let target = self.config.keys.target(request.target).into_owned();
        if let Some(why) = reuse::bypass(&view) {
            return self.pass(request, target, why, inbound).await;
        }
        let cleaned =
            if self.config.policy.shared { self.config.keys.without_overrides(request.fields) } else { None };
        let request = &Request { fields: cleaned.as_ref().unwrap_or(request.fields), ..*request };
        let view = View { fields: request.fields, ..view };
        let directives = RequestDirectives::of(request.fields);
        let mut scratch = Scratch::default();
        self.config.keys.write_key(&mut scratch.key, request.site, &target, request.fields);
        let mut uri = Vec::new();
        key::write_uri(&mut uri, &self.config.keys.partition, request.site, &target);
        let Scratch { key, variant } = &mut scratch;
        let asked = || Asked {
            method: request.method.clone(),
            target: target.clone(),
            fields: request.fields.clone(),
            key: key.clone(),
            uri_length: uri.len(),
        };
        let mut collapsed = None;
        for look in 0.. {
            let now = now();
            let found = self.store.find(key, request.fields, variant, &self.config.policy).await;
            let (selected, candidates, miss) = match found {
                Found::Selected(stored) => (Some(stored.clone()), vec![stored], Miss::Partial),
                Found::Unselected(all) => (None, all, Miss::Vary),
                Found::Nothing => (None, Vec::new(), Miss::Uri),
            };
            let mut why = Forward::from(miss);
            let mut may_wait = look < LOOKS_MAX && *request.method == Method::Get;
            if let Some(stored) = &selected {
                match reuse::decide(&stored.candidate(), &directives, &self.config.policy, now) {
                    Verdict::Fresh { age } => {
                        if let Some(reply) =
                            self.serve_safely(&view, stored, age, None, now, inbound, &target)
                        {
                            return Ok(reply.collapsed(collapsed));
                        }
                    }
                    Verdict::Stale { age, why } => {
                        let reply = self.serve_safely(&view, stored, age, Some(why), now, inbound, &target);
                        if let Some(reply) = reply {
                            if why == Stale::WhileRevalidate {
                                self.revalidate_later(asked(), stored, inbound);
                            }
                            return Ok(reply);
                        }
                    }
                    Verdict::Validate(reason) => {
                        why = Forward::from(reason);
                        // Who insists on validation cannot use what another one asked for before.
                        may_wait &= !matches!(
                            reason,
                            Validate::RequestNoCache | Validate::RequestMaxAge | Validate::RequestMinFresh
                        );
                    }
                    Verdict::GatewayTimeout => return Ok(Reply::gateway_timeout()),
                    Verdict::Miss(_) | Verdict::Bypass(_) => {}
                }
            }
            if directives.only_if_cached {
                return Ok(Reply::gateway_timeout());
            }
            // Nothing is stored to share: answers to conditions and ranges are for one client.
            let alone = [Known::Range, Known::IfNoneMatch, Known::IfModifiedSince];
            may_wait &= selected.is_some() || !request.fields.contains_any(&alone);
            may_wait &= !directives.no_store && !directives.no_cache;
            let fetch = Fetch { asked: asked(), why, selected, candidates, collapsed };
            if !may_wait {
                return self.fetch(fetch, None, inbound).await;
            }
            match self.collapse.join(&self.flight_key(&fetch), clock::now()) {
                Role::Fetch(ticket) => return self.fetch(fetch, Some(ticket), inbound).await,
                Role::Alone => return self.fetch(fetch, None, inbound).await,
                Role::Wait(waiter) => match waiter.wait().await {
                    Waited::TakeOver(ticket) => return self.fetch(fetch, Some(ticket), inbound).await,
                    Waited::TimedOut | Waited::Landed(Landing::Refused(_) | Landing::NotShared) => {
                        let fetch = Fetch { collapsed: Some(false), ..fetch };
                        return self.fetch(fetch, None, inbound).await;
                    }
                    Waited::Landed(Landing::Failed(failure)) => {
                        return match self.stale_reply(&view, &fetch, failure, inbound) {
                            Some(reply) => Ok(reply.collapsed(Some(true))),
                            None => Err(Failed::Shared(failure)),
                        };
                    }
                    Waited::Landed(Landing::Stored(stored)) => {
                        collapsed = Some(true);
                        if let Some(reply) = self.share(&view, &stored, &directives, variant) {
                            let reply = self.protected(reply, &stored, request.fields, &target, inbound);
                            return Ok(reply.collapsed(Some(true)));
                        }
                        // Not for this request; perhaps for its own variant somebody fetches already.
                    }
                },
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Requests wait for each other by key and, where it is known what the responses vary by, by variant.
    fn flight_key(&self, fetch: &Fetch) -> Vec<u8> {
        let mut flight = fetch.asked.key.clone();
        let newest =
            fetch.selected.as_ref().or_else(|| fetch.candidates.iter().max_by_key(|stored| stored.id));
        if let Some(stored) = newest.filter(|stored| !stored.vary.is_empty()) {
            let mut variant = Vec::new();
            key::write_variant(&mut variant, &stored.vary, &fetch.asked.fields);
            flight.push(0xff);
            flight.extend_from_slice(&variant);
        }
        flight
    }

    /// Serves what another request brought, if this one may use it (9111-4-R1).
    fn share(
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
    fn serve(
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
            _ => Body::Reader(stored.content.reader(None)?),
        };
        Some(Reply { head: Head::Stored { stored: stored.clone(), age }, body, report })
    }

    /// `None`: Range does not count, serve the whole. `Some(None)`: what is held does not suffice.
    #[allow(clippy::option_option)]
    fn serve_range(
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
    fn serve_safely<I: Inbound>(
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
    fn protected<I: Inbound>(
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

    /// stale-while-revalidate: validates in the background, unless somebody does already.
    fn revalidate_later<I: Inbound>(self: &Arc<Self>, asked: Asked, stored: &Arc<Stored>, inbound: &I) {
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

    /// After a failure: a stale response, if that is permitted.
    fn stale_reply<I: Inbound>(
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

    /// Sends the request inbound, with conditions for what is stored, and deals with what comes back.
    async fn fetch<I: Inbound>(
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
                        return self
                            .freshened(&fetch, &all, &answer, ticket, request_time, now, inbound)
                            .await;
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
            if let Some(stored) = completing {
                match self.complete(&fetch, &stored, answer, request_time, now, id, ticket, inbound) {
                    Ok(reply) => return Ok(reply),
                    Err((_, returned)) => {
                        // Another part than was asked for: of no use to this request.
                        ticket = returned;
                        unconditional = true;
                        continue;
                    }
                }
            }
            if fetch.asked.method == Method::Head {
                self.head_arrived(&fetch, &answer, request_time, now).await;
                return Ok(self.forwarded(&fetch, answer, NotStored::Method));
            }
            return Ok(self.store_or_forward(&fetch, answer, ticket, request_time, now, id, inbound).await);
        }
    }

    fn failed<I: Inbound>(
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
    fn forwarded(&self, fetch: &Fetch, answer: Answer, why_not: NotStored) -> Reply {
        let handling =
            Handling::Forwarded { why: fetch.why, status: None, stored: false, collapsed: fetch.collapsed };
        let report = Report { handling: Some(handling), not_stored: Some(why_not), ..Report::default() };
        let body = answer_body(&fetch.asked.method, answer.status, answer.body, answer.length);
        Reply::made(answer.status, answer.fields, body, report)
    }

    /// A 304 arrived for these (RFC 9111 §4.3.4): update all, serve the one that answers the request.
    #[allow(clippy::too_many_arguments)]
    async fn freshened<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        identified: &[Arc<Stored>],
        answer: &Answer,
        mut ticket: Option<Ticket>,
        request_time: HttpDate,
        now: HttpDate,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
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
    fn updated(&self, old: &Stored, received: &Fields, request_time: HttpDate, now: HttpDate) -> Stored {
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
        let directives = ResponseDirectives::of(&fields, &policy.targets);
        let response = Response { status: old.status, fields: &fields };
        let lifetime = Freshness::of(&response, &directives, policy, request_time, now);
        // Age is not stored; it counts from what was received.
        let received = Response { status: old.status, fields: received };
        let age = Freshness::of(&received, &directives, policy, request_time, now).initial_age;
        let mut new = old.copy();
        new.freshness = Freshness { initial_age: age, ..lifetime };
        new.tags = invalidation::tags(&fields);
        new.groups = invalidation::groups(&fields).len();
        new.directives = directives;
        new.fields = Arc::new(fields);
        new.marked = AtomicBool::new(false);
        new
    }

    /// A final answer to HEAD (RFC 9111 §4.3.5).
    async fn head_arrived(&self, fetch: &Fetch, answer: &Answer, request_time: HttpDate, now: HttpDate) {
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
                old.marked.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    /// Turns a request for the whole of a stored prefix into one for the rest (9111-3.3-04). Gives back the
    /// stored response that is to be completed.
    fn write_completion(
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
    #[allow(clippy::too_many_arguments, clippy::result_large_err)]
    fn complete<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        stored: &Arc<Stored>,
        answer: Answer,
        request_time: HttpDate,
        now: HttpDate,
        id: u64,
        ticket: Option<Ticket>,
        inbound: &I,
    ) -> Result<Reply, (Answer, Option<Ticket>)> {
        let have = stored.held.as_ref().and_then(|held| held.spans().first().copied());
        let (Some(have), Some(prefix)) = (have, stored.held_bytes(0)) else { return Err((answer, ticket)) };
        let rest = match partial::part(answer.status, &answer.fields, answer.length) {
            Ok(Part::Whole) => {
                let reply = self.store_or_forward_now(fetch, answer, ticket, request_time, now, id, inbound);
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
            _ => return Err((answer, ticket)),
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
        Ok(self.begin(fetch, new, fill, full, answer, gathering, ticket, Status::OK, fields, now, inbound))
    }

    #[allow(clippy::too_many_arguments)]
    async fn store_or_forward<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        answer: Answer,
        ticket: Option<Ticket>,
        request_time: HttpDate,
        now: HttpDate,
        id: u64,
        inbound: &I,
    ) -> Reply {
        let superseded = fetch.selected.clone().filter(|_| validation::supersedes(answer.status));
        let reply = self.store_or_forward_now(fetch, answer, ticket, request_time, now, id, inbound);
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
    #[allow(clippy::too_many_arguments)]
    fn store_or_forward_now<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        answer: Answer,
        ticket: Option<Ticket>,
        request_time: HttpDate,
        now: HttpDate,
        id: u64,
        inbound: &I,
    ) -> Reply {
        match self.storable(fetch, &answer, request_time, now, id) {
            Ok((stored, fill, part)) => {
                let gathering = match part {
                    Part::Whole => Gathering::Whole { digest: self.promised_digest(&answer.fields) },
                    Part::Span(span, complete) => Gathering::Part { span, complete },
                };
                let (status, fields) = (answer.status, answer.fields.clone());
                let full = Vec::new();
                self.begin(fetch, stored, fill, full, answer, gathering, ticket, status, fields, now, inbound)
            }
            Err(why) => {
                if let Some(mut ticket) = ticket {
                    ticket.land(Landing::Refused(why), clock::now());
                }
                self.forwarded(fetch, answer, why)
            }
        }
    }

    fn promised_digest(&self, fields: &Fields) -> Option<eleven_semantics::digest_fields::Digest> {
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

    /// What is to be stored of a response, or why nothing is.
    fn storable(
        &self,
        fetch: &Fetch,
        answer: &Answer,
        request_time: HttpDate,
        now: HttpDate,
        id: u64,
    ) -> Result<(Arc<Stored>, Arc<Fill>, Part), NotStored> {
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
            tags: invalidation::tags(&fields),
            groups: invalidation::groups(&fields).len(),
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

    /// Starts the task that fills, and gives the client its reader.
    #[allow(clippy::too_many_arguments)]
    fn begin<I: Inbound>(
        self: &Arc<Self>,
        fetch: &Fetch,
        stored: Arc<Stored>,
        fill: Arc<Fill>,
        full: Vec<bytes::Bytes>,
        answer: Answer,
        gathering: Gathering,
        mut ticket: Option<Ticket>,
        status: Status,
        fields: Fields,
        now: HttpDate,
        inbound: &I,
    ) -> Reply {
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

    /// A request that goes past the store (9111-4-03), and what its response makes invalid.
    async fn pass<I: Inbound>(
        self: &Arc<Self>,
        request: &Request<'_>,
        target: Vec<u8>,
        why: Bypass,
        inbound: &I,
    ) -> Result<Reply, Failed<I::Error>> {
        let request_time = now();
        let mut uri = Vec::new();
        key::write_uri(&mut uri, &self.config.keys.partition, request.site, &target);
        let mut full_key = Vec::new();
        self.config.keys.write_key(&mut full_key, request.site, &target, request.fields);
        let asked = Asked {
            method: request.method.clone(),
            target: target.clone(),
            fields: request.fields.clone(),
            key: full_key,
            uri_length: uri.len(),
        };
        let ask = Ask {
            method: request.method.clone(),
            target: target.clone(),
            fields: request.fields.clone(),
            with_content: request.has_content,
        };
        let answer = inbound.send(ask).await.map_err(Failed::Inbound)?;
        if invalidation::invalidates(request.method, answer.status) {
            self.invalidate(request, &target, &answer).await;
        }
        let fetch =
            Fetch { asked, why: Forward::from(why), selected: None, candidates: Vec::new(), collapsed: None };
        if *request.method == Method::Post {
            // RFC 9110 §9.3.3: a response to POST may answer later GETs.
            let now = now();
            return Ok(self.store_or_forward_now(
                &fetch,
                answer,
                None,
                request_time,
                now,
                next_id(now),
                inbound,
            ));
        }
        let not_stored = if why == Bypass::Method { NotStored::Method } else { NotStored::Rule };
        Ok(self.forwarded(&fetch, answer, not_stored))
    }

    /// RFC 9111 §4.4, RFC 9875.
    async fn invalidate(&self, request: &Request<'_>, target: &[u8], answer: &Answer) {
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
                for group in &stored.tags[..stored.groups] {
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

    fn note_recent(&self, selection: Selection) {
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

/// What waiters are told of a response that is being stored.
fn landing(stored: &Arc<Stored>, now: HttpDate) -> Landing {
    let shared = stored.held.is_none()
        && stored.freshness.is_fresh(now)
        && stored.directives.no_cache != eleven_semantics::caching::directives::Qualified::Whole;
    if shared { Landing::Stored(stored.clone()) } else { Landing::NotShared }
}

fn view<'a>(request: &Request<'a>) -> View<'a> {
    View { method: request.method, fields: request.fields, has_content: request.has_content }
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

impl Asked {
    fn view(&self) -> View<'_> {
        View { method: &self.method, fields: &self.fields, has_content: false }
    }

    fn content_location_is_target(&self, response: &Fields) -> bool {
        let Some(reference) = response.only(Known::ContentLocation).one() else { return false };
        let Some((_, site, target)) = key::read_uri(&self.key) else { return false };
        invalidation::resolve(&site, target, reference).is_some_and(|resolved| resolved == target)
    }
}

impl Reply {
    fn made(status: Status, fields: Fields, body: Body, report: Report) -> Reply {
        Reply { head: Head::Made { status, fields }, body, report }
    }

    /// 9111-5.2.1.7-01.
    fn gateway_timeout() -> Reply {
        Reply::made(Status::GATEWAY_TIMEOUT, Fields::new(), Body::Described(Some(0)), Report::default())
    }

    fn collapsed(mut self, collapsed: Option<bool>) -> Reply {
        if let (Some(true), Some(Handling::Hit)) = (collapsed, self.report.handling) {
            // Another request went forward for it.
            self.report.handling =
                Some(Handling::Forwarded { why: Forward::UriMiss, status: None, stored: true, collapsed });
        }
        self
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

#[cfg(test)]
mod tests;
