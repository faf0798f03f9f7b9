//! What an IP address is for (RFC 6890 and its registries): the public Internet, or something closer that a
//! stranger must not reach through us. Decides by address, never by name: a name is judged after resolution,
//! address by address (faults X11, X12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not one of the public Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// `0.0.0.0/8`, `::`: this host.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, RFC 4193.
    Private,
    /// `169.254.0.0/16` (with the cloud metadata services), `fe80::/10`.
    LinkLocal,
    /// `100.64.0.0/10` (RFC 6598): behind a carrier's translator.
    CarrierShared,
    /// Multicast and broadcast.
    Multicast,
    /// Documentation, benchmarking, protocol assignments, reserved for the future.
    Reserved,
}

impl std::fmt::Display for Special {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Special::Unspecified => "unspecified",
            Special::Loopback => "loopback",
            Special::Private => "private",
            Special::LinkLocal => "link-local",
            Special::CarrierShared => "carrier-shared",
            Special::Multicast => "multicast",
            Special::Reserved => "reserved",
        })
    }
}

/// The address as it is reached: an IPv4 address in IPv6 clothes is the IPv4 address.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Why `ip` is not an address of the public Internet, or `None` if it is one.
pub fn special(ip: IpAddr) -> Option<Special> {
    match canonical(ip) {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<Special> {
    let [a, b, c, _] = ip.octets();
    Some(match (a, b, c) {
        (0, ..) => Special::Unspecified,
        (127, ..) => Special::Loopback,
        (10, ..) | (192, 168, _) => Special::Private,
        (172, 16..=31, _) => Special::Private,
        (169, 254, _) => Special::LinkLocal,
        (100, 64..=127, _) => Special::CarrierShared,
        (224..=239, ..) => Special::Multicast,
        _ if ip.is_broadcast() => Special::Multicast,
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => Special::Reserved,
        (198, 18 | 19, _) | (240.., ..) => Special::Reserved,
        _ => return None,
    })
}

fn special_v6(ip: Ipv6Addr) -> Option<Special> {
    let s = ip.segments();
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Special::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Special::Loopback,
        // Addresses with an IPv4 address inside lead where that one leads: IPv4-compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] | [0x2002, hi, lo, ..] => {
            return special_v4(embedded(hi, lo)).or((s[0] == 0).then_some(Special::Reserved));
        }
        // Local-use NAT64 (RFC 8215), Teredo, ORCHID, documentation, discard, segment routing.
        [0x64, 0xff9b, 1, ..] | [0x100, 0, 0, 0, ..] | [0x5f00, ..] | [0x3fff, 0..=0xfff, ..] => {
            Special::Reserved
        }
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => Special::Reserved,
        [0xfe80..=0xfebf, ..] => Special::LinkLocal,
        [0xfec0..=0xfeff, ..] => Special::Private,
        [0xfc00..=0xfdff, ..] => Special::Private,
        [0xff00..=0xffff, ..] => Special::Multicast,
        // Only 2000::/3 is assigned as global unicast.
        [0x2000..=0x3fff, ..] => return None,
        _ => Special::Reserved,
    })
}

fn embedded(hi: u16, lo: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (hi.to_be_bytes(), lo.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

/// A host as written, read as an address or a name and in no third way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host<'a> {
    /// An address in its one canonical notation (IPv6 without brackets).
    Ip(IpAddr),
    /// A name for the resolver.
    Name(&'a str),
}

/// The host is neither a canonical address nor a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host name or an address in canonical notation")]
pub struct InvalidHost;

/// Longest host name (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Longest label of one.
const LABEL_BYTES_MAX: usize = 63;

impl<'a> Host<'a> {
    /// Reads a host, IPv6 addresses with or without brackets. Numbers in other clothes (`0x7f.1`, `0`,
    /// `2130706433`, `127.1`, `010.0.0.1`), which resolvers would happily turn into addresses, are refused
    /// (fault X11).
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(host: &'a str) -> Result<Host<'a>, InvalidHost> {
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidHost)?;
            return inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| InvalidHost);
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Host::Ip(ip));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(InvalidHost);
        }
        let label_is_valid = |label: &str| {
            !label.is_empty()
                && label.len() <= LABEL_BYTES_MAX
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !name.split('.').all(label_is_valid) {
            return Err(InvalidHost);
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        let hexadecimal = last.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
        if last.bytes().all(|b| b.is_ascii_digit()) || hexadecimal {
            return Err(InvalidHost);
        }
        Ok(Host::Name(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault X11: every range that is not the public Internet, from its first to its last address, and the
    /// neighbours that are.
    #[test]
    fn special_ranges_by_their_edges() {
        use Special::{CarrierShared, LinkLocal, Loopback, Multicast, Private, Reserved, Unspecified};
        for (ip, expected) in [
            ("0.0.0.0", Some(Unspecified)),
            ("0.255.255.255", Some(Unspecified)),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Private)),
            ("10.255.255.255", Some(Private)),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some(CarrierShared)),
            ("100.127.255.255", Some(CarrierShared)),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(LinkLocal)),
            ("169.255.0.0", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.0.0.8", Some(Reserved)),
            ("192.0.2.1", Some(Reserved)),
            ("192.168.0.1", Some(Private)),
            ("192.169.0.0", None),
            ("198.18.0.1", Some(Reserved)),
            ("224.0.0.1", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Multicast)),
            ("8.8.8.8", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:10.1.2.3", Some(Private)),
            ("::ffff:8.8.8.8", None),
            ("::7f00:1", Some(Loopback)),
            ("::808:808", Some(Reserved)),
            ("64:ff9b::a9fe:a9fe", Some(LinkLocal)),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::1", Some(Reserved)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:808:808::", None),
            ("2001:0:1::1", Some(Reserved)),
            ("2001:db8::1", Some(Reserved)),
            ("2606:4700::1", None),
            ("fc00::1", Some(Private)),
            ("fd12::1", Some(Private)),
            ("fe80::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("ff02::1", Some(Multicast)),
            ("4000::1", Some(Reserved)),
        ] {
            assert_eq!(special(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    /// Faults X11 and K46: an address in disguise is neither an address nor a name.
    #[test]
    fn hosts_have_one_notation() {
        for (host, ip) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("::1", "::1")] {
            assert_eq!(Host::parse(host), Ok(Host::Ip(ip.parse().unwrap())));
        }
        for name in
            ["localhost", "a.example", "a.example.", "x_y.example", "xn--bcher-kva.example", "1a", "a.b-c"]
        {
            assert_eq!(Host::parse(name), Ok(Host::Name(name)), "{name}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            ".",
            "0",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "1.2.3.4.5",
            "010.0.0.1",
            "127.0.0.1.",
            "256.1.1.1",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a%2fb",
            "a@b",
            "a:80",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[fe80::1%eth0]",
            "bücher.example",
            "a\0b",
            &long,
        ] {
            assert_eq!(Host::parse(bad), Err(InvalidHost), "{bad:?}");
        }
    }
}
