//! Caching (RFC 9111) as pure rules: what may be stored, under which key, how long it is fresh, when it may be
//! reused, how it is validated and updated, and what a request makes invalid. Time comes in as `now`; nothing
//! here holds a response or knows where one is kept.
//!
//! One section of the RFC is one file. Each decision is a value that says why, so that the access log,
//! Cache-Status and `eleven cache explain` tell the same story.

pub mod directives;
pub mod explain;
pub mod freshness;
pub mod invalidation;
pub mod key;
pub mod partial;
pub mod reuse;
pub mod status;
pub mod storing;
pub mod validation;
pub mod written;

pub use directives::{Delta, RequestDirectives, ResponseDirectives};
pub use freshness::Freshness;
pub use reuse::Verdict;
pub use storing::NotStored;

use crate::cookie;
use crate::fields::Fields;
use crate::method::Method;
use crate::names::Known;
use crate::status::Status;

/// What a cache needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its header section.
    pub fields: &'a Fields,
    /// Whether it carries content.
    pub has_content: bool,
}

/// What a cache needs to know of a response, without its content.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// Its status.
    pub status: Status,
    /// Its header section.
    pub fields: &'a Fields,
}

/// What the operator of a cache decides, as far as the rules ask for it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Shared by several users (a proxy), or private to one (a user agent).
    pub shared: bool,
    /// Targeted fields that govern this cache, most applicable first (RFC 9213 §2.2).
    pub targets: Vec<Box<str>>,
    /// Part of the time since Last-Modified that counts as fresh when nothing is said, in percent (RFC 9111
    /// §4.2.2 names 10). 0 turns heuristics off.
    pub heuristic_percent: u32,
    /// Longest heuristic lifetime, in seconds.
    pub heuristic_seconds_max: u32,
    /// Longest heuristic lifetime of an error (4xx and 5xx), in seconds: a wrong one should not last (C15).
    pub heuristic_error_seconds_max: u32,
    /// Lifetime of heuristically cacheable responses without any information, in seconds. `None`: stale at
    /// once.
    pub default_seconds: Option<u32>,
    /// Longest lifetime of anything, in seconds.
    pub lifetime_seconds_max: u32,
    /// What to do about cookies.
    pub cookies: Cookies,
    /// Whether requests may ask for fresher responses than the cache would give (RFC 9111 §5.2.1 calls these
    /// directives advisory).
    pub honour_requests: bool,
    /// Whether a stale response may be served when the origin server cannot be reached and no directive
    /// forbids it (RFC 9111 §4.2.4).
    pub stale_when_disconnected: bool,
    /// How stale such a response may be, in seconds (C33).
    pub stale_seconds_max: u32,
    /// stale-while-revalidate for responses that say nothing, in seconds; 0 is none.
    pub stale_while_revalidate_seconds: u32,
    /// stale-if-error for responses that say nothing, in seconds; 0 is none.
    pub stale_if_error_seconds: u32,
    /// Final statuses that may be stored, from and to. Empty: all that the rules allow.
    pub statuses: Vec<(u16, u16)>,
    /// Whether a response to POST that is a later GET's too may be stored (RFC 9110 §9.3.3).
    pub store_post: bool,
    /// Names of cookies; a final `*` matches any ending. Requests with one of them are somebody's own (who has logged
    /// in): they are for the server alone, and nothing of them is stored.
    pub bypass_cookies: Vec<Box<str>>,
}

impl Default for Policy {
    /// A shared cache that follows the RFC.
    fn default() -> Policy {
        Policy {
            shared: true,
            targets: vec!["CDN-Cache-Control".into(), "Surrogate-Control".into()],
            heuristic_percent: 10,
            heuristic_seconds_max: 86_400,
            heuristic_error_seconds_max: 60,
            default_seconds: None,
            lifetime_seconds_max: directives::SECONDS_MAX,
            cookies: Cookies::PerRfc,
            honour_requests: true,
            stale_when_disconnected: true,
            stale_seconds_max: 7 * 86_400,
            stale_while_revalidate_seconds: 0,
            stale_if_error_seconds: 0,
            statuses: Vec::new(),
            store_post: true,
            bypass_cookies: Vec::new(),
        }
    }
}

impl Policy {
    /// Whether a request has a cookie with which it goes past the store ([`Policy::bypass_cookies`]).
    #[inline]
    pub fn bypasses(&self, request: &Fields) -> bool {
        !self.bypass_cookies.is_empty() && self.has_bypass_cookie(request)
    }

    #[cold]
    fn has_bypass_cookie(&self, request: &Fields) -> bool {
        let listed = |name: &[u8]| {
            self.bypass_cookies.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning.as_bytes()),
                None => name == pattern.as_bytes(),
            })
        };
        request.all(Known::Cookie).flat_map(cookie::pairs).any(|(name, _)| listed(name))
    }

    /// A private cache (a user agent's): targeted fields are not for it (RFC 9213 §3).
    pub fn private() -> Policy {
        Policy { shared: false, targets: Vec::new(), ..Policy::default() }
    }
}

/// What a cache does about cookies (RFC 9111 §7.3: Set-Cookie does not inhibit caching; C11, C23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cookies {
    /// As the RFC has it: cookies change nothing.
    #[default]
    PerRfc,
    /// The safer option: a response with Set-Cookie, or to a request with Cookie, is stored only if it says
    /// `public`, or is governed by `s-maxage` or a targeted field.
    Careful,
}
