//! Sticky servers: a cookie (RFC 6265) that brings a client back to the server it was given first. Says which server
//! a request's cookie means, and what to set where it means none or another one took over.
//!
//! The value is a hash of the server's URL under a secret: it tells nobody where servers are, and nothing a client
//! writes into it leads anywhere but to one of the group. Whether the server can be asked is the group's to say.

use super::upstream::ServerPlan;
use base64::Engine;
use eleven_semantics::cookie::{Builder, InvalidCookie, SameSite, pairs};
use eleven_semantics::{Fields, Known};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// Octets of the hash that are sent: enough that no two servers of a group ever collide.
const TAG_BYTES: usize = 16;

/// Whether the cookie is sent over TLS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Secure {
    /// If it was set over TLS.
    #[default]
    Auto,
    /// Always: TLS ends before us.
    Always,
    /// Never.
    Never,
}

/// A sticky cookie, as configured.
#[derive(Clone)]
pub struct StickyPlan {
    /// Its name.
    pub cookie: Box<str>,
    /// Whether it goes over TLS only.
    pub secure: Secure,
    /// Scripts do not see it.
    pub http_only: bool,
    /// When other sites' requests carry it.
    pub same_site: SameSite,
    /// Where on the site it is sent.
    pub path: Box<str>,
    /// Seconds it lives; as long as the browser runs if not said.
    pub max_age_s: Option<u64>,
    /// The same secret makes the same values, here and elsewhere, now and after a restart.
    pub secret: Box<[u8]>,
}

impl StickyPlan {
    /// A cookie of this name, with everything else as it usually is. Its secret is this process's.
    pub fn new(cookie: &str) -> StickyPlan {
        StickyPlan {
            cookie: cookie.into(),
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
            path: "/".into(),
            max_age_s: None,
            secret: Box::new(secret_of_this_process()),
        }
    }

    fn builder<'a>(&'a self, value: &'a str, over_tls: bool) -> Builder<'a> {
        Builder {
            name: &self.cookie,
            value,
            max_age: self.max_age_s,
            path: Some(&self.path),
            secure: match self.secure {
                Secure::Auto => over_tls,
                Secure::Always => true,
                Secure::Never => false,
            },
            http_only: self.http_only,
            same_site: self.same_site,
            ..Builder::default()
        }
    }

    /// Whether a user agent would keep it.
    ///
    /// # Errors
    /// The first reason why not. With [`Secure::Auto`], over TLS.
    pub fn check(&self) -> Result<(), InvalidCookie> {
        self.builder("x", true).build().map(|_| ())
    }
}

impl std::fmt::Debug for StickyPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StickyPlan").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

/// A reload changes no cookie, a restart does.
fn secret_of_this_process() -> [u8; 32] {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    *SECRET.get_or_init(|| {
        eleven_net::random::bytes().unwrap_or_else(|error| {
            tracing::warn!(%error, "no randomness: values of sticky cookies can be guessed");
            [0; 32]
        })
    })
}

/// The cookie of a group.
#[derive(Debug)]
pub struct Sticky {
    plan: StickyPlan,
    /// What stands for each server, by its index.
    values: Box<[Box<str>]>,
}

impl Sticky {
    /// The cookie for these servers.
    pub fn new(plan: &StickyPlan, servers: &[ServerPlan]) -> Sticky {
        let value = |server: &ServerPlan| {
            let mut hash = Sha256::new();
            hash.update(u64::try_from(plan.secret.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(&plan.secret);
            hash.update(server.to_string());
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&hash.finalize()[..TAG_BYTES]).into()
        };
        Sticky { values: servers.iter().map(value).collect(), plan: plan.clone() }
    }

    /// The server that a request asks for.
    pub fn wanted(&self, fields: &Fields) -> Option<usize> {
        fields
            .all(Known::Cookie)
            .flat_map(pairs)
            .filter(|(name, _)| *name == self.plan.cookie.as_bytes())
            .find_map(|(_, value)| self.values.iter().position(|of_server| of_server.as_bytes() == value))
    }

    /// The value of Set-Cookie that brings the client back to this server. `None` if no user agent would keep it:
    /// `SameSite=None` over plain HTTP.
    pub fn set_cookie(&self, index: usize, over_tls: bool) -> Option<Vec<u8>> {
        self.plan.builder(self.values.get(index)?, over_tls).build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u16) -> Vec<ServerPlan> {
        (0..count).map(|n| ServerPlan::tcp("10.1.2.3", 3000 + n)).collect()
    }

    fn set(sticky: &Sticky, index: usize, over_tls: bool) -> String {
        String::from_utf8(sticky.set_cookie(index, over_tls).unwrap()).unwrap()
    }

    #[test]
    fn a_cookie_leads_back_and_tells_nothing() {
        let sticky = Sticky::new(&StickyPlan::new("route"), &servers(3));
        for index in 0..3 {
            let line = set(&sticky, index, false);
            let (pair, attributes) = line.split_once("; ").unwrap();
            assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
            let value = pair.strip_prefix("route=").unwrap();
            // Neither the address nor anything that is the same for another secret: see below.
            assert_eq!(value.len(), 22);
            for cookies in [
                format!("a=b; {pair}; c=d"),
                pair.to_owned(),
                format!("route=gone; {pair}"),
                format!("x=1;  {pair} ;y=2"),
            ] {
                let fields = Fields::from_iter(&[("Cookie", &*cookies)]);
                assert_eq!(sticky.wanted(&fields), Some(index), "{cookies}");
            }
            let (shorter, other) = (&value[..21], value.to_lowercase());
            for cookies in [
                format!("other={value}"),
                format!("Route={value}"),
                format!("route={shorter}"),
                format!("route={value}x"),
                format!("route=\"{value}\""),
                format!("route={other}!"),
                "route=".into(),
                "route".into(),
                "route=http://10.1.2.3:3000".into(),
                "route=0".into(),
            ] {
                let fields = Fields::from_iter(&[("Cookie", &*cookies)]);
                assert_eq!(sticky.wanted(&fields), None, "{cookies}");
            }
        }
        assert_eq!(sticky.wanted(&Fields::new()), None);
    }

    /// The order of servers, new ones, and a reload change nothing; another secret changes everything.
    #[test]
    fn values_belong_to_servers_and_secrets() {
        let plan = StickyPlan::new("route");
        let few = Sticky::new(&plan, &servers(2));
        let mut more = servers(5);
        more.reverse();
        let many = Sticky::new(&StickyPlan::new("route"), &more);
        assert_eq!(set(&few, 0, false), set(&many, 4, false));
        assert_eq!(set(&few, 1, false), set(&many, 3, false));
        let other = Sticky::new(&StickyPlan { secret: Box::new(*b"other"), ..plan }, &servers(2));
        assert_ne!(set(&few, 0, false), set(&other, 0, false));
    }

    /// 6265-4.1.1-04: attributes as the operator wants them, and none that makes user agents drop the cookie.
    #[test]
    fn attributes() {
        let plan = StickyPlan::new("__Host-route");
        assert_eq!(plan.check(), Ok(()));
        let sticky = Sticky::new(&plan, &servers(1));
        assert!(set(&sticky, 0, true).ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"));
        assert_eq!(sticky.set_cookie(0, false), None);
        let plan = StickyPlan {
            secure: Secure::Always,
            http_only: false,
            same_site: SameSite::None,
            path: "/app".into(),
            max_age_s: Some(60),
            ..StickyPlan::new("r")
        };
        assert!(
            set(&Sticky::new(&plan, &servers(1)), 0, false)
                .ends_with("; Max-Age=60; Path=/app; Secure; SameSite=None")
        );
        let never = StickyPlan { secure: Secure::Never, ..plan };
        assert_eq!(never.check(), Err(InvalidCookie::Useless));
        assert_eq!(StickyPlan::new("a b").check(), Err(InvalidCookie::Name));
        let path = StickyPlan { path: "/;x".into(), ..StickyPlan::new("a") };
        assert_eq!(path.check(), Err(InvalidCookie::Attribute));
        assert!(!format!("{:?}", StickyPlan::new("a")).contains("secret"));
    }
}
