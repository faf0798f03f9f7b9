//! The engine of a cache: key → find → decide → serve, validate or fetch → store, freshen or invalidate
//! (RFC 9111 §4). It puts the rules, the stores and the collapsing together; none of them is decided here.
//!
//! It is handed a way to send requests inbound ([`Inbound`]) and knows no connection. Whatever outlives a
//! request (content on its way into the store, validation in the background) is a task on the same worker.

mod fetch;
mod invalidate;
mod keep;
mod serve;

use crate::collapse::{Collapse, Landing, Role, Waited};
use crate::content::Content;
use crate::memory::Found;
use crate::purge::Selection;
use crate::reply::{Answer, Ask, Failed, Inbound, Reply, Request};
use crate::store::{Store, Usage};
use crate::stored::{Stored, next_id};
use eleven_net::clock;
use eleven_semantics::caching::Request as View;
use eleven_semantics::caching::key::{self, KeyRules};
use eleven_semantics::caching::reuse::{self, Bypass, Miss, Stale, Validate, Verdict};
use eleven_semantics::caching::status::Forward;
use eleven_semantics::caching::{NotStored, Policy, RequestDirectives, invalidation};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::RangeLimits;
use eleven_semantics::{Fields, Known, Method};
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

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

/// What came back from inbound, and when.
struct Arrived {
    answer: Answer,
    /// When it was asked for.
    request_time: HttpDate,
    /// When its header section had arrived.
    now: HttpDate,
    /// The number of what is made of it: given when it was asked for.
    id: u64,
}

fn now() -> HttpDate {
    HttpDate(clock::unix_seconds())
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

    /// The way of a hit: one look-up in memory, nothing awaited. `None`: ask [`Cache::respond`]. Who reads the clock but
    /// a few times a second may say that it is `now`.
    pub fn hit(&self, request: &Request<'_>, scratch: &mut Scratch, now: HttpDate) -> Option<Reply> {
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
            let arrived = Arrived { answer, request_time, now, id: next_id(now) };
            return Ok(self.store_or_forward_now(&fetch, arrived, None, inbound));
        }
        let not_stored = if why == Bypass::Method { NotStored::Method } else { NotStored::Rule };
        Ok(self.forwarded(&fetch, answer, not_stored))
    }
}

fn view<'a>(request: &Request<'a>) -> View<'a> {
    View { method: request.method, fields: request.fields, has_content: request.has_content }
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

#[cfg(test)]
mod tests;
