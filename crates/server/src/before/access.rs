//! Which addresses may come in. `deny` beats `allow`; an empty `allow` lets everybody in whom `deny` does not
//! name. A client without an address (Unix socket) passes unless only named addresses may.

use ipnet::IpNet;
use std::net::IpAddr;

/// Address rules of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Who may come in; everybody if empty.
    pub allow: Box<[IpNet]>,
    /// Who may not.
    pub deny: Box<[IpNet]>,
}

/// What the rules say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressVerdict {
    /// There is no rule.
    Unasked,
    /// It may come in.
    Allowed,
    /// It is named among those that may not.
    Denied,
    /// It is not among those that may.
    NotAllowed,
}

impl AddressVerdict {
    /// Whether the client may come in.
    pub fn passes(self) -> bool {
        matches!(self, AddressVerdict::Unasked | AddressVerdict::Allowed)
    }
}

impl Addresses {
    /// Judges a client.
    pub fn judge(&self, client: Option<IpAddr>) -> AddressVerdict {
        if self.allow.is_empty() && self.deny.is_empty() {
            return AddressVerdict::Unasked;
        }
        let within = |networks: &[IpNet]| {
            client
                .is_some_and(|client| networks.iter().any(|network| network.contains(&client.to_canonical())))
        };
        if within(&self.deny) {
            AddressVerdict::Denied
        } else if self.allow.is_empty() || within(&self.allow) {
            AddressVerdict::Allowed
        } else {
            AddressVerdict::NotAllowed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_beats_allow() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        let rules = |allow: &[&str], deny: &[&str]| Addresses { allow: nets(allow), deny: nets(deny) };
        use AddressVerdict::*;
        for (allow, deny, client, expected) in [
            (&[][..], &[][..], Some("192.0.2.1"), Unasked),
            (&[], &[], None, Unasked),
            (&["192.0.2.0/24"], &[], Some("192.0.2.1"), Allowed),
            (&["192.0.2.0/24"], &[], Some("::ffff:192.0.2.1"), Allowed),
            (&["192.0.2.0/24"], &[], Some("198.51.100.1"), NotAllowed),
            (&["192.0.2.0/24"], &[], None, NotAllowed),
            (&["192.0.2.0/24"], &["192.0.2.1/32"], Some("192.0.2.1"), Denied),
            (&[], &["2001:db8::/32"], Some("2001:db8::1"), Denied),
            (&[], &["2001:db8::/32"], Some("192.0.2.1"), Allowed),
            (&[], &["2001:db8::/32"], None, Allowed),
            (&["::/0"], &[], Some("192.0.2.1"), NotAllowed),
        ] {
            let client = client.map(|text| text.parse().unwrap());
            assert_eq!(rules(allow, deny).judge(client), expected, "{allow:?} {deny:?} {client:?}");
        }
    }
}
