//! Connections that a relay passes on: the PROXY protocol says before the first octet of each who made it (fault X09).
//! Only trusted relays may connect at all where it is spoken, and each must say it; nothing is guessed. What a header
//! looks like is `net`'s.

use crate::request::Local;
use crate::worker::Worker;
use crate::{secure, session};
use eleven_net::ledger::{Phase, Slot};
use eleven_net::proxy_protocol::{self, Header};
use eleven_net::tls_config::ServerConfig;
use eleven_net::{PeerAddr, Stream};
use ipnet::IpNet;
use std::rc::Rc;
use std::sync::Arc;

/// The relays that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relays {
    /// Their networks.
    pub networks: Box<[IpNet]>,
}

impl Relays {
    /// Whether a peer may speak for others. Whoever reaches a Unix socket was let in by its mode.
    pub fn trust(&self, peer: &PeerAddr) -> bool {
        match peer {
            PeerAddr::Ip(address) => {
                let ip = address.ip().to_canonical();
                self.networks.iter().any(|network| network.contains(&ip))
            }
            PeerAddr::Unix | PeerAddr::Memory => true,
        }
    }
}

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub stream: Stream,
    pub peer: PeerAddr,
    /// The port of the listener.
    pub local: Local,
    pub slot: Slot,
}

/// Reads who made the connection, then serves it to its end. Whoever is no relay, or says nothing, gets no answer: he
/// would take it for that of another protocol.
pub(crate) async fn serve(
    accepted: Accepted,
    worker: Rc<Worker>,
    relays: Arc<Relays>,
    tls: Option<Arc<ServerConfig>>,
) {
    let Accepted { mut stream, peer, mut local, slot } = accepted;
    if !relays.trust(&peer) {
        return tracing::debug!(%peer, "a connection that does not come from a trusted relay is closed");
    }
    slot.begin(Phase::Head, worker.settings().timeouts.handshake_timeout_ms);
    let header = tokio::select! {
        header = proxy_protocol::read(&mut stream) => header,
        () = secure::given_up(&slot) => return,
    };
    let peer = match header {
        // The relay speaks for itself, as when it looks whether we are there.
        Ok(Header::Local) => peer,
        Ok(Header::Proxied { source, destination }) => {
            if destination.port() != 0 {
                local.port = destination.port();
            }
            PeerAddr::Ip(source)
        }
        Err(error) => return tracing::debug!(%peer, %error, "a relay did not say who its connection is from"),
    };
    if let PeerAddr::Ip(address) = peer
        && let Err(why) = slot.count_for(address.ip().to_canonical())
    {
        return tracing::debug!(%peer, ?why, "a connection was refused");
    }
    match tls {
        None => session::serve(stream, peer, local, slot, worker).await,
        Some(config) => secure::serve(stream, peer, local, slot, worker, config).await,
    }
}
