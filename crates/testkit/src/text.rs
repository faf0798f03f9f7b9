//! Octets as readable text and back: what scripts are written in and failures are shown in. Escapes are
//! `\r`, `\n`, `\t`, `\0`, `\\`, `\"` and `\xNN`; every octet has exactly one shown form.

/// `bytes` with everything but printable ASCII escaped.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b'"' => out.push_str("\\\""),
            0x20..=0x7e => out.push(b as char),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

/// The octets that `text` stands for, or what is wrong with it.
///
/// # Errors
/// When a backslash is followed by something that is no escape.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(c @ (b'\\' | b'"' | b'*')) => c,
            Some(b'x') => {
                let digits = [bytes.next(), bytes.next()];
                let value = digits.iter().try_fold(0u8, |value, digit| {
                    let digit = (digit.unwrap_or(b'?') as char).to_digit(16)?;
                    Some(value << 4 | digit as u8)
                });
                value.ok_or_else(|| format!("\\x needs two hexadecimal digits in \"{text}\""))?
            }
            other => return Err(format!("unknown escape \\{} in \"{text}\"", other.unwrap_or(b' ') as char)),
        });
    }
    Ok(out)
}

/// Whether `line` is what `pattern` says: escapes as in [`unescape`], and `*` for any octets. `\*` is a star.
///
/// # Errors
/// As [`unescape`].
pub fn line_matches(pattern: &str, line: &[u8]) -> Result<bool, String> {
    let parts = split_at_stars(pattern).iter().map(|part| unescape(part)).collect::<Result<Vec<_>, _>>()?;
    let [first, middle @ .., last] = parts.as_slice() else {
        return Ok(parts.first().is_none_or(|only| only == line));
    };
    let Some(rest) = line.strip_prefix(first.as_slice()) else { return Ok(false) };
    let Some(mut rest) = rest.strip_suffix(last.as_slice()) else { return Ok(false) };
    for part in middle {
        let Some(at) = find(rest, part) else { return Ok(false) };
        rest = &rest[at + part.len()..];
    }
    Ok(true)
}

fn split_at_stars(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in pattern.chars() {
        if c == '*' && !escaped {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("starts with one part").push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Where `needle` first stands in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    (0..=hay.len().checked_sub(needle.len())?).find(|&at| hay[at..].starts_with(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
        assert_eq!(escape(b"a\r\n\"\x00\xff"), r#"a\r\n\"\x00\xff"#);
    }

    #[test]
    fn escapes_that_are_none() {
        for text in ["\\q", "\\", "\\x1", "\\xg0", "\\x"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns() {
        let rows: [(&str, &str, bool); 12] = [
            ("Date: *", "Date: Tue", true),
            ("Date: *", "date: Tue", false),
            ("Date: *", "Date: ", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, line, expected) in rows {
            assert_eq!(line_matches(pattern, line.as_bytes()), Ok(expected), "{pattern} on {line}");
        }
        assert_eq!(line_matches(r"\\*", br"\anything"), Ok(true));
        assert!(line_matches(r"\q*", b"").is_err());
    }
}
