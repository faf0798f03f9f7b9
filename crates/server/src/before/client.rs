//! Who the client is, behind proxies that are trusted: the last address in the chain that no trusted proxy owns.
//! Nobody else's word counts (fault H12), and only the one field that the operator's proxies write is read: the other
//! one would be passed through from whoever sent it.

use eleven_semantics::grammar::{parameter, semicolons, trim_ows, unquote};
use eleven_semantics::{Fields, Known};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Addresses of a chain that are looked at.
const CHAIN_MAX: usize = 32;

/// Which field the trusted proxies write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChainField {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies whose word is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    /// Their addresses.
    pub networks: Box<[IpNet]>,
    /// What they write.
    pub field: ChainField,
}

impl TrustedProxies {
    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client's address. What cannot be read ends the chain: the proxy that reported it stands for the client.
    pub fn client(&self, peer: Option<IpAddr>, fields: &Fields) -> Option<IpAddr> {
        let peer = peer.map(|address| address.to_canonical());
        // A Unix socket is reached by local processes only: those an operator lets in by the socket's mode.
        if self.networks.is_empty() || peer.is_some_and(|peer| !self.contains(peer)) {
            return peer;
        }
        let name = match self.field {
            ChainField::XForwardedFor => Known::XForwardedFor,
            ChainField::Forwarded => Known::Forwarded,
        };
        if !fields.contains(name) {
            return peer;
        }
        let members: Vec<&[u8]> = fields.list(name).collect();
        let mut client = peer;
        for member in members.into_iter().rev().take(CHAIN_MAX) {
            let address = match self.field {
                ChainField::XForwardedFor => read_address(member),
                ChainField::Forwarded => read_forwarded(member),
            };
            let Some(address) = address else { break };
            client = Some(address);
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn read_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(trim_ows(text)).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

fn read_forwarded(element: &[u8]) -> Option<IpAddr> {
    let (_, value) =
        semicolons(element).filter_map(parameter).find(|(name, _)| name.eq_ignore_ascii_case(b"for"))?;
    if value.first() == Some(&b'"') { read_address(&unquote(value)?) } else { read_address(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn client(field: ChainField, peer: &str, lines: &[(&str, &str)]) -> String {
        let proxies = TrustedProxies {
            networks: ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).into(),
            field,
        };
        let fields = Fields::from_iter(lines);
        proxies.client(Some(peer.parse().unwrap()), &fields).unwrap().to_string()
    }

    /// Fault H12: a client that writes the field itself gains nothing.
    #[test]
    fn the_last_address_that_is_not_ours_is_the_client() {
        use ChainField::{Forwarded, XForwardedFor};
        const XFF: &str = "X-Forwarded-For";
        for (peer, value, expected) in [
            ("192.0.2.9", "203.0.113.5", "192.0.2.9"),
            ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.5", "203.0.113.5"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.5, 10.9.9.9", "203.0.113.5"),
            ("10.0.0.1", "10.1.1.1", "10.1.1.1"),
            ("10.0.0.1", "203.0.113.5:1234", "203.0.113.5"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "203.0.113.5, nonsense", "10.0.0.1"),
            ("10.0.0.1", "unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::1", "203.0.113.5", "203.0.113.5"),
            ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
            ("10.0.0.1", "::ffff:10.0.0.7", "10.0.0.7"),
        ] {
            assert_eq!(client(XForwardedFor, peer, &[(XFF, value)]), expected, "{peer} {value}");
        }
        assert_eq!(
            client(XForwardedFor, "10.0.0.1", &[(XFF, "6.6.6.6"), (XFF, "203.0.113.5")]),
            "203.0.113.5"
        );
        for (value, expected) in [
            ("for=203.0.113.5", "203.0.113.5"),
            ("for=6.6.6.6, For=\"[2001:db8::1]:47\";proto=http", "2001:db8::1"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("for=203.0.113.5, for=10.2.2.2;by=10.0.0.1", "203.0.113.5"),
        ] {
            assert_eq!(client(Forwarded, "10.0.0.1", &[("Forwarded", value)]), expected, "{value}");
        }
        // The field that our proxies do not write is the client's own.
        assert_eq!(client(XForwardedFor, "10.0.0.1", &[("Forwarded", "for=6.6.6.6")]), "10.0.0.1");
        assert_eq!(client(Forwarded, "10.0.0.1", &[(XFF, "6.6.6.6")]), "10.0.0.1");
        let nobody = TrustedProxies::default();
        let fields = Fields::from_iter(&[(XFF, "6.6.6.6")]);
        assert_eq!(nobody.client(None, &fields), None);
    }
}
