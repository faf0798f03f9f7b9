//! Answers to a certificate authority that looks whether this server holds the names it asks a certificate for: HTTP-01
//! (RFC 8555 §8.3) before any site is chosen, TLS-ALPN-01 (RFC 8737) in the handshake. What is answered comes from
//! whoever orders certificates; without an order under way nothing is answered, and asking costs one load.

use crate::request::Request;
use crate::response::Response;
use eleven_net::tls_config::{ClientHello, ServerConfig};
use eleven_semantics::Status;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Where HTTP-01 is looked for.
const WELL_KNOWN: &[u8] = b"/.well-known/acme-challenge/";
/// The protocol of TLS-ALPN-01.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

static UNDER_WAY: AtomicBool = AtomicBool::new(false);
static CHALLENGES: LazyLock<Mutex<Challenges>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Challenges {
    /// By token.
    texts: HashMap<Box<str>, Box<str>>,
    /// By name.
    certificates: HashMap<Box<str>, Arc<ServerConfig>>,
}

fn challenges() -> MutexGuard<'static, Challenges> {
    CHALLENGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A challenge that is answered until this is dropped.
#[derive(Debug)]
pub struct Answered {
    key: Box<str>,
    is_text: bool,
}

/// Answers HTTP-01 for a token with this key authorization.
pub fn answer_text(token: &str, authorization: &str) -> Answered {
    challenges().texts.insert(token.into(), authorization.into());
    UNDER_WAY.store(true, Ordering::Release);
    Answered { key: token.into(), is_text: true }
}

/// Answers TLS-ALPN-01 for a name with this certificate.
pub fn answer_handshake(name: &str, certificate: Arc<ServerConfig>) -> Answered {
    let key: Box<str> = name.to_ascii_lowercase().into();
    challenges().certificates.insert(key.clone(), certificate);
    UNDER_WAY.store(true, Ordering::Release);
    Answered { key, is_text: false }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut all = challenges();
        if self.is_text {
            all.texts.remove(&self.key);
        } else {
            all.certificates.remove(&self.key);
        }
        if all.texts.is_empty() && all.certificates.is_empty() {
            UNDER_WAY.store(false, Ordering::Release);
        }
    }
}

/// The answer to a request for a challenge, if it is one that is under way.
pub(crate) fn answer(request: &Request) -> Option<Response> {
    if !UNDER_WAY.load(Ordering::Acquire) {
        return None;
    }
    let token = request.received_target().strip_prefix(WELL_KNOWN)?;
    let token = std::str::from_utf8(token).ok()?;
    let text = challenges().texts.get(token)?.to_string();
    Some(Response::text(Status::OK, "application/octet-stream", text))
}

/// The settings for a handshake that is a challenge under way.
pub(crate) fn settings_for(hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
    if !UNDER_WAY.load(Ordering::Acquire) || !hello.alpn()?.any(|protocol| protocol == PROTOCOL) {
        return None;
    }
    let name = hello.server_name()?.to_ascii_lowercase();
    challenges().certificates.get(&*name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Peer;
    use eleven_semantics::target::{RequestTarget, Scheme};
    use std::rc::Rc;

    #[test]
    fn only_what_is_under_way_is_answered() {
        let nobody = Rc::new(Peer {
            address: None,
            scheme: Scheme::Http,
            local_port: 80,
            listener: None,
            server_name: None,
        });
        let ask = |target: &str| {
            let mut request = Request::new(nobody.clone());
            request.head.target = RequestTarget::parse(&request.head.method, target.as_bytes()).unwrap();
            answer(&request).map(|response| response.content.length())
        };
        assert_eq!(ask("/.well-known/acme-challenge/t0ken"), None);
        let answered = answer_text("t0ken", "t0ken.thumb");
        assert_eq!(ask("/.well-known/acme-challenge/t0ken"), Some(Some(11)));
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/t0ken", "/"] {
            assert_eq!(ask(other), None, "{other}");
        }
        drop(answered);
        assert_eq!(ask("/.well-known/acme-challenge/t0ken"), None);
    }
}
