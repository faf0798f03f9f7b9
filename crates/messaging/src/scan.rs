//! Finds ordinary request lines and field lines, eight octets at a time. Fast and without opinions: a line that is
//! anything but ordinary is left to `start_line` and `field_section`, which know what is wrong with it.

use eleven_semantics::Method;
use eleven_semantics::names::Known;

/// A request line in its ordinary form: `method SP target SP HTTP/1.1 CRLF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdinaryRequest<'a> {
    /// One of the methods that are asked for most.
    pub method: Method,
    /// The target: not empty, without space, control or obs-text.
    pub target: &'a [u8],
    /// Where the next line begins.
    pub next: usize,
}

/// The request line at the start of `input`, if it is whole and ordinary. `None` says nothing of it.
#[inline]
pub fn ordinary_request_line(input: &[u8]) -> Option<OrdinaryRequest<'_>> {
    const END: &[u8; 11] = b" HTTP/1.1\r\n";
    let (method, at) = match input {
        [b'G', b'E', b'T', b' ', ..] => (Method::Get, 4),
        [b'P', b'O', b'S', b'T', b' ', ..] => (Method::Post, 5),
        [b'H', b'E', b'A', b'D', b' ', ..] => (Method::Head, 5),
        [b'P', b'U', b'T', b' ', ..] => (Method::Put, 4),
        _ => return None,
    };
    let end = end_of::<0x21>(input, at);
    let target = &input[at..end];
    let ordinary = !target.is_empty() && input[end..].starts_with(END);
    ordinary.then_some(OrdinaryRequest { method, target, next: end + END.len() })
}

/// A field line in its ordinary form: offsets into the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdinaryField {
    /// Where the name ends and the colon stands.
    pub colon: usize,
    /// Where the value ends, before its CRLF. It begins two octets after the colon, and has no white space
    /// at either end.
    pub value_end: usize,
    /// The known field of that name.
    pub known: Option<Known>,
}

/// The line that begins at `at`, if it is whole and reads `name: value CRLF` with a valid name without `_`, and a
/// valid value without outer white space and HTAB. `None` says nothing of the line.
#[inline]
pub fn ordinary_line(input: &[u8], at: usize) -> Option<OrdinaryField> {
    let line = &input[at..];
    if line.first() == Some(&b'\r') {
        return None; // most often the end of the section: what follows is not searched for a colon
    }
    let colon = colon(line)?;
    let known = Known::lookup_start(line, colon);
    if known.is_none() && !is_ordinary_name(&line[..colon]) {
        return None;
    }
    let value_at = colon + 2;
    let &[b' ', first, ..] = &line[colon + 1..] else { return None };
    let value_end = end_of::<0x20>(line, value_at);
    let [b'\r', b'\n', ..] = line[value_end..] else { return None };
    let trimmed = value_end == value_at || (first != b' ' && line[value_end - 1] != b' ');
    trimmed.then_some(OrdinaryField { colon: at + colon, value_end: at + value_end, known })
}

/// A token without `_`, whose look-alikes need thought.
#[inline]
fn is_ordinary_name(name: &[u8]) -> bool {
    static ORDINARY: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 256 {
            table[b] = (b as u8).is_ascii_alphanumeric() || b as u8 == b'-';
            b += 1;
        }
        table
    };
    let class = |b: u8| ORDINARY[usize::from(b)];
    let (fours, rest) = name.as_chunks::<4>();
    fours.iter().all(|&[a, b, c, d]| class(a) & class(b) & class(c) & class(d))
        && rest.iter().all(|&b| class(b))
        && !name.is_empty()
}

/// Every octet 1.
const ONES: u64 = u64::MAX / 255;
/// The high bit of every octet.
const HIGH: u64 = ONES << 7;

/// Where the first colon stands, be it in this line or not.
#[inline]
fn colon(input: &[u8]) -> Option<usize> {
    const COLONS: u64 = ONES * b':' as u64;
    let (words, _) = input.as_chunks::<8>();
    let mut at = 0;
    for octets in words {
        let zero = u64::from_le_bytes(*octets) ^ COLONS;
        let found = zero.wrapping_sub(ONES) & !zero & HIGH;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    colon_in_rest(input, at)
}

#[inline(never)]
fn colon_in_rest(input: &[u8], at: usize) -> Option<usize> {
    input.get(at..)?.iter().position(|&b| b == b':').map(|n| at + n)
}

/// Whether an octet ends what [`end_of`] looks for.
#[inline]
fn ends<const LOW: u8>(b: u8) -> bool {
    b < LOW || b == 0x7f || (LOW > 0x20 && b >= 0x80)
}

/// Where the octets from `at` on first go below `LOW`, or are DEL; or, for `LOW` 0x21, are obs-text.
///
/// Below `LOW` the subtraction borrows, at 0x7f the addition reaches the high bit. Both may spill into higher
/// octets, never into lower ones, so the lowest octet found is right, except that a `~` after 0xff looks like DEL.
///
/// Kept out of line so that its constants stay in registers: this loop sees every octet.
#[inline(never)]
fn end_of<const LOW: u8>(input: &[u8], mut at: usize) -> usize {
    let (words, _) = input[at..].as_chunks::<8>();
    for octets in words {
        let word = u64::from_le_bytes(*octets);
        let borrowed = word.wrapping_sub(ONES * LOW as u64) | word.wrapping_add(ONES);
        let found = if LOW > 0x20 { borrowed | word } else { borrowed & !word } & HIGH;
        if found != 0 {
            let bits = found.trailing_zeros() & !7;
            if ends::<LOW>((word >> bits) as u8) {
                return at + bits as usize / 8;
            }
            break;
        }
        at += 8;
    }
    end_of_rest::<LOW>(input, at)
}

#[inline(never)]
fn end_of_rest<const LOW: u8>(input: &[u8], at: usize) -> usize {
    let rest = &input[at..];
    at + rest.iter().position(|&b| ends::<LOW>(b)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_section::{field_line, line};

    /// Each octet at each place of a word, beside others that might disturb it.
    #[test]
    fn every_octet_at_every_place() {
        for filling in [b'a', b'~', 0xff, 0x80, b'!'] {
            for b in 0..=255u8 {
                for at in 0..20 {
                    let mut text = vec![filling; 20];
                    text[at] = b;
                    let value = text.iter().position(|&b| b < 0x20 || b == 0x7f).unwrap_or(20);
                    assert_eq!(end_of::<0x20>(&text, 0), value, "{b} at {at} in {filling}");
                    let target = text.iter().position(|&b| !b.is_ascii_graphic()).unwrap_or(20);
                    assert_eq!(end_of::<0x21>(&text, 0), target, "{b} at {at} in {filling}");
                    assert_eq!(colon(&text), (b == b':').then_some(at), "{b} at {at} in {filling}");
                }
            }
        }
    }

    /// What is called ordinary is what the strict reader reads, and reads as it stands.
    #[test]
    fn ordinary_request_lines_are_read_alike() {
        let config = crate::Config::default();
        for text in [
            "GET / HTTP/1.1\r\n",
            "HEAD /a/long/path/of/more/than/one/word?and=a,query HTTP/1.1\r\n",
            "POST * HTTP/1.1\r\n",
            "PUT /[x HTTP/1.1\r\n",
            "GET  HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET /  HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
            "GET /\x7f HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r",
            "GET /",
            "GET ",
            "get / HTTP/1.1\r\n",
            "",
        ] {
            let strict = line(text.as_bytes(), 0).ok().flatten().map(|(line, next)| {
                let mut target = eleven_semantics::RequestTarget::default();
                (crate::start_line::request_line(line, &config.limits, &config.options, &mut target), next)
            });
            let ordinary = ordinary_request_line(text.as_bytes());
            match (&ordinary, strict) {
                (Some(found), Some((Ok((method, _)), next))) => {
                    assert_eq!((&found.method, found.next), (&method, next), "{text:?}");
                    assert_eq!(text.split(' ').nth(1).unwrap().as_bytes(), found.target, "{text:?}");
                }
                // Only the target is still to be judged.
                (Some(_), Some((Err(fault), _))) => {
                    assert!(matches!(fault, crate::Malformed::Target(_)), "{text:?}: {fault:?}");
                }
                (Some(_), None) => panic!("{text:?} is not whole"),
                (None, _) => assert!(
                    !text.contains(" HTTP/1.1\r\n")
                        || text.len() < 17
                        || text.contains('\u{e9}')
                        || text.contains("  ")
                        || text.starts_with('g')
                        || text.contains('\x7f'),
                    "{text:?}"
                ),
            }
        }
    }

    /// What is called ordinary is what the strict reader reads, and reads as it stands.
    #[test]
    fn ordinary_lines_are_read_alike() {
        for text in [
            "A: b\r\n",
            "A-Long-Name-With-0123: a value of more than one word, with \u{e9}\r\n",
            "A: b\tc\r\n",
            "A!: b\r\n",
            "A: \r\n",
            "A:b\r\n",
            "A:  b\r\n",
            "A: \tb\r\n",
            "A: b \r\n",
            "A: b\t\r\n",
            "A:\r\n",
            "A : b\r\n",
            "A_B: c\r\n",
            ": b\r\n",
            "A\r\n",
            "A: b\n",
            "A: b\rc\r\n",
            "A: b\0\r\n",
            " A: b\r\n",
            "A: b",
            "A: b\r",
            "A:",
            "A: ",
            "A",
            "",
            "\r\n",
        ] {
            let bytes = text.as_bytes();
            let strict = line(bytes, 0).ok().flatten().and_then(|(line, _)| field_line(line).ok());
            match ordinary_line(bytes, 0) {
                Some(found) => {
                    let strict = strict.expect("ordinary lines are valid");
                    assert_eq!(strict.name, &bytes[..found.colon], "{text:?}");
                    assert_eq!(strict.value, &bytes[found.colon + 2..found.value_end], "{text:?}");
                    assert_eq!(bytes.len(), found.value_end + 2, "{text:?}");
                }
                None => {
                    let canonical = strict.is_some_and(|f| {
                        let plain = !f.name.iter().any(|b| b"_!".contains(b)) && !f.value.contains(&b'\t');
                        plain && bytes.len() == f.name.len() + f.value.len() + 4
                    });
                    assert!(!canonical, "{text:?} is ordinary");
                }
            }
        }
    }
}
