//! Cache directives (RFC 9111 §5.2): Cache-Control of requests and responses, Pragma of requests, and targeted
//! fields (RFC 9213), read into one record each. Decides nothing about storing or reuse.
//!
//! Doubt goes to the restrictive side: a repeated lifetime with another value, a lifetime that is no number,
//! or a malformed argument makes a response stale; a malformed list of names counts as no list at all.

use crate::fields::Fields;
use crate::grammar;
use crate::names::Known;
use crate::structured::{self, BareItem};

/// Largest lifetime and age, in seconds: what RFC 9111 §1.2.2 names for values that do not fit.
pub const SECONDS_MAX: u32 = 1 << 31;

/// The argument of a directive that takes `delta-seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delta {
    /// The directive does not stand there.
    #[default]
    Absent,
    /// This many seconds, at most [`SECONDS_MAX`].
    Seconds(u32),
    /// It stands there without a usable value, or several times with different ones.
    Invalid,
}

impl Delta {
    /// The directive stands there, usable or not.
    pub fn is_present(self) -> bool {
        self != Delta::Absent
    }

    /// The usable value.
    pub fn seconds(self) -> Option<u32> {
        if let Delta::Seconds(n) = self { Some(n) } else { None }
    }

    /// Another occurrence (9111-4.2.1-R2, C27).
    fn meet(&mut self, other: Delta) {
        *self = match (*self, other) {
            (Delta::Absent, new) => new,
            (Delta::Seconds(a), Delta::Seconds(b)) if a == b => Delta::Seconds(a),
            _ => Delta::Invalid,
        };
    }
}

/// `no-cache` and `private`, which may name fields (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Qualified {
    /// The directive does not stand there.
    #[default]
    Absent,
    /// It holds for the whole response.
    Whole,
    /// It holds for these fields, in lower case.
    Fields(Vec<Box<[u8]>>),
}

impl Qualified {
    fn meet(&mut self, other: Qualified) {
        match (&mut *self, other) {
            (Qualified::Whole, _) => {}
            (Qualified::Fields(names), Qualified::Fields(more)) => names.extend(more),
            (_, other) => *self = other,
        }
    }

    /// The fields it is limited to.
    pub fn names(&self) -> &[Box<[u8]>] {
        if let Qualified::Fields(names) = self { names } else { &[] }
    }
}

/// Where the directives of a response were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Cache-Control, and Expires with it.
    #[default]
    CacheControl,
    /// The targeted field at this place of the target list; Cache-Control and Expires do not count (RFC 9213
    /// §2.2).
    Targeted(u8),
}

/// The directives of a response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Where they come from.
    pub origin: Origin,
    /// §5.2.2.1.
    pub max_age: Delta,
    /// §5.2.2.10.
    pub s_maxage: Delta,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Delta,
    /// RFC 5861 §4.
    pub stale_if_error: Delta,
    /// §5.2.2.4.
    pub no_cache: Qualified,
    /// §5.2.2.7.
    pub private: Qualified,
    /// §5.2.2.5.
    pub no_store: bool,
    /// §5.2.2.2.
    pub must_revalidate: bool,
    /// §5.2.2.8.
    pub proxy_revalidate: bool,
    /// §5.2.2.3.
    pub must_understand: bool,
    /// §5.2.2.9.
    pub public: bool,
    /// §5.2.2.6.
    pub no_transform: bool,
    /// RFC 8246.
    pub immutable: bool,
}

impl ResponseDirectives {
    /// Reads the directives that govern this cache: the first field of `targets` (names of targeted fields,
    /// most applicable first) that is valid and not empty, else Cache-Control.
    pub fn of<N: AsRef<str>>(response: &Fields, targets: &[N]) -> ResponseDirectives {
        for (place, name) in targets.iter().enumerate() {
            let Some(value) = response.combined(name.as_ref()) else { continue };
            // What surrogates were told before RFC 9213. Its other use, to announce ESI, says nothing about
            // storing, and then Cache-Control counts.
            let older = name.as_ref().eq_ignore_ascii_case("Surrogate-Control");
            if let Some(directives) = Self::targeted(&value, older)
                && !(older && directives == ResponseDirectives::default())
            {
                return ResponseDirectives { origin: Origin::Targeted(place.min(255) as u8), ..directives };
            }
        }
        Self::cache_control(response)
    }

    /// Reads Cache-Control.
    pub fn cache_control(response: &Fields) -> ResponseDirectives {
        let mut directives = ResponseDirectives::default();
        for line in response.all(Known::CacheControl) {
            each_directive(line, |name, argument| directives.meet(name, argument));
        }
        directives
    }

    /// Reads the value of a targeted field; `None` if it is empty or not a dictionary (RFC 9213 §2.1). In
    /// Surrogate-Control a parameter names the one surrogate that a directive is for, and nobody knows our name.
    fn targeted(value: &[u8], parameters_target: bool) -> Option<ResponseDirectives> {
        let dictionary = structured::parse_dictionary(value).ok().filter(|d| !d.0.is_empty())?;
        let mut directives = ResponseDirectives::default();
        for (name, member) in &dictionary.0 {
            // Values of another type than the directive has are not to be consumed: a restriction then holds
            // in full, a permission not at all.
            let argument = match member {
                structured::Member::Item(item) if parameters_target && !item.parameters.0.is_empty() => {
                    continue;
                }
                structured::Member::Item(item) => match &item.value {
                    BareItem::Boolean(true) => Argument::None,
                    BareItem::Boolean(false) => continue,
                    BareItem::Integer(n) => Argument::Number(*n),
                    BareItem::String(text) if takes_names(name) => Argument::Text(text.as_bytes().to_vec()),
                    _ => Argument::Malformed,
                },
                structured::Member::InnerList(_) => Argument::Malformed,
            };
            directives.meet(name.as_bytes(), argument);
        }
        Some(directives)
    }

    fn meet(&mut self, name: &[u8], argument: Argument) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // A permission counts only as it is written in the RFC: without an argument.
        let plain = argument == Argument::None;
        if is("max-age") {
            self.max_age.meet(argument.delta());
        } else if is("s-maxage") {
            self.s_maxage.meet(argument.delta());
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate.meet(argument.delta());
        } else if is("stale-if-error") {
            self.stale_if_error.meet(argument.delta());
        } else if is("no-cache") {
            self.no_cache.meet(argument.qualified());
        } else if is("private") {
            self.private.meet(argument.qualified());
        } else if is("no-store") {
            self.no_store = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("must-understand") {
            self.must_understand |= plain;
        } else if is("public") {
            self.public |= plain;
        } else if is("immutable") {
            self.immutable |= plain;
        }
        // 9111-5.2.3-01: everything else is ignored.
    }

    /// Whether a shared (or any) cache may never serve this stale without validation (RFC 9111 §4.2.4).
    pub fn forbids_stale(&self, shared: bool) -> bool {
        self.must_revalidate
            || self.no_cache == Qualified::Whole
            || (shared && (self.proxy_revalidate || self.s_maxage.is_present()))
    }
}

/// How stale a response a request accepts (RFC 9111 §5.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaxStale {
    /// Not asked for.
    #[default]
    Absent,
    /// Any staleness.
    Any,
    /// At most this many seconds.
    Seconds(u32),
}

/// The directives of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// §5.2.1.1.
    pub max_age: Delta,
    /// §5.2.1.2.
    pub max_stale: MaxStale,
    /// §5.2.1.3.
    pub min_fresh: Delta,
    /// §5.2.1.4, or `Pragma: no-cache` without any Cache-Control (§5.4).
    pub no_cache: bool,
    /// §5.2.1.5.
    pub no_store: bool,
    /// §5.2.1.6.
    pub no_transform: bool,
    /// §5.2.1.7.
    pub only_if_cached: bool,
    /// RFC 5861 §4.
    pub stale_if_error: Delta,
}

impl RequestDirectives {
    /// Reads the directives of a request.
    pub fn of(request: &Fields) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if !request.contains_any(&[Known::CacheControl, Known::Pragma]) {
            return directives;
        }
        if !request.contains(Known::CacheControl) {
            // 9111-5.4-R1.
            directives.no_cache = request.list(Known::Pragma).any(|m| m.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for line in request.all(Known::CacheControl) {
            each_directive(line, |name, argument| directives.meet(name, argument));
        }
        directives
    }

    fn meet(&mut self, name: &[u8], argument: Argument) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("max-age") {
            self.max_age.meet(argument.delta());
        } else if is("min-fresh") {
            self.min_fresh.meet(argument.delta());
        } else if is("stale-if-error") {
            self.stale_if_error.meet(argument.delta());
        } else if is("max-stale") {
            self.max_stale = match (self.max_stale, argument) {
                (MaxStale::Absent, Argument::None) => MaxStale::Any,
                (before, Argument::None) => before,
                (before, argument) => match (before, argument.delta()) {
                    (MaxStale::Seconds(a), Delta::Seconds(b)) => MaxStale::Seconds(a.min(b)),
                    (_, Delta::Seconds(b)) => MaxStale::Seconds(b),
                    (before, _) => before,
                },
            };
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        }
    }

    /// Whether any directive of a request limits what may be reused; a request without them needs no look.
    pub fn is_plain(&self) -> bool {
        *self == RequestDirectives::default()
    }
}

/// The argument of a directive, as token or quoted string alike (9111-5.2-R1).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    None,
    Number(i64),
    Text(Vec<u8>),
    Malformed,
}

impl Argument {
    /// 9111-1.2.2-01, C27: what does not fit is the largest value; what is no number is invalid.
    fn delta(&self) -> Delta {
        let clamp = |n: u64| Delta::Seconds(n.min(u64::from(SECONDS_MAX)) as u32);
        match self {
            Argument::Number(n) => u64::try_from(*n).map_or(Delta::Invalid, clamp),
            Argument::Text(text) => grammar::decimal_saturating(text).map_or(Delta::Invalid, clamp),
            Argument::None | Argument::Malformed => Delta::Invalid,
        }
    }

    /// A list of field names; one that is malformed or empty limits nothing.
    fn qualified(&self) -> Qualified {
        let Argument::Text(text) = self else { return Qualified::Whole };
        let names: Vec<&[u8]> = grammar::list(text).collect();
        if names.is_empty() || !names.iter().all(|name| grammar::is_token(name)) {
            return Qualified::Whole;
        }
        Qualified::Fields(names.iter().map(|name| name.to_ascii_lowercase().into()).collect())
    }
}

/// The directives whose argument is a list of field names.
fn takes_names(name: &str) -> bool {
    matches!(name, "no-cache" | "private")
}

/// Calls `each` for the directives of one field line.
fn each_directive(line: &[u8], mut each: impl FnMut(&[u8], Argument)) {
    for member in grammar::list(line) {
        let (name, argument) = match memchr::memchr(b'=', member) {
            None => (member, Argument::None),
            Some(at) => (&member[..at], read_argument(&member[at + 1..])),
        };
        let trimmed = grammar::trim_ows(name);
        // White space around `=` is in no grammar: the directive is recognised, its argument is not.
        let argument = if trimmed.len() == name.len() { argument } else { Argument::Malformed };
        each(trimmed, argument);
        if is_unterminated(member) {
            // Whatever hides behind a quote that never ends may restrict, but not permit.
            for piece in member.split(|&b| b == b',').skip(1) {
                let name = piece.split(|&b| b == b'=').next().unwrap_or_default();
                each(grammar::trim_ows(name), Argument::Malformed);
            }
        }
    }
}

fn read_argument(text: &[u8]) -> Argument {
    if text.is_empty() {
        return Argument::Malformed;
    }
    grammar::token_or_quoted(text).map_or(Argument::Malformed, Argument::Text)
}

/// Whether a quoted string in `member` never ends: a separator after it would then not be found.
fn is_unterminated(member: &[u8]) -> bool {
    if memchr::memchr(b'"', member).is_none() {
        return false;
    }
    let (mut quoted, mut escaped) = (false, false);
    for &b in member {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[&str]) -> ResponseDirectives {
        let pairs: Vec<_> = lines.iter().map(|line| ("Cache-Control", *line)).collect();
        ResponseDirectives::of(&pairs.iter().collect(), &[] as &[&str])
    }

    fn request(pairs: &[(&str, &str)]) -> RequestDirectives {
        RequestDirectives::of(&pairs.iter().collect())
    }

    /// 9111-1.2.2-01, 9111-5.2-R1, 9111-4.2.1-R2, C27.
    /// RFC 9213 §2.2: the first target that says something; Surrogate-Control only if it speaks of storing.
    #[test]
    fn surrogate_control() {
        let targets = ["CDN-Cache-Control", "Surrogate-Control"];
        for (pairs, origin, max_age) in [
            (vec![("Surrogate-Control", "max-age=9")], Origin::Targeted(1), Delta::Seconds(9)),
            (
                vec![("Surrogate-Control", "max-age=9"), ("CDN-Cache-Control", "max-age=5")],
                Origin::Targeted(0),
                Delta::Seconds(5),
            ),
            (
                vec![("Surrogate-Control", "content=\"ESI/1.0\""), ("Cache-Control", "max-age=7")],
                Origin::CacheControl,
                Delta::Seconds(7),
            ),
            (
                vec![("Surrogate-Control", "max-age=60;other, max-age=8")],
                Origin::Targeted(1),
                Delta::Seconds(8),
            ),
            (
                vec![("Surrogate-Control", "max-age=60;other"), ("Cache-Control", "max-age=7")],
                Origin::CacheControl,
                Delta::Seconds(7),
            ),
            (
                vec![("Surrogate-Control", "max-age=60+30"), ("Cache-Control", "max-age=7")],
                Origin::CacheControl,
                Delta::Seconds(7),
            ),
        ] {
            let fields: Fields = pairs.iter().collect();
            let got = ResponseDirectives::of(&fields, &targets);
            assert_eq!((got.origin, got.max_age), (origin, max_age), "{pairs:?}");
        }
    }

    #[test]
    fn lifetimes() {
        for (lines, expected) in [
            (&["max-age=3600"][..], Delta::Seconds(3600)),
            (&["MaX-aGe=003600"], Delta::Seconds(3600)),
            (&["max-age=\"3600\""], Delta::Seconds(3600)),
            (&["max-age=\"36\\00\""], Delta::Seconds(3600)),
            (&["foo, max-age=1, bar=\"max-age=2\""], Delta::Seconds(1)),
            (&["extension=\"max-age=3600\", max-age=1"], Delta::Seconds(1)),
            (&["x=\"a\\\", max-age=7\", max-age=1"], Delta::Seconds(1)),
            (&["max-age=2147483648"], Delta::Seconds(SECONDS_MAX)),
            (&["max-age=2147483649"], Delta::Seconds(SECONDS_MAX)),
            (&["max-age=99999999999999999999999"], Delta::Seconds(SECONDS_MAX)),
            (&["max-age=5, max-age=5"], Delta::Seconds(5)),
            (&["max-age=5, max-age=6"], Delta::Invalid),
            (&["max-age=5", "max-age=6"], Delta::Invalid),
            (&["max-age=5, max-age"], Delta::Invalid),
            (&["max-age=-1"], Delta::Invalid),
            (&["max-age=+1"], Delta::Invalid),
            (&["max-age='3600'"], Delta::Invalid),
            (&["max-age=3600.0"], Delta::Invalid),
            (&["max-age=3600a"], Delta::Invalid),
            (&["max-age="], Delta::Invalid),
            (&["max-age"], Delta::Invalid),
            (&["max-age =3600"], Delta::Invalid),
            (&["max-age= 3600"], Delta::Invalid),
            (&["max-age=\"3600"], Delta::Invalid),
            (&["max-age=\"3600\"x"], Delta::Invalid),
            (&["x-max-age=1"], Delta::Absent),
            (&["max_age=1"], Delta::Absent),
            (&["max-age:1"], Delta::Absent),
            (&[""], Delta::Absent),
        ] {
            assert_eq!(response(lines).max_age, expected, "{lines:?}");
        }
    }

    /// 9111-5.2.2-01, 9111-5.2.3-01.
    #[test]
    fn flags() {
        let all = response(&[
            "no-store, must-revalidate, proxy-revalidate, must-understand, public, immutable, no-transform",
        ]);
        assert!(all.no_store && all.must_revalidate && all.proxy_revalidate && all.must_understand);
        assert!(all.public && all.immutable && all.no_transform);
        assert_eq!(
            response(&["no-stored, nostore, no_store, x=\"no-store\""]),
            ResponseDirectives::default()
        );
        // Restrictions hold with a stray argument, permissions do not.
        assert!(response(&["No-StOrE=1"]).no_store && response(&["no-store="]).no_store);
        assert!(response(&["must-revalidate =x"]).must_revalidate);
        let permissions = response(&["public=1, immutable=x, must-understand=\"\""]);
        assert!(!permissions.public && !permissions.immutable && !permissions.must_understand);
    }

    /// A quote that never ends hides no restriction, and gives no permission.
    #[test]
    fn unterminated_quotes() {
        let hidden = response(&["foo=\"bar, no-store, public, max-age=60, private"]);
        assert!(hidden.no_store && !hidden.public);
        assert_eq!((hidden.max_age, hidden.private), (Delta::Invalid, Qualified::Whole));
        assert!(!response(&["foo=\"bar, no-store\""]).no_store);
    }

    /// 9111-5.2.2.4-02, 9111-5.2.2.7-03a: lists of names, and what is none.
    #[test]
    fn qualified() {
        let names = |names: &[&str]| Qualified::Fields(names.iter().map(|n| n.as_bytes().into()).collect());
        for (line, expected) in [
            ("no-cache", Qualified::Whole),
            ("no-cache=\"Set-Cookie, X-a\"", names(&["set-cookie", "x-a"])),
            ("no-cache=Set-Cookie", names(&["set-cookie"])),
            ("no-cache=\"a\", no-cache=\"b\"", names(&["a", "b"])),
            ("no-cache=\"a\", no-cache", Qualified::Whole),
            ("no-cache, no-cache=\"a\"", Qualified::Whole),
            ("no-cache=\"\"", Qualified::Whole),
            ("no-cache=\"a b\"", Qualified::Whole),
            ("no-cache=\"a", Qualified::Whole),
            ("no-cache=", Qualified::Whole),
            ("max-age=1", Qualified::Absent),
        ] {
            assert_eq!(response(&[line]).no_cache, expected, "{line}");
        }
        assert_eq!(response(&["private=\"A\""]).private.names(), [Box::from(*b"a")]);
    }

    /// RFC 9213 §2.1 and §2.2; C34 is the caller's: only responses come here.
    #[test]
    fn targeted_fields() {
        let targets = ["Eleven-Cache-Control", "CDN-Cache-Control"];
        let read = |pairs: &[(&str, &str)]| ResponseDirectives::of(&pairs.iter().collect(), &targets);
        let cc = ("Cache-Control", "max-age=1, no-store");
        for (value, max_age, targeted) in [
            ("max-age=60", Delta::Seconds(60), true),
            ("max-age=60;x=1, ext", Delta::Seconds(60), true),
            ("max-age=99999999999", Delta::Seconds(SECONDS_MAX), true),
            ("no-cache", Delta::Absent, true),
            ("max-age=60.0", Delta::Invalid, true),
            ("max-age=\"60\"", Delta::Invalid, true),
            ("max-age=-5", Delta::Invalid, true),
            ("max-age", Delta::Invalid, true),
            ("max-age=1, max-age=60", Delta::Seconds(60), true),
            // Not structured, or empty: ignored, Cache-Control counts.
            ("", Delta::Seconds(1), false),
            ("max-age=60,", Delta::Seconds(1), false),
            ("Max-Age=60", Delta::Seconds(1), false),
            ("max-age =60", Delta::Seconds(1), false),
            ("max-age=60 no-store", Delta::Seconds(1), false),
            ("\"max-age=60\"", Delta::Seconds(1), false),
        ] {
            let got = read(&[cc, ("CDN-Cache-Control", value)]);
            assert_eq!(got.max_age, max_age, "{value}");
            assert_eq!(
                got.origin,
                if targeted { Origin::Targeted(1) } else { Origin::CacheControl },
                "{value}"
            );
            assert_eq!(got.no_store, !targeted, "{value}");
        }
        // Order of the target list, not of the message; an invalid first falls to the second.
        let both = [("CDN-Cache-Control", "max-age=2"), ("Eleven-Cache-Control", "max-age=3")];
        assert_eq!(read(&both).origin, Origin::Targeted(0));
        let broken = [("CDN-Cache-Control", "max-age=2"), ("Eleven-Cache-Control", "max-age=,")];
        assert_eq!(read(&broken).max_age, Delta::Seconds(2));
        // A field that is not on the list changes nothing.
        assert_eq!(read(&[("Other-Cache-Control", "no-store")]), ResponseDirectives::default());
        // Lines combine; wrong types restrict in full and permit nothing.
        let lines = [("CDN-Cache-Control", "max-age=2"), ("CDN-Cache-Control", "private=5, public=1")];
        let got = read(&lines);
        assert_eq!((got.max_age, got.private, got.public), (Delta::Seconds(2), Qualified::Whole, false));
        assert!(!read(&[("CDN-Cache-Control", "no-store=?0, max-age=1")]).no_store);
    }

    /// 9111-5.2.1-01, 9111-5.4-R1.
    #[test]
    fn requests() {
        let cc = |value| request(&[("Cache-Control", value)]);
        assert!(request(&[]).is_plain() && cc("foo").is_plain());
        assert_eq!(cc("max-age=0, min-fresh=5").min_fresh, Delta::Seconds(5));
        assert_eq!(cc("max-stale").max_stale, MaxStale::Any);
        assert_eq!(cc("max-stale=5").max_stale, MaxStale::Seconds(5));
        assert_eq!(cc("max-stale=5, max-stale=3, max-stale").max_stale, MaxStale::Seconds(3));
        assert_eq!(cc("max-stale=x").max_stale, MaxStale::Absent);
        assert!(cc("no-cache, no-store, only-if-cached, no-transform").only_if_cached);
        assert!(request(&[("Pragma", "no-cache")]).no_cache);
        assert!(request(&[("Pragma", "x, NO-CACHE")]).no_cache);
        assert!(!request(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=5")]).no_cache);
        assert!(!request(&[("Pragma", "unrecognised")]).no_cache);
    }

    /// 9111-4.2.4-01.
    #[test]
    fn stale_forbidden() {
        for (line, private, shared) in [
            ("must-revalidate", true, true),
            ("no-cache", true, true),
            ("proxy-revalidate", false, true),
            ("s-maxage=2", false, true),
            ("s-maxage=x", false, true),
            ("no-cache=\"a\"", false, false),
            ("max-age=2, public", false, false),
        ] {
            let directives = response(&[line]);
            assert_eq!(
                (directives.forbids_stale(false), directives.forbids_stale(true)),
                (private, shared),
                "{line}"
            );
        }
    }
}
