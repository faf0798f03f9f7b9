//! W3C Trace Context (Recommendation, level 1): the identity of a distributed trace in `traceparent`, and what its vendors
//! carry along in `tracestate`. Reads, checks and writes; makes no decision about sampling.

use crate::grammar::trim_ows;

/// Longest `tracestate` that is carried on (§3.3.1.5 asks for 512 octets at least).
pub const STATE_BYTES_MAX: usize = 4096;
/// Members of `tracestate` (§3.3.1.1).
pub const STATE_MEMBERS_MAX: usize = 32;

/// Longest request id that is taken from somebody else, in octets.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// A `traceparent` (§3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Of the whole trace; never zero.
    pub trace_id: u128,
    /// Of the request; never zero.
    pub parent_id: u64,
    /// Bit 0: whoever sent it may have recorded it.
    pub flags: u8,
}

/// Lower-case hexadecimal digits, all of them.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl TraceParent {
    /// Reads one. Of a version that is not known yet, what is known of it is read (§3.2.4).
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let (known, rest) = trim_ows(text).split_at_checked(55)?;
        let version = hex(&known[..2])?;
        let is_shaped = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let ends = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let trace_id = hex(&known[3..35])?;
        let parent_id = u64::try_from(hex(&known[36..52])?).ok()?;
        let flags = u8::try_from(hex(&known[53..])?).ok()?;
        (is_shaped && ends && trace_id != 0 && parent_id != 0).then_some(TraceParent {
            trace_id,
            parent_id,
            flags,
        })
    }
}

impl std::fmt::Display for TraceParent {
    /// In version 00. Of the flags only the one that it knows is passed on (§3.2.2.5.2).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags & 1)
    }
}

/// Whether the lines of a `tracestate` may be carried on: members `key=value`, not too many, no key twice (§3.3.1).
pub fn is_trace_state<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut octets = 0;
    for line in lines {
        octets += line.len();
        for member in line.split(|&b| b == b',').map(trim_ows).filter(|member| !member.is_empty()) {
            let Some(at) = member.iter().position(|&b| b == b'=') else { return false };
            let (key, value) = (&member[..at], &member[at + 1..]);
            if !is_state_key(key) || !is_state_value(value) || keys.contains(&key) {
                return false;
            }
            keys.push(key);
        }
    }
    keys.len() <= STATE_MEMBERS_MAX && octets <= STATE_BYTES_MAX
}

fn is_state_key(key: &[u8]) -> bool {
    let first = key.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let octet = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(b);
    first && key.len() <= 256 && key.iter().all(octet) && key.iter().filter(|&&b| b == b'@').count() <= 1
}

fn is_state_value(value: &[u8]) -> bool {
    let octet = |b: &u8| (0x20..=0x7e).contains(b) && !b",=".contains(b);
    (1..=256).contains(&value.len()) && value.iter().all(octet) && !value.ends_with(b" ")
}

/// Whether a text is an id of a request that may go on, and into a log, as it is.
pub fn is_request_id(text: &[u8]) -> bool {
    let octet = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(b);
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.iter().all(octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        const ID: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let good = |flags| TraceParent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            parent_id: 0xb7ad_6b71_6920_3331,
            flags,
        };
        for (text, expected) in [
            (format!("00-{ID}-01"), Some(good(1))),
            (format!(" 00-{ID}-00\t"), Some(good(0))),
            (format!("00-{ID}-ff"), Some(good(0xff))),
            (format!("01-{ID}-01"), Some(good(1))),
            (format!("cc-{ID}-01-what-the-future-will-be-like"), Some(good(1))),
            (format!("cc-{ID}-01.what"), None),
            (format!("00-{ID}-01-what"), None),
            (format!("ff-{ID}-01"), None),
            (format!("00-{ID}-0"), None),
            (format!("00-{ID}-0x"), None),
            (format!("00-{ID}-0A"), None),
            (format!("00_{ID}-01"), None),
            (format!("00-{}-01", ID.to_uppercase()), None),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01".into(), None),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(good(0xff).to_string(), format!("00-{ID}-01"));
        assert_eq!(TraceParent::parse(good(1).to_string().as_bytes()), Some(good(1)));
    }

    #[test]
    fn states() {
        let many = |n: usize| (0..n).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "x".repeat(257));
        for (lines, expected) in [
            (vec!["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], true),
            (vec!["a=1", " b=2 , , c=3"], true),
            (vec!["tenant@vendor=x y"], true),
            (vec![""], true),
            (vec!["a=1", "a=2"], false),
            (vec!["A=1"], false),
            (vec!["a@b@c=1"], false),
            (vec!["a"], false),
            (vec!["a="], false),
            (vec!["a=b=c"], false),
            (vec!["a=\u{7f}"], false),
            (vec![&*many(32)], true),
            (vec![&*many(33)], false),
            (vec![&*long], false),
        ] {
            assert_eq!(is_trace_state(lines.iter().map(|line| line.as_bytes())), expected, "{lines:?}");
        }
    }

    /// Faults L01, L04: nothing in an id may end or forge a line of a log.
    #[test]
    fn request_ids() {
        for (id, expected) in [
            ("0af7651916cd43dd8448eb211c80319c", true),
            ("9f0c6e1a-4b0b-4b1e-8d4a-1f1f1f1f1f1f", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            ("", false),
            ("a b", false),
            ("a\"", false),
            ("a\r\nb", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(is_request_id(id.as_bytes()), expected, "{id:?}");
        }
        assert!(is_request_id(&[b'a'; 128]) && !is_request_id(&[b'a'; 129]));
    }
}
