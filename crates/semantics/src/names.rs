//! The table of known fields: one row says how a field combines, whether it belongs to the connection, whether
//! it may stand in a trailer section. Everything that treats a field specially asks this table.

/// Properties of a known field, as bits.
pub mod property {
    /// Lines combine into one comma-separated list (RFC 9110 §5.3).
    pub const LIST: u8 = 1;
    /// At most one line may be sent; several are an error (RFC 9110 §5.5, 9110-5.3-03).
    pub const SINGLETON: u8 = 2;
    /// Belongs to one connection; an intermediary removes it before forwarding (RFC 9110 §7.6.1).
    pub const HOP_BY_HOP: u8 = 4;
    /// Must not stand in a trailer section: framing, routing, authentication, request modifiers, controls,
    /// or needed to understand the content (RFC 9110 §6.5.1).
    pub const NOT_IN_TRAILERS: u8 = 8;
    /// Describes the representation (RFC 9110 §8); a 304 or HEAD updates it only under conditions.
    pub const REPRESENTATION: u8 = 16;
}

use property::{HOP_BY_HOP, LIST, NOT_IN_TRAILERS, REPRESENTATION, SINGLETON};

macro_rules! known_fields {
    ($($variant:ident $name:literal $bits:expr;)*) => {
        /// A field name that this system knows by meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Known { $($variant),* }

        /// Every known field, in the order of the enum.
        pub const ALL: &[Known] = &[$(Known::$variant),*];

        const NAMES: &[&str] = &[$($name),*];
        const BITS: &[u8] = &[$($bits),*];
    };
}

known_fields! {
    Accept "Accept" LIST | NOT_IN_TRAILERS;
    AcceptCharset "Accept-Charset" LIST | NOT_IN_TRAILERS;
    AcceptEncoding "Accept-Encoding" LIST | NOT_IN_TRAILERS;
    AcceptLanguage "Accept-Language" LIST | NOT_IN_TRAILERS;
    AcceptRanges "Accept-Ranges" LIST;
    AccessControlAllowOrigin "Access-Control-Allow-Origin" SINGLETON | NOT_IN_TRAILERS;
    AccessControlRequestMethod "Access-Control-Request-Method" SINGLETON | NOT_IN_TRAILERS;
    Age "Age" SINGLETON | NOT_IN_TRAILERS;
    Allow "Allow" LIST | NOT_IN_TRAILERS;
    AuthenticationInfo "Authentication-Info" LIST;
    Authorization "Authorization" SINGLETON | NOT_IN_TRAILERS;
    CacheControl "Cache-Control" LIST | NOT_IN_TRAILERS;
    CacheGroups "Cache-Groups" LIST | NOT_IN_TRAILERS;
    CacheGroupInvalidation "Cache-Group-Invalidation" LIST | NOT_IN_TRAILERS;
    CacheStatus "Cache-Status" LIST;
    CdnCacheControl "CDN-Cache-Control" LIST | NOT_IN_TRAILERS;
    Connection "Connection" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    ContentDigest "Content-Digest" LIST;
    ContentDisposition "Content-Disposition" SINGLETON;
    ContentEncoding "Content-Encoding" LIST | NOT_IN_TRAILERS | REPRESENTATION;
    ContentLanguage "Content-Language" LIST | NOT_IN_TRAILERS | REPRESENTATION;
    ContentLength "Content-Length" NOT_IN_TRAILERS;
    ContentLocation "Content-Location" SINGLETON | NOT_IN_TRAILERS | REPRESENTATION;
    ContentRange "Content-Range" SINGLETON | NOT_IN_TRAILERS;
    ContentType "Content-Type" SINGLETON | NOT_IN_TRAILERS | REPRESENTATION;
    Cookie "Cookie" NOT_IN_TRAILERS;
    Date "Date" SINGLETON | NOT_IN_TRAILERS;
    ETag "ETag" SINGLETON | REPRESENTATION;
    Expect "Expect" LIST | NOT_IN_TRAILERS;
    Expires "Expires" SINGLETON | NOT_IN_TRAILERS;
    Forwarded "Forwarded" LIST | NOT_IN_TRAILERS;
    From "From" SINGLETON;
    Host "Host" SINGLETON | NOT_IN_TRAILERS;
    Http2Settings "HTTP2-Settings" HOP_BY_HOP | NOT_IN_TRAILERS;
    IfMatch "If-Match" LIST | NOT_IN_TRAILERS;
    IfModifiedSince "If-Modified-Since" SINGLETON | NOT_IN_TRAILERS;
    IfNoneMatch "If-None-Match" LIST | NOT_IN_TRAILERS;
    IfRange "If-Range" SINGLETON | NOT_IN_TRAILERS;
    IfUnmodifiedSince "If-Unmodified-Since" SINGLETON | NOT_IN_TRAILERS;
    KeepAlive "Keep-Alive" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    LastModified "Last-Modified" SINGLETON | REPRESENTATION;
    Link "Link" LIST;
    Location "Location" SINGLETON | NOT_IN_TRAILERS;
    MaxForwards "Max-Forwards" SINGLETON | NOT_IN_TRAILERS;
    Origin "Origin" SINGLETON | NOT_IN_TRAILERS;
    Pragma "Pragma" LIST | NOT_IN_TRAILERS;
    Prefer "Prefer" LIST | NOT_IN_TRAILERS;
    ProxyAuthenticate "Proxy-Authenticate" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    ProxyAuthenticationInfo "Proxy-Authentication-Info" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    ProxyAuthorization "Proxy-Authorization" SINGLETON | HOP_BY_HOP | NOT_IN_TRAILERS;
    ProxyConnection "Proxy-Connection" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    ProxyStatus "Proxy-Status" LIST;
    Range "Range" SINGLETON | NOT_IN_TRAILERS;
    Referer "Referer" SINGLETON;
    ReprDigest "Repr-Digest" LIST;
    RetryAfter "Retry-After" SINGLETON | NOT_IN_TRAILERS;
    Server "Server" SINGLETON;
    SetCookie "Set-Cookie" NOT_IN_TRAILERS;
    StrictTransportSecurity "Strict-Transport-Security" SINGLETON | NOT_IN_TRAILERS;
    SurrogateKey "Surrogate-Key" LIST;
    Te "TE" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    Traceparent "traceparent" SINGLETON;
    Trailer "Trailer" LIST | NOT_IN_TRAILERS;
    TransferEncoding "Transfer-Encoding" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    Upgrade "Upgrade" LIST | HOP_BY_HOP | NOT_IN_TRAILERS;
    UserAgent "User-Agent" SINGLETON;
    Vary "Vary" LIST | NOT_IN_TRAILERS;
    Via "Via" LIST;
    WantContentDigest "Want-Content-Digest" LIST;
    WantReprDigest "Want-Repr-Digest" LIST;
    WwwAuthenticate "WWW-Authenticate" LIST | NOT_IN_TRAILERS;
    XForwardedFor "X-Forwarded-For" LIST | NOT_IN_TRAILERS;
    XForwardedHost "X-Forwarded-Host" SINGLETON | NOT_IN_TRAILERS;
    XForwardedProto "X-Forwarded-Proto" SINGLETON | NOT_IN_TRAILERS;
    XRequestId "X-Request-Id" SINGLETON;
}

/// Longest known name, in octets.
const LONGEST: usize = 32;

/// Slots of the hash table of names; several times the number of names, so that nearly all stand alone.
const SLOTS: usize = 512;

/// A name in no slot, or the end of a chain.
const NONE: u8 = u8::MAX;

/// Bit 0x20, which tells the two cases of a letter apart, in each octet.
const CASE: u64 = 0x2020_2020_2020_2020;

/// The first and the last eight octets of a name, as little-endian words. They overlap in names of fewer than 16;
/// in those of fewer than 8 both are the whole name, and zero above it.
#[derive(Clone, Copy)]
struct Ends {
    first: u64,
    last: u64,
}

impl Ends {
    /// Of the name that the first `length` octets are. Eight octets are there.
    #[inline]
    const fn of(octets: &[u8], length: usize) -> Option<Ends> {
        let Some(first) = octets.first_chunk::<8>() else { return None };
        let first = u64::from_le_bytes(*first);
        if length < 8 {
            let short = first & !(u64::MAX << (length * 8));
            return Some(Ends { first: short, last: short });
        }
        let Some((name, _)) = octets.split_at_checked(length) else { return None };
        let Some(last) = name.last_chunk::<8>() else { return None };
        Some(Ends { first, last: u64::from_le_bytes(*last) })
    }

    /// The slot of the name, whatever its case.
    #[inline]
    const fn slot(self, length: usize) -> usize {
        let key =
            (self.first | CASE).wrapping_add((self.last | CASE).rotate_left(29)).wrapping_add(length as u64);
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SLOTS
    }
}

/// A name ready for comparison: in lower case, and which of its octets are letters.
struct Pattern {
    length: usize,
    lower: Ends,
    letters: Ends,
    /// The same without the first and last eight octets, for names longer than 16.
    lower_between: Ends,
    letters_between: Ends,
    /// The next name of the same slot.
    next: u8,
}

const fn pattern(name: &[u8], next: u8) -> Pattern {
    assert!(name.len() <= LONGEST, "a name is longer than LONGEST");
    let (mut lower, mut letters) = ([0; LONGEST], [0; LONGEST]);
    let mut at = 0;
    while at < name.len() {
        lower[at] = name[at].to_ascii_lowercase();
        letters[at] = if name[at].is_ascii_alphabetic() { 0x20 } else { 0 };
        at += 1;
    }
    let length = name.len();
    let between = length.saturating_sub(16);
    Pattern {
        length,
        lower: Ends::of(&lower, length).unwrap(),
        letters: Ends::of(&letters, length).unwrap(),
        lower_between: Ends::of(lower.split_at(8).1, between).unwrap(),
        letters_between: Ends::of(letters.split_at(8).1, between).unwrap(),
        next,
    }
}

impl Ends {
    /// Whether these are the lower-case octets, `letters` in any case: with its bit 0x20 set an octet equals a
    /// lower-case letter exactly if it is that letter in either case; other octets are compared as they are.
    #[inline]
    fn are(self, lower: Ends, letters: Ends) -> bool {
        self.first | letters.first == lower.first && self.last | letters.last == lower.last
    }
}

/// The first name of each slot, and what all names are compared with; built at compile time.
struct Table {
    first: [u8; SLOTS],
    patterns: [Pattern; NAMES.len()],
}

static TABLE: Table = {
    let mut first = [NONE; SLOTS];
    let mut patterns = [const { pattern(b"", NONE) }; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        let found = pattern(NAMES[i].as_bytes(), NONE);
        let slot = found.lower.slot(found.length);
        patterns[i] = Pattern { next: first[slot], ..found };
        first[slot] = i as u8;
        i += 1;
    }
    Table { first, patterns }
};

impl Pattern {
    /// Whether the first `length` octets are this name, in any case.
    #[inline]
    fn matches(&self, octets: &[u8], length: usize, ends: Ends) -> bool {
        self.length == length
            && ends.are(self.lower, self.letters)
            && (length <= 16
                || Ends::of(&octets[8..], length - 16)
                    .is_some_and(|between| between.are(self.lower_between, self.letters_between)))
    }
}

impl Known {
    /// The known field of this name, in any case; `None` for an unknown one.
    #[inline]
    pub fn lookup(name: &[u8]) -> Option<Known> {
        Known::lookup_start(name, name.len())
    }

    /// As [`Known::lookup`] for the name that the first `length` octets are. What follows them does not count, but
    /// lets short names be compared as whole words.
    #[inline]
    pub fn lookup_start(octets: &[u8], length: usize) -> Option<Known> {
        if length == 0 || length > LONGEST {
            return None;
        }
        let Some(ends) = Ends::of(octets, length) else { return Known::lookup_short(octets, length) };
        let mut index = TABLE.first[ends.slot(length)];
        while let Some(pattern) = TABLE.patterns.get(usize::from(index)) {
            if pattern.matches(octets, length, ends) {
                return Some(ALL[usize::from(index)]);
            }
            index = pattern.next;
        }
        None
    }

    /// Fewer than eight octets are there.
    #[inline(never)]
    fn lookup_short(octets: &[u8], length: usize) -> Option<Known> {
        let mut longer = [0; 8];
        longer.get_mut(..length)?.copy_from_slice(octets.get(..length)?);
        Known::lookup_start(&longer, length)
    }

    /// The name in its usual case.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    fn has(self, bit: u8) -> bool {
        BITS[self as usize] & bit != 0
    }

    /// Lines combine into one comma-separated list.
    pub fn is_list(self) -> bool {
        self.has(LIST)
    }

    /// More than one line is an error.
    pub fn is_singleton(self) -> bool {
        self.has(SINGLETON)
    }

    /// Never forwarded by an intermediary, listed in Connection or not.
    pub fn is_hop_by_hop(self) -> bool {
        self.has(HOP_BY_HOP)
    }

    /// May stand in a trailer section (RFC 9110 §6.5.1).
    pub fn allowed_in_trailers(self) -> bool {
        !self.has(NOT_IN_TRAILERS)
    }

    /// Describes the representation.
    pub fn is_representation(self) -> bool {
        self.has(REPRESENTATION)
    }

    /// Bit of this field in a presence mask.
    #[inline]
    pub(crate) fn mask(self) -> u128 {
        // A look-up is cheaper than a shift of two words.
        static MASKS: [u128; NAMES.len()] = {
            let mut masks = [0; NAMES.len()];
            let mut i = 0;
            while i < NAMES.len() {
                masks[i] = 1 << i;
                i += 1;
            }
            masks
        };
        MASKS[self as usize]
    }
}

/// Whether `name` with `_` read as `-` is a field of framing, of the connection, or of the forwarding
/// chain. CGI and its heirs map both
/// spellings to one variable, so such a name is a way around every check (faults S17, H18).
pub fn collides_by_underscore(name: &[u8]) -> bool {
    if memchr::memchr(b'_', name).is_none() || name.len() > LONGEST {
        return false;
    }
    let dashed: Vec<u8> = name.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect();
    Known::lookup(&dashed).is_some_and(|known| {
        known.is_hop_by_hop()
            || matches!(
                known,
                Known::ContentLength
                    | Known::Host
                    | Known::Expect
                    | Known::Trailer
                    | Known::Forwarded
                    | Known::XForwardedFor
                    | Known::XForwardedHost
                    | Known::XForwardedProto
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9110-5.1-R1
    #[test]
    fn every_name_is_found_in_any_case() {
        assert!(ALL.len() <= 128, "presence masks are 128 bits wide");
        for &known in ALL {
            let name = known.name();
            assert_eq!(Known::lookup(name.as_bytes()), Some(known));
            assert_eq!(Known::lookup(name.to_ascii_lowercase().as_bytes()), Some(known));
            assert_eq!(Known::lookup(name.to_ascii_uppercase().as_bytes()), Some(known));
            assert!(!(known.is_list() && known.is_singleton()), "{name}");
        }
        for unknown in ["", "X", "Hosts", "Content_Length", "Transfer-Encodinh", "Aceept", "x-custom"] {
            assert_eq!(Known::lookup(unknown.as_bytes()), None, "{unknown}");
        }
    }

    /// Every octet of a name counts, and only letters have two cases.
    #[test]
    fn nothing_else_is_taken_for_a_name() {
        for &known in ALL {
            let name = known.name().as_bytes();
            for at in 0..name.len() {
                for b in 0..=255u8 {
                    let mut other = name.to_vec();
                    other[at] = b;
                    let expected = other.eq_ignore_ascii_case(name);
                    assert_eq!(Known::lookup(&other) == Some(known), expected, "{other:?}");
                }
            }
            assert_ne!(Known::lookup(&name[..name.len() - 1]), Some(known));
            assert_ne!(Known::lookup(&[name, b"x"].concat()), Some(known));
        }
    }

    /// RFC 9110 §6.5.1: everything that frames, routes or authenticates stays out of trailers.
    #[test]
    fn trailers_refuse_what_frames_routes_or_authenticates() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Authorization",
            "Set-Cookie",
            "Cache-Control",
            "Content-Type",
            "Content-Range",
            "Trailer",
            "Connection",
            "TE",
        ] {
            assert!(!Known::lookup(name.as_bytes()).unwrap().allowed_in_trailers(), "{name}");
        }
        for name in ["Content-Digest", "Repr-Digest", "ETag", "Server", "Via"] {
            assert!(Known::lookup(name.as_bytes()).unwrap().allowed_in_trailers(), "{name}");
        }
    }

    /// Faults S17 and H18.
    #[test]
    fn underscore_names_that_collide() {
        for name in
            ["Transfer_Encoding", "content_length", "Keep_Alive", "Proxy_Connection", "X_Forwarded_For"]
        {
            assert!(collides_by_underscore(name.as_bytes()), "{name}");
        }
        for name in ["X_Custom", "User_Agent", "Content-Length", "_", "Accept_Encoding"] {
            assert!(!collides_by_underscore(name.as_bytes()), "{name}");
        }
    }
}
