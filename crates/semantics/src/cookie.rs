//! Cookies (RFC 6265bis): Set-Cookie as received and as sent, cookie dates, which hosts and paths a cookie
//! belongs to, and whether a received cookie is taken at all.
//!
//! Does not keep cookies (`eleven-client`'s jar does) and has no list of public suffixes: that comes in as a
//! function. Times are seconds since 1970.

use crate::grammar::{is_field_octet, is_token};
use std::net::IpAddr;

/// Longest name and value together, in octets (RFC 6265bis §5.6, fault K18).
pub const PAIR_BYTES_MAX: usize = 4096;
/// Longest attribute value, in octets.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// Longest life of a cookie, in seconds: 400 days (RFC 6265bis §5.5).
pub const LIFETIME_SECONDS_MAX: i64 = 400 * 86_400;

/// The SameSite attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// Not said, or not understood: enforced as `Lax`.
    #[default]
    Default,
    /// Never sent with cross-site requests.
    Strict,
    /// Sent with cross-site requests only on safe top-level navigation.
    Lax,
    /// Sent always; needs Secure.
    None,
}

/// A Set-Cookie field as parsed, before any decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetCookie {
    /// The name; may be empty.
    pub name: Vec<u8>,
    /// The value, quotes and all.
    pub value: Vec<u8>,
    /// Expiry of the last valid Expires.
    pub expires: Option<i64>,
    /// Seconds of the last valid Max-Age; zero or less means at once.
    pub max_age: Option<i64>,
    /// The last Domain, without its leading dot, in lower case. May be empty.
    pub domain: Option<Vec<u8>>,
    /// The last Path. `Some(None)` for one that means the default path.
    pub path: Option<Option<Vec<u8>>>,
    /// Secure was there.
    pub secure: bool,
    /// HttpOnly was there.
    pub http_only: bool,
    /// The last SameSite.
    pub same_site: SameSite,
}

/// Why a cookie was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// A control octet (RFC 6265bis §5.6 step 1).
    Control,
    /// Name and value pass [`PAIR_BYTES_MAX`].
    TooLarge,
    /// Neither name nor value.
    Empty,
    /// Domain holds what no host name may hold.
    DomainSyntax,
    /// Domain is a public suffix (fault K13).
    PublicSuffix,
    /// The host does not belong to Domain.
    DomainMismatch,
    /// Secure, but it came over an unsecured connection.
    SecureFromInsecure,
    /// It would hide or replace a Secure cookie, and came over an unsecured connection (fault K15).
    WouldShadowSecure,
    /// SameSite=None without Secure.
    SameSiteNoneInsecure,
    /// A `__Secure-` or `__Host-` name without what it promises (fault K16).
    Prefix,
    /// Came with a cross-site request that was no navigation.
    CrossSite,
}

impl SetCookie {
    /// Reads a Set-Cookie value by the liberal algorithm of RFC 6265bis §5.6.
    ///
    /// # Errors
    /// If the whole field is to be ignored.
    pub fn parse(value: &[u8]) -> Result<SetCookie, Ignored> {
        if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err(Ignored::Control);
        }
        let mut parts = value.split(|&b| b == b';');
        let pair = parts.next().unwrap_or(&[]);
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (trim(&pair[..at]), trim(&pair[at + 1..])),
            None => (&[][..], trim(pair)),
        };
        if name.len() + value.len() > PAIR_BYTES_MAX {
            return Err(Ignored::TooLarge);
        }
        let mut cookie = SetCookie { name: name.to_vec(), value: value.to_vec(), ..SetCookie::default() };
        for attribute in parts {
            let (name, value) = match memchr::memchr(b'=', attribute) {
                Some(at) => (trim(&attribute[..at]), trim(&attribute[at + 1..])),
                None => (trim(attribute), &[][..]),
            };
            if value.len() <= ATTRIBUTE_BYTES_MAX {
                cookie.attribute(name, value);
            }
        }
        Ok(cookie)
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        match name.to_ascii_lowercase().as_slice() {
            b"expires" => self.expires = parse_date(value).or(self.expires),
            b"max-age" => self.max_age = parse_max_age(value).or(self.max_age),
            b"domain" => {
                self.domain = Some(value.strip_prefix(b".").unwrap_or(value).to_ascii_lowercase());
            }
            b"path" => self.path = Some(value.starts_with(b"/").then(|| value.to_vec())),
            b"secure" => self.secure = true,
            b"httponly" => self.http_only = true,
            b"samesite" => {
                self.same_site = match value.to_ascii_lowercase().as_slice() {
                    b"none" => SameSite::None,
                    b"strict" => SameSite::Strict,
                    b"lax" => SameSite::Lax,
                    _ => SameSite::Default,
                };
            }
            _ => {}
        }
    }

    /// When it expires, by Max-Age before Expires, never later than [`LIFETIME_SECONDS_MAX`] from `now`.
    /// `None` for a session cookie (6265-5.3-01a).
    pub fn expiry(&self, now: i64) -> Option<i64> {
        let limit = now.saturating_add(LIFETIME_SECONDS_MAX);
        match (self.max_age, self.expires) {
            (Some(..=0), _) => Some(i64::MIN),
            (Some(seconds), _) => Some(now.saturating_add(seconds).min(limit)),
            (None, Some(at)) => Some(at.min(limit)),
            (None, None) => None,
        }
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    crate::grammar::trim_ows(bytes)
}

fn parse_max_age(value: &[u8]) -> Option<i64> {
    let (negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let seconds = i64::try_from(crate::grammar::decimal_saturating(digits)?).unwrap_or(i64::MAX);
    Some(if negative { -seconds } else { seconds })
}

/// A cookie as a user agent keeps it (RFC 6265bis §5.7).
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Name.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// The canonical host it belongs to, without a leading dot.
    pub domain: String,
    /// Only for exactly that host.
    pub host_only: bool,
    /// The path it belongs to.
    pub path: Vec<u8>,
    /// Only over secured connections.
    pub secure: bool,
    /// Not for scripts. Kept and written back; a user agent without scripts sends it like any other.
    pub http_only: bool,
    /// Enforcement for cross-site requests.
    pub same_site: SameSite,
    /// When it expires; `None` with the session.
    pub expires: Option<i64>,
    /// When it was first stored.
    pub created: i64,
    /// When it was last sent.
    pub accessed: i64,
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A cookie's value is a credential (fault L05).
        let name = String::from_utf8_lossy(&self.name);
        write!(f, "Cookie({name:?} for {}{})", self.domain, String::from_utf8_lossy(&self.path))
    }
}

/// The request that a response with Set-Cookie answered, or that cookies are wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Canonical host of the target URI, not of a Host field that a user wrote (fault K20).
    pub host: &'a str,
    /// Path of the target URI.
    pub path: &'a [u8],
    /// The connection is secured.
    pub secure: bool,
    /// The request is same-site (RFC 6265bis §5.2). What a user typed is.
    pub same_site: bool,
}

impl Cookie {
    /// Decides over a parsed Set-Cookie (RFC 6265bis §5.7 up to step 22). `is_public_suffix` gets a canonical
    /// host name.
    ///
    /// # Errors
    /// Why the cookie is not taken.
    pub fn receive(
        set: SetCookie,
        context: &Context<'_>,
        now: i64,
        is_public_suffix: impl Fn(&str) -> bool,
    ) -> Result<Cookie, Ignored> {
        if set.name.is_empty() && set.value.is_empty() {
            return Err(Ignored::Empty);
        }
        let expires = set.expiry(now);
        let (domain, host_only) = domain_of(&set, context.host, is_public_suffix)?;
        let explicit_root = matches!(&set.path, Some(Some(path)) if path == b"/");
        let path = match set.path {
            Some(Some(path)) => path,
            _ => default_path(context.path).to_vec(),
        };
        if set.secure && !context.secure {
            return Err(Ignored::SecureFromInsecure);
        }
        if set.same_site != SameSite::None && !context.same_site {
            return Err(Ignored::CrossSite);
        }
        if set.same_site == SameSite::None && !set.secure {
            return Err(Ignored::SameSiteNoneInsecure);
        }
        if starts_with_ignore_case(&set.name, b"__Secure-") && !set.secure {
            return Err(Ignored::Prefix);
        }
        if starts_with_ignore_case(&set.name, b"__Host-") && !(set.secure && host_only && explicit_root) {
            return Err(Ignored::Prefix);
        }
        if set.name.is_empty()
            && (starts_with_ignore_case(&set.value, b"__Secure-")
                || starts_with_ignore_case(&set.value, b"__Host-"))
        {
            return Err(Ignored::Prefix);
        }
        Ok(Cookie {
            name: set.name,
            value: set.value,
            domain,
            host_only,
            path,
            secure: set.secure,
            http_only: set.http_only,
            same_site: set.same_site,
            expires,
            created: now,
            accessed: now,
        })
    }

    /// Whether this unsecured newcomer would hide `existing` (RFC 6265bis §5.7 step 16, fault K15).
    pub fn shadows_secure(&self, existing: &Cookie) -> bool {
        existing.secure
            && existing.name == self.name
            && (domain_match(&existing.domain, &self.domain) || domain_match(&self.domain, &existing.domain))
            && path_match(&self.path, &existing.path)
    }

    /// Whether both name the same cookie, so that the newer replaces the older (6265-5.3-01g).
    pub fn same_identity(&self, other: &Cookie) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.host_only == other.host_only
            && self.path == other.path
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Whether it is sent with a request (RFC 6265bis §5.8.3 step 3).
    pub fn belongs_to(&self, context: &Context<'_>, safe_method: bool) -> bool {
        let host = if self.host_only {
            self.domain == context.host
        } else {
            domain_match(context.host, &self.domain)
        };
        let site = context.same_site
            || match self.same_site {
                SameSite::None => true,
                SameSite::Strict => false,
                SameSite::Lax | SameSite::Default => safe_method,
            };
        host && site && (context.secure || !self.secure) && path_match(context.path, &self.path)
    }
}

fn domain_of(
    set: &SetCookie,
    host: &str,
    is_public_suffix: impl Fn(&str) -> bool,
) -> Result<(String, bool), Ignored> {
    let host_only = || Ok((host.to_owned(), true));
    let Some(domain) = set.domain.as_deref().filter(|domain| !domain.is_empty()) else { return host_only() };
    // A trailing dot makes another name of it, and another name does not match (fault K14).
    let domain = std::str::from_utf8(domain).map_err(|_| Ignored::DomainSyntax)?;
    if !domain.is_ascii() || domain.bytes().any(|b| matches!(b, b'/' | b':' | b'%' | b'@' | b' ' | b',')) {
        return Err(Ignored::DomainSyntax);
    }
    if domain == host {
        // An address, or a public suffix that is itself a site, keeps its cookies to itself.
        let alone = is_address(host) || is_public_suffix(domain);
        return if alone { host_only() } else { Ok((domain.to_owned(), false)) };
    }
    if is_public_suffix(domain) {
        return Err(Ignored::PublicSuffix);
    }
    if !domain_match(host, domain) {
        return Err(Ignored::DomainMismatch);
    }
    Ok((domain.to_owned(), false))
}

fn starts_with_ignore_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

/// RFC 6265bis §5.1.3: identical, or a suffix at a dot, and then no address (6265-5.1.3-R1). Both in canonical
/// form: lower case, no trailing dot.
pub fn domain_match(host: &str, domain: &str) -> bool {
    host == domain
        || (host.len() > domain.len()
            && !domain.is_empty()
            && host.ends_with(domain)
            && host.as_bytes()[host.len() - domain.len() - 1] == b'.'
            && !is_address(host))
}

/// RFC 6265bis §5.1.4: identical, or a prefix that ends at a slash (6265-5.1.4-R1, fault K17).
pub fn path_match(request: &[u8], cookie: &[u8]) -> bool {
    request == cookie
        || (request.starts_with(cookie)
            && (cookie.last() == Some(&b'/') || request.get(cookie.len()) == Some(&b'/')))
}

/// The path of a cookie that names none: up to the right-most slash (6265-5.1.4-01).
pub fn default_path(request: &[u8]) -> &[u8] {
    match memchr::memrchr(b'/', request) {
        Some(at) if at > 0 && request[0] == b'/' => &request[..at],
        _ => b"/",
    }
}

/// A cookie date (RFC 6265bis §5.1.1): tokens in any order, which is why no other date of HTTP is read like
/// this. `None` if a part is missing or out of bounds (6265-5.1.1-01).
pub fn parse_date(text: &[u8]) -> Option<i64> {
    let is_delimiter = |b: u8| matches!(b, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e);
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|&b| is_delimiter(b)).filter(|token| !token.is_empty()) {
        if time.is_none() {
            time = parse_time(token);
            if time.is_some() {
                continue;
            }
        }
        if day.is_none() {
            day = leading_digits(token, 1, 2);
            if day.is_some() {
                continue;
            }
        }
        if month.is_none() {
            month = parse_month(token);
            if month.is_some() {
                continue;
            }
        }
        if year.is_none() {
            year = leading_digits(token, 2, 4);
        }
    }
    let ((hour, minute, second), day, month, mut year) = (time?, day?, month?, year?);
    if (70..=99).contains(&year) {
        year += 1900;
    } else if year <= 69 {
        year += 2000;
    }
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    };
    if day < 1 || day > days_in_month || year < 1601 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Between `min` and `max` digits at the start, not followed by another digit.
fn leading_digits(token: &[u8], min: usize, max: usize) -> Option<i64> {
    let count = token.iter().take_while(|b| b.is_ascii_digit()).count();
    (min..=max).contains(&count).then(|| token[..count].iter().fold(0, |n, &b| n * 10 + i64::from(b - b'0')))
}

fn parse_time(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut fields = token.splitn(3, |&b| b == b':');
    let exact =
        |field: &[u8]| field.iter().all(u8::is_ascii_digit).then(|| leading_digits(field, 1, 2)).flatten();
    let (hour, minute) = (exact(fields.next()?)?, exact(fields.next()?)?);
    Some((hour, minute, leading_digits(fields.next()?, 1, 2)?))
}

fn parse_month(token: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let start = token.get(..3)?.to_ascii_lowercase();
    MONTHS.iter().position(|month| *month == start).map(|at| at as i64 + 1)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Why a Set-Cookie could not be built: a wrong call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidCookie {
    /// The name is no token.
    Name,
    /// The value holds what no cookie-octet is; encode it first.
    Value,
    /// Domain or Path holds a control or `;`.
    Attribute,
    /// SameSite=None without Secure, or a prefix without what it promises: every user agent would drop it.
    Useless,
}

/// Builds a Set-Cookie value by the strict grammar of RFC 6265bis §4.1.1: each attribute at most once, dates
/// in the one form that everybody reads (6265-4.1.1-04, 6265-4.1.1-05).
#[derive(Debug, Clone, Default)]
pub struct Builder<'a> {
    /// A token.
    pub name: &'a str,
    /// Cookie-octets: no white space, `"`, `,`, `;`, `\`.
    pub value: &'a str,
    /// Seconds to live.
    pub max_age: Option<u64>,
    /// Expiry as an IMF-fixdate, already written.
    pub expires_imf: Option<&'a str>,
    /// Domain.
    pub domain: Option<&'a str>,
    /// Path.
    pub path: Option<&'a str>,
    /// Secure.
    pub secure: bool,
    /// HttpOnly.
    pub http_only: bool,
    /// SameSite; [`SameSite::Default`] writes none.
    pub same_site: SameSite,
}

impl Builder<'_> {
    /// The field value.
    ///
    /// # Errors
    /// If the result would not match the grammar, or no user agent would keep it.
    pub fn build(&self) -> Result<Vec<u8>, InvalidCookie> {
        if !is_token(self.name.as_bytes()) {
            return Err(InvalidCookie::Name);
        }
        if !self.value.bytes().all(is_cookie_octet) {
            return Err(InvalidCookie::Value);
        }
        let is_av =
            |text: &str| text.bytes().all(|b| b.is_ascii() && is_field_octet(b) && b != b';' && b != b'\t');
        if ![self.domain, self.path, self.expires_imf].into_iter().flatten().all(is_av) {
            return Err(InvalidCookie::Attribute);
        }
        let host_prefix = starts_with_ignore_case(self.name.as_bytes(), b"__Host-");
        let secure_prefix = starts_with_ignore_case(self.name.as_bytes(), b"__Secure-");
        if ((self.same_site == SameSite::None || host_prefix || secure_prefix) && !self.secure)
            || (host_prefix && (self.domain.is_some() || self.path != Some("/")))
        {
            return Err(InvalidCookie::Useless);
        }
        let mut out = format!("{}={}", self.name, self.value);
        if let Some(expires) = self.expires_imf {
            out.push_str("; Expires=");
            out.push_str(expires);
        }
        if let Some(seconds) = self.max_age {
            out.push_str(&format!("; Max-Age={seconds}"));
        }
        if let Some(domain) = self.domain {
            out.push_str("; Domain=");
            out.push_str(domain);
        }
        if let Some(path) = self.path {
            out.push_str("; Path=");
            out.push_str(path);
        }
        if self.secure {
            out.push_str("; Secure");
        }
        if self.http_only {
            out.push_str("; HttpOnly");
        }
        match self.same_site {
            SameSite::Default => {}
            SameSite::Strict => out.push_str("; SameSite=Strict"),
            SameSite::Lax => out.push_str("; SameSite=Lax"),
            SameSite::None => out.push_str("; SameSite=None"),
        }
        Ok(out.into_bytes())
    }
}

fn is_cookie_octet(b: u8) -> bool {
    matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// The pairs of a Cookie field, for servers: name and value as received, in order. A piece without `=` is left
/// out.
pub fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|&b| b == b';').filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        Some((trim(&pair[..at]), trim(&pair[at + 1..])))
    })
}

#[cfg(test)]
mod tests;
