//! The shared grammar of RFC 9110 §5.6: octet classes, optional white space, tokens, quoted strings, lists,
//! parameters, and digits. Does not know any field.
//!
//! Digits are read here and nowhere else: Rust's `parse` accepts a leading `+`, which no HTTP grammar does.

/// Octet classes, one table for all of them.
const TCHAR: u8 = 1;
const FIELD_VCHAR: u8 = 2;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0usize;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[i] |= TCHAR;
        }
        // field-vchar = VCHAR / obs-text; SP and HTAB are allowed between them (RFC 9110 §5.5).
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            table[i] |= FIELD_VCHAR;
        }
        i += 1;
    }
    table
};

/// `tchar` of RFC 9110 §5.6.2.
#[inline]
pub fn is_tchar(b: u8) -> bool {
    CLASS[b as usize] & TCHAR != 0
}

/// An octet that may stand inside a field value: HTAB, SP, VCHAR or obs-text (RFC 9110 §5.5).
#[inline]
pub fn is_field_octet(b: u8) -> bool {
    CLASS[b as usize] & FIELD_VCHAR != 0
}

/// A non-empty `token` (RFC 9110 §5.6.2).
#[inline]
pub fn is_token(bytes: &[u8]) -> bool {
    let class = |b: u8| CLASS[b as usize];
    let (fours, rest) = bytes.as_chunks::<4>();
    fours.iter().all(|&[a, b, c, d]| class(a) & class(b) & class(c) & class(d) & TCHAR != 0)
        && rest.iter().all(|&b| is_tchar(b))
        && !bytes.is_empty()
}

/// Whether every octet may stand in a field value. Works on eight octets at a time: this runs over every
/// received field value.
#[inline]
pub fn is_field_value(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let w = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        // An octet below 0x20, or equal to 0x7f. obs-text (high bit set) must not raise a false alarm, and
        // HTAB must be let through by the slow path.
        let below = w.wrapping_sub(ONES * 0x20) & !w & HIGH;
        let del = w ^ (ONES * 0x7f);
        let del = del.wrapping_sub(ONES) & !del & HIGH;
        if (below | del) != 0 && !chunk.iter().all(|&b| is_field_octet(b)) {
            return false;
        }
    }
    chunks.remainder().iter().all(|&b| is_field_octet(b))
}

/// Whether `b` is OWS: SP or HTAB and nothing else (RFC 9110 §5.6.3).
#[inline]
pub fn is_ows(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// `bytes` without optional white space at either end. Only SP and HTAB count; VT, FF, NBSP do not.
#[inline]
pub fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes {
        if !is_ows(*first) {
            break;
        }
        bytes = rest;
    }
    while let [rest @ .., last] = bytes {
        if !is_ows(*last) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// `1*DIGIT` as a number. `None` for an empty input, any other octet (also signs and white space) or overflow.
#[inline]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut n: u64 = 0;
    for &b in bytes {
        if !b.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
    }
    Some(n)
}

/// `1*DIGIT` as a number that stops growing at `u64::MAX`: for delta-seconds and the like, where RFC 9111
/// §1.2.2 wants an overflow treated as a very large value. `None` for anything but digits.
pub fn decimal_saturating(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(bytes.iter().fold(0u64, |n, &b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

/// The value of one hexadecimal digit.
#[inline]
pub fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// Appends `n` in decimal.
#[inline]
pub fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    // Most numbers in messages and logs are short.
    let digit = |n: u64| b'0' + n as u8;
    match n {
        0..10 => return out.push(digit(n)),
        10..100 => return out.extend_from_slice(&[digit(n / 10), digit(n % 10)]),
        100..1000 => return out.extend_from_slice(&[digit(n / 100), digit(n / 10 % 10), digit(n % 10)]),
        _ => {}
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The members of a `#list` (RFC 9110 §5.6.1), empty ones left out, white space trimmed. A comma inside a
/// quoted string does not separate (its quotes stay in the member).
pub fn list(value: &[u8]) -> List<'_> {
    List { rest: value, sep: b',' }
}

/// As [`list`], with `;` as separator: parameters and the like.
pub fn semicolons(value: &[u8]) -> List<'_> {
    List { rest: value, sep: b';' }
}

/// Iterator of [`list`] and [`semicolons`].
#[derive(Debug, Clone)]
pub struct List<'a> {
    rest: &'a [u8],
    sep: u8,
}

impl<'a> Iterator for List<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = unquoted(self.rest, self.sep);
            let member = trim_ows(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or(&[]);
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

/// Position of the first `sep` that is not inside a quoted string, or the length.
pub fn unquoted(bytes: &[u8], sep: u8) -> usize {
    let mut quoted = false;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => i += 1,
            b if b == sep && !quoted => return i,
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// The text of a `quoted-string` with its quotes (RFC 9110 §5.6.4), escapes undone. `None` if malformed.
pub fn unquote(bytes: &[u8]) -> Option<Vec<u8>> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut out = Vec::with_capacity(inner.len());
    let mut i = 0;
    while i < inner.len() {
        match inner[i] {
            b'"' => return (i + 1 == inner.len()).then_some(out),
            b'\\' => {
                let next = *inner.get(i + 1)?;
                if !is_field_octet(next) {
                    return None;
                }
                out.push(next);
                i += 1;
            }
            b if is_field_octet(b) => out.push(b),
            _ => return None,
        }
        i += 1;
    }
    None
}

/// A `token` or `quoted-string` as text.
pub fn token_or_quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.first() == Some(&b'"') { unquote(bytes) } else { is_token(bytes).then(|| bytes.to_vec()) }
}

/// Appends `text` as a `token` where it is one, else as a `quoted-string`. Octets that no quoted string may
/// hold are left out.
pub fn push_token_or_quoted(out: &mut Vec<u8>, text: &[u8]) {
    if is_token(text) {
        out.extend_from_slice(text);
    } else {
        push_quoted(out, text);
    }
}

/// Appends `text` as a `quoted-string`. Octets that no quoted string may hold are left out.
pub fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &b in text.iter().filter(|&&b| is_field_octet(b)) {
        if b == b'"' || b == b'\\' {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(b'"');
}

/// Splits `name=value` at the first `=`; BWS around it is refused, as RFC 9110 §5.6.6 has it for parameters.
/// The name must be a token. The value is returned as written (token or quoted string).
pub fn parameter(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', bytes)?;
    let (name, value) = (&bytes[..at], &bytes[at + 1..]);
    (is_token(name) && !value.is_empty()).then_some((name, value))
}

/// A `weight`'s qvalue in thousandths: `0`, `0.5`, `1.000` (RFC 9110 §12.4.2). `None` if malformed.
pub fn qvalue(bytes: &[u8]) -> Option<u16> {
    let (whole, fraction) = match bytes {
        [w] => (*w, &[][..]),
        [w, b'.', f @ ..] if f.len() <= 3 => (*w, f),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut unit = 100;
    for &b in fraction {
        if !b.is_ascii_digit() {
            return None;
        }
        thousandths += u16::from(b - b'0') * unit;
        unit /= 10;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_only() {
        for (input, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+5", None),
            ("-0", None),
            (" 5", None),
            ("5 ", None),
            ("0x5", None),
            ("1_0", None),
            ("5.0", None),
            ("５", None),
        ] {
            assert_eq!(decimal(input.as_bytes()), expected, "{input:?}");
        }
    }

    #[test]
    fn field_values_are_checked_at_every_position() {
        for bad in [0u8, 1, 0x0a, 0x0d, 0x1f, 0x7f, 0x0b, 0x0c] {
            for at in 0..20 {
                let mut value = b"abcdefghijklmnopqrst".to_vec();
                assert!(is_field_value(&value));
                value[at] = bad;
                assert!(!is_field_value(&value), "{bad:#x} at {at}");
            }
        }
        for good in [b'\t', b' ', b'~', 0x80, 0xff, 0xa0] {
            for at in 0..20 {
                let mut value = b"abcdefghijklmnopqrst".to_vec();
                value[at] = good;
                assert!(is_field_value(&value), "{good:#x} at {at}");
            }
        }
    }

    #[test]
    fn lists_skip_empty_members_and_respect_quotes() {
        let members = |v: &'static str| {
            list(v.as_bytes()).map(|m| String::from_utf8_lossy(m).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(members("a, b"), ["a", "b"]);
        assert_eq!(members(" ,, a ,\t,b,"), ["a", "b"]);
        assert_eq!(members(r#"a="x,\"y", b"#), [r#"a="x,\"y""#, "b"]);
        assert!(members("").is_empty());
        assert!(members(" , ,").is_empty());
    }

    #[test]
    fn quoted_strings() {
        assert_eq!(unquote(br#""a\"b""#).unwrap(), br#"a"b"#);
        for bad in [&b"\"a"[..], b"a\"", b"\"a\"b", b"\"a\\", b"\"\0\"", b""] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn qvalues() {
        for (input, expected) in [
            ("1", Some(1000)),
            ("0.5", Some(500)),
            ("0.001", Some(1)),
            ("1.000", Some(1000)),
            ("0.", Some(0)),
            ("1.001", None),
            ("2", None),
            ("0.0001", None),
            (".5", None),
            ("", None),
            ("-0", None),
            ("0,5", None),
        ] {
            assert_eq!(qvalue(input.as_bytes()), expected, "{input:?}");
        }
    }
}
