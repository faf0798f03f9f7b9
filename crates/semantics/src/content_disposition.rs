//! Content-Disposition (RFC 6266, RFC 8187): the file name a server suggests, and the one that may be used.
//! A name from the network is text by a stranger: only its last component counts, and nothing in it may steer a
//! terminal, a shell, or another file system (faults K22 to K28).

use crate::grammar::{semicolons, token_or_quoted, trim_ows};
use crate::target::percent_decode;

/// Longest file name made, in octets: file systems end at 255, and a temporary suffix must fit as well.
pub const NAME_BYTES_MAX: usize = 200;

/// A parsed Content-Disposition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disposition {
    /// `attachment`, or anything but `inline`, which counts as it (RFC 6266 §4.2).
    pub attachment: bool,
    /// The suggested name, decoded but not made safe; `filename*` before `filename` (RFC 6266 §4.3).
    pub filename: Option<String>,
}

/// Reads the field. `None` if it is malformed: then it says nothing (RFC 6266 §4).
pub fn parse(value: &[u8]) -> Option<Disposition> {
    let mut parts = semicolons(value);
    let kind = parts.next().filter(|kind| crate::grammar::is_token(kind))?;
    let (mut plain, mut extended) = (None, None);
    for parameter in parts {
        let at = memchr::memchr(b'=', parameter)?;
        let (name, value) = (trim_ows(&parameter[..at]), trim_ows(&parameter[at + 1..]));
        if !crate::grammar::is_token(name) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"filename") {
            let value = token_or_quoted(value)?;
            if plain.replace(text(value)).is_some() {
                return None; // RFC 6266 §4.1: a parameter at most once
            }
        } else if name.eq_ignore_ascii_case(b"filename*") {
            if extended.is_some() {
                return None;
            }
            extended = extended_value(value);
        } else {
            token_or_quoted(value).or_else(|| name.ends_with(b"*").then(Vec::new))?;
        }
    }
    Some(Disposition { attachment: !kind.eq_ignore_ascii_case(b"inline"), filename: extended.or(plain) })
}

/// UTF-8 where it is, else ISO-8859-1, which RFC 9110 §5.5 has for such octets.
fn text(octets: Vec<u8>) -> String {
    String::from_utf8(octets).unwrap_or_else(|e| e.into_bytes().into_iter().map(char::from).collect())
}

/// `charset'language'percent-encoded` (RFC 8187 §3.2). `None` if malformed: the plain parameter then counts.
fn extended_value(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |&b| b == b'\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let is_attr_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~%".contains(&b);
    if !encoded.iter().all(|&b| is_attr_char(b)) {
        return None;
    }
    let decoded = percent_decode(encoded);
    if charset.eq_ignore_ascii_case(b"utf-8") {
        String::from_utf8(decoded).ok()
    } else if charset.eq_ignore_ascii_case(b"iso-8859-1") {
        Some(decoded.into_iter().map(char::from).collect())
    } else {
        None
    }
}

/// A name that can safely be created in a directory, or none if nothing of it is usable.
///
/// Takes the last component by both kinds of slash (K22); drops leading dots and white space, trailing dots and
/// spaces, and names that Windows reserves (K23); replaces what shells and other file systems treat specially;
/// drops controls, and the characters that turn text around (K25); cuts at [`NAME_BYTES_MAX`] octets, keeping
/// the extension. Works on decoded text, so that an encoded slash is a slash (K26).
pub fn safe_name(suggested: &str) -> Option<String> {
    let last = suggested.rsplit(['/', '\\']).next().unwrap_or("");
    let mut name = String::with_capacity(last.len());
    for c in last.chars() {
        match c {
            c if c.is_control() || is_invisible(c) => {}
            '<' | '>' | ':' | '"' | '|' | '?' | '*' => name.push('_'),
            c => name.push(c),
        }
    }
    let name = name.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
    let name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    // A leading dash reads as an option of whatever command is typed next.
    let name = if name.starts_with('-') { format!("_{name}") } else { name.to_owned() };
    if name.is_empty() {
        return None;
    }
    let stem = name.split('.').next().unwrap_or("").trim_end().to_ascii_uppercase();
    let name = if is_reserved(&stem) { format!("_{name}") } else { name };
    Some(shorten(name))
}

/// Characters that show as nothing or change the direction of what follows.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn is_reserved(stem: &str) -> bool {
    matches!(stem, "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.as_bytes()[3].is_ascii_digit())
}

fn shorten(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let extension = name.rfind('.').map_or("", |at| &name[at..]);
    let extension = if extension.len() <= 16 { extension } else { "" };
    let mut end = NAME_BYTES_MAX - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    // The cut must not bring to the end what was dropped from there.
    let stem = name[..end].trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    format!("{stem}{extension}")
}

/// The name for a download: by Content-Disposition if wanted and usable, else by the path of the URI that the
/// *user* gave, never by one that a redirection led to (K28), else `index.html`.
pub fn download_name(disposition: Option<&[u8]>, path: &str) -> String {
    let suggested = disposition.and_then(parse).and_then(|d| d.filename);
    suggested
        .as_deref()
        .and_then(safe_name)
        .or_else(|| name_from_path(path))
        .unwrap_or_else(|| "index.html".into())
}

fn name_from_path(path: &str) -> Option<String> {
    let last = path.rsplit('/').next()?;
    safe_name(&text(percent_decode(last.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn filename(value: &str) -> Option<String> {
        parse(value.as_bytes()).and_then(|d| d.filename)
    }

    /// RFC 6266 §5 and RFC 8187 §3.2: the examples, and what is refused.
    #[test]
    fn dispositions() {
        for (value, attachment, expected) in [
            ("attachment", true, None),
            ("INLINE; FILENAME= \"an example.html\"", false, Some("an example.html")),
            ("Attachment; filename=example.html", true, Some("example.html")),
            ("attachment; filename*= UTF-8''%e2%82%ac%20rates", true, Some("\u{20ac} rates")),
            (
                "attachment; filename=\"EURO rates\"; filename*=utf-8''%e2%82%ac%20rates",
                true,
                Some("\u{20ac} rates"),
            ),
            ("attachment; filename*=utf-8''%e2%82%ac; filename=x", true, Some("\u{20ac}")),
            ("attachment; filename*=iso-8859-1'en'%A3%20rates", true, Some("\u{a3} rates")),
            ("attachment; filename*=utf-8''%ff; filename=plain", true, Some("plain")),
            ("attachment; filename*=koi8-r''x; filename=plain", true, Some("plain")),
            ("attachment; filename*=broken; filename=plain", true, Some("plain")),
            ("foo; filename=x", true, Some("x")),
            ("attachment; filename=\"a\\\"b\"; size=3", true, Some("a\"b")),
            ("attachment;;filename=x;", true, Some("x")),
        ] {
            let disposition = parse(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(
                (disposition.attachment, disposition.filename.as_deref()),
                (attachment, expected),
                "{value}"
            );
        }
        for bad in [
            "",
            "filename=x",
            "attachment; filename",
            "attachment; filename=a b",
            "attachment; filename=a/b",
            "attachment; filename=\"x",
            "attachment; filename=x; filename=y",
            "attachment; filename*=utf-8''x; filename*=utf-8''y",
            "\"attachment\"",
        ] {
            assert_eq!(filename(bad), None, "{bad}");
        }
    }

    /// Faults K22, K23, K25, K26.
    #[test]
    fn names_made_safe() {
        for (suggested, expected) in [
            ("file.txt", Some("file.txt")),
            ("../../.bashrc", Some("bashrc")),
            ("/etc/passwd", Some("passwd")),
            ("C:\\Windows\\x.exe", Some("x.exe")),
            ("..\\..\\x", Some("x")),
            (".bashrc", Some("bashrc")),
            ("...", None),
            ("", None),
            ("/", None),
            ("a/", None),
            (" . ", None),
            ("CON", Some("_CON")),
            ("con.txt", Some("_con.txt")),
            ("COM1", Some("_COM1")),
            ("COM10", Some("COM10")),
            ("nul", Some("_nul")),
            ("a\x1b]0;pwned\x07b", Some("a]0;pwnedb")),
            ("a\r\nb\0c", Some("abc")),
            ("invoice\u{202e}fdp.exe", Some("invoicefdp.exe")),
            ("a\u{200b}b", Some("ab")),
            ("a:b*c?d", Some("a_b_c_d")),
            ("-rf", Some("_-rf")),
            ("x. . ", Some("x")),
            ("\u{fc}ber.txt", Some("\u{fc}ber.txt")),
        ] {
            assert_eq!(safe_name(suggested).as_deref(), expected, "{suggested:?}");
        }
        let long = safe_name(&format!("{}.tar.gz", "\u{e4}".repeat(5000))).unwrap();
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with(".gz"), "{long}");
        assert!(safe_name(&"x".repeat(5000)).unwrap().len() <= NAME_BYTES_MAX);
    }

    /// Faults K26 and K28.
    #[test]
    fn names_for_downloads() {
        for (disposition, path, expected) in [
            (None, "/a/b.txt", "b.txt"),
            (None, "/", "index.html"),
            (None, "/a/", "index.html"),
            (None, "/%2e%2e%2fevil.sh", "evil.sh"),
            (None, "/a%20b", "a b"),
            (None, "/.profile", "profile"),
            (Some("attachment; filename=\"x/y.txt\""), "/b", "y.txt"),
            (Some("attachment; filename*=UTF-8''%2e%2e%2fx"), "/b", "x"),
            (Some("attachment; filename=\"..\""), "/b", "b"),
            (Some("attachment"), "/b", "b"),
            (Some("garbage="), "/b", "b"),
        ] {
            assert_eq!(
                download_name(disposition.map(str::as_bytes), path),
                expected,
                "{disposition:?} {path}"
            );
        }
    }
}
