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

/// For each length, where its names start in [`BY_LENGTH`]; built at compile time.
const BY_LENGTH: [u8; NAMES.len()] = {
    let mut sorted = [0u8; NAMES.len()];
    let mut at = 0;
    let mut length = 0;
    while length <= LONGEST {
        let mut i = 0;
        while i < NAMES.len() {
            if NAMES[i].len() == length {
                sorted[at] = i as u8;
                at += 1;
            }
            i += 1;
        }
        length += 1;
    }
    assert!(at == NAMES.len(), "a name is longer than LONGEST");
    sorted
};

const STARTS: [u8; LONGEST + 2] = {
    let mut starts = [0u8; LONGEST + 2];
    let mut length = 0;
    while length <= LONGEST {
        let mut count = 0;
        let mut i = 0;
        while i < NAMES.len() {
            if NAMES[i].len() == length {
                count += 1;
            }
            i += 1;
        }
        starts[length + 1] = starts[length] + count;
        length += 1;
    }
    starts
};

impl Known {
    /// The known field of this name, in any case; `None` for an unknown one.
    #[inline]
    pub fn lookup(name: &[u8]) -> Option<Known> {
        let length = name.len();
        if length == 0 || length > LONGEST {
            return None;
        }
        let last = name[length - 1] | 0x20;
        let first = name[0] | 0x20;
        for &index in &BY_LENGTH[STARTS[length] as usize..STARTS[length + 1] as usize] {
            let candidate = NAMES[index as usize].as_bytes();
            // Two octets rule out nearly every wrong candidate before the whole name is compared.
            if candidate[length - 1] | 0x20 == last
                && candidate[0] | 0x20 == first
                && candidate.eq_ignore_ascii_case(name)
            {
                return Some(ALL[index as usize]);
            }
        }
        None
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
        1u128 << (self as u8)
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
