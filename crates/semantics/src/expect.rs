//! Expect (RFC 9110 §10.1.1): whether the client waits for 100, or wants something nobody here knows. When
//! the 100 is sent belongs to the connection, not here.

use crate::fields::Fields;
use crate::names::Known;
use crate::version::Version;

/// What a request expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// Nothing.
    None,
    /// Exactly `100-continue`: the client may wait for 100 before it sends content.
    Continue,
    /// Anything else, also besides 100-continue, also 100-continue twice: 417 (9110-10.1.1-01; faults S47,
    /// S48). Never forwarded, never guessed at.
    Unknown,
}

/// Reads Expect over all of its lines.
///
/// In HTTP/1.0 a 100-continue is ignored (9110-10.1.1-07); another expectation is still unknown.
pub fn expectation(version: Version, fields: &Fields) -> Expectation {
    if !fields.contains(Known::Expect) {
        return Expectation::None;
    }
    let mut members = fields.list(Known::Expect);
    match (members.next(), members.next()) {
        (None, _) => Expectation::None,
        (Some(only), None) if only.eq_ignore_ascii_case(b"100-continue") => match version {
            Version::Http11 => Expectation::Continue,
            Version::Http10 | Version::Http09 => Expectation::None,
        },
        _ => Expectation::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9110-10.1.1-01, 9110-10.1.1-07; faults S46, S47, S48.
    #[test]
    fn exactly_one_expectation_is_known() {
        use Expectation::{Continue, None, Unknown};
        for (lines, http11, http10) in [
            (&[][..], None, None),
            (&["100-continue"], Continue, None),
            (&["100-Continue"], Continue, None),
            (&[""], None, None),
            (&[","], None, None),
            (&["", "100-continue"], Continue, None),
            (&["100-continue,"], Continue, None),
            (&["100-continue", "x"], Unknown, Unknown),
            (&["100-continue, x"], Unknown, Unknown),
            (&["x, 100-continue"], Unknown, Unknown),
            (&["100-continue", "100-continue"], Unknown, Unknown),
            (&["100-continue, 100-continue"], Unknown, Unknown),
            (&["y 100-continue"], Unknown, Unknown),
            (&["100-continue y"], Unknown, Unknown),
            (&["100-continue;q=1"], Unknown, Unknown),
            (&["\"100-continue\""], Unknown, Unknown),
            (&["100-continue=1"], Unknown, Unknown),
            (&["100"], Unknown, Unknown),
            (&["continue"], Unknown, Unknown),
            (&["200-ok"], Unknown, Unknown),
            (&["103-early-hints"], Unknown, Unknown),
        ] {
            let mut fields = Fields::new();
            for value in lines {
                fields.push(Known::Expect, value).unwrap();
            }
            assert_eq!(expectation(Version::Http11, &fields), http11, "{lines:?}");
            assert_eq!(expectation(Version::Http10, &fields), http10, "{lines:?}");
        }
    }
}
