//! Cache-Status (RFC 9211): what this cache did with a request, as one member of the list. Whether it is sent
//! at all is the operator's choice (C35).

use super::reuse::{Bypass, Miss, Validate};
use crate::fields::Fields;
use crate::grammar;
use crate::names::Known;
use crate::status::Status;

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was told not to handle it.
    Bypass,
    /// Its method must be forwarded.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// No stored response that Vary selects.
    VaryMiss,
    /// A fresh one, but the request did not accept it.
    Request,
    /// A stale one.
    Stale,
    /// A partial one without what was asked for.
    Partial,
}

impl Forward {
    /// The token of RFC 9211.
    pub fn token(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }
}

impl From<Bypass> for Forward {
    fn from(why: Bypass) -> Forward {
        match why {
            Bypass::Method => Forward::Method,
            Bypass::Content | Bypass::OriginPrecondition | Bypass::RangeUnit | Bypass::Rule => {
                Forward::Bypass
            }
        }
    }
}

impl From<Miss> for Forward {
    fn from(why: Miss) -> Forward {
        match why {
            Miss::Uri => Forward::UriMiss,
            Miss::Vary => Forward::VaryMiss,
            Miss::Partial => Forward::Partial,
        }
    }
}

impl From<Validate> for Forward {
    fn from(why: Validate) -> Forward {
        match why {
            Validate::RequestNoCache | Validate::RequestMaxAge | Validate::RequestMinFresh => {
                Forward::Request
            }
            Validate::Stale | Validate::NoCache | Validate::Marked => Forward::Stale,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Answered from the store.
    Hit,
    /// Sent towards the origin server.
    Forwarded {
        /// Why.
        why: Forward,
        /// What came back, if that is not the status of the response sent.
        status: Option<Status>,
        /// Whether the response was stored.
        stored: bool,
        /// Whether the request waited for another one's response: `Some(false)` if that could not be used.
        collapsed: Option<bool>,
    },
}

/// One member of Cache-Status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The name of this cache: any text.
    pub cache: &'a str,
    /// What happened.
    pub handling: Handling,
    /// Freshness left, in seconds, where a stored response was used or made.
    pub ttl_seconds: Option<i64>,
    /// The key, if it may be shown.
    pub key: Option<&'a [u8]>,
    /// More, as a token ([`super::NotStored::token`] for instance).
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// Appends the member.
    pub fn write(&self, out: &mut Vec<u8>) {
        if is_sf_token(self.cache) {
            out.extend_from_slice(self.cache.as_bytes());
        } else {
            push_string(out, self.cache.as_bytes());
        }
        match self.handling {
            Handling::Hit => out.extend_from_slice(b"; hit"),
            Handling::Forwarded { why, status, stored, collapsed } => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(why.token().as_bytes());
                if let Some(status) = status {
                    out.extend_from_slice(b"; fwd-status=");
                    grammar::push_decimal(out, u64::from(status.code()));
                }
                if stored {
                    out.extend_from_slice(b"; stored");
                }
                match collapsed {
                    Some(true) => out.extend_from_slice(b"; collapsed"),
                    Some(false) => out.extend_from_slice(b"; collapsed=?0"),
                    None => {}
                }
            }
        }
        if let Some(ttl) = self.ttl_seconds {
            out.extend_from_slice(b"; ttl=");
            if ttl < 0 {
                out.push(b'-');
            }
            grammar::push_decimal(out, ttl.unsigned_abs());
        }
        if let Some(key) = self.key {
            out.extend_from_slice(b"; key=");
            push_string(out, key);
        }
        if let Some(detail) = self.detail.filter(|detail| is_sf_token(detail)) {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
    }

    /// Adds the member behind those of caches closer to the origin server, which stay (RFC 9211 §2).
    pub fn append(&self, response: &mut Fields) {
        let mut member = Vec::with_capacity(64);
        self.write(&mut member);
        // Only printable ASCII was written.
        let _ = response.push(Known::CacheStatus, member);
    }
}

fn is_sf_token(text: &str) -> bool {
    let first = text.as_bytes().first();
    first.is_some_and(|&b| b.is_ascii_alphabetic() || b == b'*')
        && text.bytes().all(|b| grammar::is_tchar(b) || b == b':' || b == b'/')
}

/// A structured string; what it cannot hold becomes `?`.
fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    let printable: Vec<u8> = text.iter().map(|&b| if matches!(b, 0x20..=0x7e) { b } else { b'?' }).collect();
    grammar::push_quoted(out, &printable);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structured;

    /// RFC 9211 §2, §3.
    #[test]
    fn members() {
        let forwarded =
            |why, status, stored, collapsed| Handling::Forwarded { why, status, stored, collapsed };
        for (cache, handling, ttl_seconds, key, detail, expected) in [
            ("eleven", Handling::Hit, Some(376), None, None, "eleven; hit; ttl=376"),
            ("eleven", Handling::Hit, Some(-30), None, Some("MEMORY"), "eleven; hit; ttl=-30; detail=MEMORY"),
            ("my cache", Handling::Hit, None, None, None, "\"my cache\"; hit"),
            (
                "eleven",
                forwarded(Forward::UriMiss, None, true, None),
                Some(60),
                Some(&b"http://h/\"\x80\\"[..]),
                None,
                "eleven; fwd=uri-miss; stored; ttl=60; key=\"http://h/\\\"?\\\\\"",
            ),
            (
                "eleven",
                forwarded(Forward::Stale, Some(Status::NOT_MODIFIED), false, Some(true)),
                None,
                None,
                None,
                "eleven; fwd=stale; fwd-status=304; collapsed",
            ),
            (
                "eleven",
                forwarded(Forward::Request, None, false, Some(false)),
                None,
                None,
                Some("bad detail"),
                "eleven; fwd=request; collapsed=?0",
            ),
        ] {
            let status = CacheStatus { cache, handling, ttl_seconds, key, detail };
            let mut out = Vec::new();
            status.write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
            assert!(structured::parse_list(&out).is_ok(), "{expected}");
        }
    }

    #[test]
    fn earlier_members_stay() {
        let mut fields: Fields = [("Cache-Status", "Origin; hit")].iter().collect();
        let status = CacheStatus {
            cache: "eleven",
            handling: Handling::Hit,
            ttl_seconds: None,
            key: None,
            detail: None,
        };
        status.append(&mut fields);
        assert_eq!(fields.combined(Known::CacheStatus).unwrap().as_ref(), b"Origin; hit, eleven; hit");
    }

    #[test]
    fn reasons() {
        assert_eq!(Forward::from(Bypass::Method), Forward::Method);
        assert_eq!(Forward::from(Bypass::Content), Forward::Bypass);
        assert_eq!(Forward::from(Validate::RequestNoCache), Forward::Request);
        assert_eq!(Forward::from(Validate::Marked), Forward::Stale);
        assert_eq!(Forward::from(Miss::Vary), Forward::VaryMiss);
    }
}
