//! The Basic scheme (RFC 7617): user and password in base64, nothing more.

use super::Auth;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest credentials that are decoded, in octets of base64.
pub const CREDENTIALS_BYTES_MAX: usize = 8 * 1024;

/// Why user and password cannot be sent with Basic (RFC 7617 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidUser {
    /// The user-id holds a colon.
    Colon,
    /// User or password holds a control.
    Control,
}

impl std::fmt::Display for InvalidUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidUser::Colon => "a user name with a colon cannot be sent with Basic authentication",
            InvalidUser::Control => "a control character in user or password cannot be sent with Basic",
        })
    }
}

impl std::error::Error for InvalidUser {}

/// The value of Authorization for this user and password.
///
/// # Errors
/// If the scheme cannot carry them.
pub fn encode(user: &[u8], password: &[u8]) -> Result<Vec<u8>, InvalidUser> {
    if user.contains(&b':') {
        return Err(InvalidUser::Colon);
    }
    if user.iter().chain(password).any(u8::is_ascii_control) {
        return Err(InvalidUser::Control);
    }
    let pair = [user, b":", password].concat();
    Ok([b"Basic ", STANDARD.encode(pair).as_bytes()].concat())
}

/// User and password of Basic credentials; `None` if they are malformed or of another scheme.
pub fn decode(auth: &Auth) -> Option<(Vec<u8>, Vec<u8>)> {
    let token = auth.token68().filter(|token| token.len() <= CREDENTIALS_BYTES_MAX)?;
    if auth.scheme != "basic" {
        return None;
    }
    let mut pair = STANDARD.decode(token).ok()?;
    let at = memchr::memchr(b':', &pair)?;
    if pair.iter().any(u8::is_ascii_control) {
        return None;
    }
    let password = pair.split_off(at + 1);
    pair.pop();
    Some((pair, password))
}

/// The value of WWW-Authenticate for a realm, in UTF-8 (9110-11.5-02).
pub fn challenge(realm: &str) -> Vec<u8> {
    let mut out = b"Basic realm=".to_vec();
    crate::grammar::push_quoted(&mut out, realm.as_bytes());
    out.extend_from_slice(b", charset=\"UTF-8\"");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7617 §2 and §2.1, its own examples.
    #[test]
    fn there_and_back() {
        for (user, password, expected) in [
            ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123\u{a3}", "Basic dGVzdDoxMjPCow=="),
            ("u", "p:q", "Basic dTpwOnE="),
            ("u", "", "Basic dTo="),
            ("", "", "Basic Og=="),
        ] {
            let value = encode(user.as_bytes(), password.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&value), expected);
            let back = decode(&Auth::credentials(&value).unwrap()).unwrap();
            assert_eq!(back, (user.as_bytes().to_vec(), password.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(encode(b"a:b", b""), Err(InvalidUser::Colon));
        assert_eq!(encode(b"a\r\n", b""), Err(InvalidUser::Control));
        assert_eq!(encode(b"a", b"b\0"), Err(InvalidUser::Control));
        for value in [
            "Basic",
            "Basic !!!",
            "Basic QWxhZGRpbg==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic YTpiDQo=",
        ] {
            let decoded = Auth::credentials(value.as_bytes()).ok().and_then(|auth| decode(&auth));
            assert_eq!(decoded, None, "{value}");
        }
        // 9110-11.5-02, and 9110-5.6.3-04: no space around the sign.
        assert_eq!(challenge("a\"b\r\n"), b"Basic realm=\"a\\\"b\", charset=\"UTF-8\"");
    }
}
