//! Connections under TLS: the handshake within its deadline, then the session. A client that speaks plain HTTP to a
//! TLS port is told so in plain HTTP (fault A19). What TLS is made of is `net`'s.

use crate::acme;
use crate::request::Local;
use crate::session;
use crate::worker::Worker;
use eleven_net::ledger::{Phase, Slot, Verdict};
use eleven_net::tls::{AcceptError, TlsStream};
use eleven_net::tls_config::ServerConfig;
use eleven_net::{PeerAddr, Stream};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;

const PLAIN_ON_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 65\r\n\r\n\
    400 Bad Request\nThis port speaks TLS: the address is https://...\n";

/// Shakes hands, then serves the connection to its end.
pub(crate) async fn serve(
    stream: Stream,
    peer: PeerAddr,
    local: Local,
    slot: Slot,
    worker: Rc<Worker>,
    config: Arc<ServerConfig>,
) {
    slot.begin(Phase::Head, worker.settings().timeouts.handshake_timeout_ms);
    // Boxed, the handshake as well as what it makes: both are large, and whatever this function holds over a wait it
    // holds for as long as the connection lives.
    let accepted = {
        let accept = Box::pin(async {
            let accepted =
                TlsStream::accept(stream, |hello| Some(acme::settings_for(hello).unwrap_or(config))).await;
            accepted.map(|tls| Stream::Tls(Box::new(tls)))
        });
        tokio::select! {
            accepted = accept => accepted,
            () = given_up(&slot) => return worker.recorder().handshake(Err("timeout")),
        }
    };
    match accepted {
        Ok(mut stream) if is_challenge(&stream) => {
            // The handshake was the answer (RFC 8737 §3).
            worker.recorder().handshake(Ok(()));
            let _ = stream.shutdown_write().await;
        }
        Ok(stream) => {
            worker.recorder().handshake(Ok(()));
            session::serve(stream, peer, local, slot, worker).await;
        }
        Err(AcceptError::NotTls(plain)) => {
            worker.recorder().handshake(Err("not-tls"));
            let (mut stream, _) = *plain;
            slot.begin(Phase::Lingering, worker.settings().timeouts.linger_idle_timeout_ms);
            tokio::select! {
                () = Box::pin(say_it_is_tls(&mut stream)) => {}
                () = given_up(&slot) => {}
            }
        }
        Err(error) => {
            worker.recorder().handshake(Err("failed"));
            tracing::debug!(%peer, %error, "no TLS");
        }
    }
}

fn is_challenge(stream: &Stream) -> bool {
    stream.tls().is_some_and(|tls| tls.connection().alpn_protocol() == Some(acme::PROTOCOL))
}

/// Ready when the connection must go; a stop lets a handshake finish.
pub(crate) async fn given_up(slot: &Slot) {
    poll_fn(|cx| {
        loop {
            if ready!(slot.poll_verdict(cx)) != Verdict::Stopping {
                return std::task::Poll::Ready(());
            }
        }
    })
    .await;
}

/// Answers in plain HTTP, then reads until the client has seen it.
async fn say_it_is_tls(stream: &mut Stream) {
    if stream.write_all(PLAIN_ON_TLS).await.is_err() || stream.shutdown_write().await.is_err() {
        return;
    }
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    fn size_of_future<A, B, C, D, E, F, O>(_: impl Fn(A, B, C, D, E, F) -> O) -> usize {
        size_of::<O>()
    }

    /// Each idle connection holds one of these: a state of TLS moved through it would be there three times.
    #[test]
    fn a_connection_at_rest_holds_no_handshake() {
        let size_bytes = size_of_future(super::serve);
        assert!(size_bytes <= 512, "{size_bytes}");
    }

    /// 9110-8.6-07: the length written is the length sent.
    #[test]
    fn the_plain_answer_is_well_framed() {
        let text = std::str::from_utf8(super::PLAIN_ON_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
