//! The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020-03-05): who a connection was made by,
//! said by a relay before the first byte. Reading is strict: every length must agree, every number has one
//! notation, and what does not fit is an error, never "no header" (fault X09).
//!
//! Whom to believe is not decided here: a listener reads a header only where it is configured to and only from
//! trusted peers, and then demands one.

use crate::stream::Stream;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, with its CRLF (§2.1).
const V1_BYTES_MAX: usize = 107;
/// Shortest header of version 1 (`PROXY UNKNOWN` CRLF); one octet less than the fixed part of version 2.
const V1_BYTES_MIN: usize = 15;
const V2_FIXED_BYTES: usize = 16;
/// Address part and TLVs of version 2 that are read at most; the format allows 64 KiB, nobody sends that.
const V2_VARIABLE_BYTES_MAX: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Header {
    /// The relay speaks for itself (health check), or does not know: the connection's own addresses count.
    Local,
    /// The connection was made from `source` to `destination`.
    Proxied {
        /// Of the client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// Which version to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Invalid {
    /// It begins as neither version does.
    #[error("the connection does not begin with a PROXY protocol header")]
    Signature,
    /// The line of version 1 is too long or does not end in CRLF.
    #[error("PROXY v1 line is not ended by CRLF within {V1_BYTES_MAX} octets")]
    Line,
    /// The line of version 1 is not of its grammar.
    #[error("PROXY v1 line is malformed")]
    Grammar,
    /// Version, command, family or protocol of version 2 is not one of the specification's.
    #[error("PROXY v2 header has an unknown version, command, family or protocol")]
    Code,
    /// The lengths of version 2 do not agree with each other, or with the family.
    #[error("PROXY v2 header has lengths that do not agree")]
    Length,
}

/// Result of looking at the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Not all there; at least so many more octets belong to it.
    Incomplete(usize),
    /// A header of so many octets.
    Complete(Header, usize),
}

/// Reads a header off the front of `bytes`.
///
/// # Errors
/// See [`Invalid`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let begins_as = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    if bytes.is_empty() {
        Ok(Parsed::Incomplete(V1_BYTES_MIN))
    } else if begins_as(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins_as(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(Invalid::Signature)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let limit = bytes.len().min(V1_BYTES_MAX);
    let Some(end) = bytes[..limit].iter().position(|&b| b == b'\n') else {
        if bytes.len() >= V1_BYTES_MAX {
            return Err(Invalid::Line);
        }
        // CR at the end wants one more octet, anything else at least two.
        let more = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
        return Ok(Parsed::Incomplete(more.max(V1_BYTES_MIN.saturating_sub(bytes.len()))));
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Invalid::Line)?;
    let text = std::str::from_utf8(line).map_err(|_| Invalid::Grammar)?;
    let mut words = text.split(' ').skip(1);
    let header = match words.next() {
        // The rest of the line is to be ignored (§2.1).
        Some("UNKNOWN") => Header::Local,
        Some("TCP4") => v1_addresses(words, |ip| ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?,
        Some("TCP6") => v1_addresses(words, |ip| ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?,
        _ => return Err(Invalid::Grammar),
    };
    Ok(Parsed::Complete(header, end + 1))
}

fn v1_addresses<'a>(
    mut words: impl Iterator<Item = &'a str>,
    ip: impl Fn(&str) -> Option<IpAddr>,
) -> Result<Header, Invalid> {
    let mut next = || words.next().ok_or(Invalid::Grammar);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if words.next().is_some() {
        return Err(Invalid::Grammar);
    }
    let address = |text: &str, port: &str| Some(SocketAddr::new(ip(text)?, v1_port(port)?));
    Ok(Header::Proxied {
        source: address(source, source_port).ok_or(Invalid::Grammar)?,
        destination: address(destination, destination_port).ok_or(Invalid::Grammar)?,
    })
}

/// `0` to `65535`, without sign or leading zero (§2.1).
fn v1_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Invalid> {
    if bytes.len() < V2_FIXED_BYTES {
        return Ok(Parsed::Incomplete(V2_FIXED_BYTES - bytes.len()));
    }
    let (command, family) = (bytes[12], bytes[13]);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > V2_VARIABLE_BYTES_MAX {
        return Err(Invalid::Length);
    }
    if command & 0xf0 != 0x20 || command & 0x0f > 1 || family & 0x0f > 2 || family >> 4 > 3 {
        return Err(Invalid::Code);
    }
    let total = V2_FIXED_BYTES + length;
    let Some(variable) = bytes.get(V2_FIXED_BYTES..total) else {
        return Ok(Parsed::Incomplete(total - bytes.len()));
    };
    let address_bytes = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let local = command & 0x0f == 0;
    if length < address_bytes && !local {
        return Err(Invalid::Length);
    }
    // A relay that speaks for itself may send an address part or none; what follows must still fit.
    check_tlvs(variable.get(address_bytes..).unwrap_or(&[]))?;
    let header = match family {
        _ if local => Header::Local,
        // TCP over IPv4 and IPv6. Datagrams are not connections; Unix sockets have no address of use.
        0x11 => proxied::<4>(variable, |octets| Ipv4Addr::from(octets).into()),
        0x21 => proxied::<16>(variable, |octets| Ipv6Addr::from(octets).into()),
        0x00 | 0x31 => Header::Local,
        _ => return Err(Invalid::Code),
    };
    Ok(Parsed::Complete(header, total))
}

fn proxied<const N: usize>(variable: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Header {
    let address = |at: usize, port_at: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&variable[at..at + N]);
        SocketAddr::new(ip(octets), u16::from_be_bytes([variable[port_at], variable[port_at + 1]]))
    };
    Header::Proxied { source: address(0, 2 * N), destination: address(N, 2 * N + 2) }
}

/// Type, length, value; and the lengths must come out even (§2.2).
fn check_tlvs(mut bytes: &[u8]) -> Result<(), Invalid> {
    while let [_, hi, lo, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        bytes = rest.get(length..).ok_or(Invalid::Length)?;
    }
    if bytes.is_empty() { Ok(()) } else { Err(Invalid::Length) }
}

/// Reads a header from a connection, and not one octet more. The caller sets the deadline.
///
/// # Errors
/// `InvalidData` with [`Invalid`] inside, `UnexpectedEof`, and any error of the transport.
pub async fn read(stream: &mut Stream) -> io::Result<Header> {
    let mut bytes = vec![0; V1_BYTES_MIN];
    let mut count = 0;
    loop {
        while count < bytes.len() {
            match stream.read(&mut bytes[count..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => count += read,
            }
        }
        match parse(&bytes) {
            Ok(Parsed::Complete(header, _)) => return Ok(header),
            Ok(Parsed::Incomplete(more)) => bytes.resize(count + more, 0),
            Err(invalid) => return Err(io::Error::new(io::ErrorKind::InvalidData, invalid)),
        }
    }
}

/// Appends a header. Addresses of different families are both written as IPv6.
pub fn write(out: &mut Vec<u8>, version: Version, header: &Header) {
    match version {
        Version::V1 => write_v1(out, header),
        Version::V2 => write_v2(out, header),
    }
}

fn same_family(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        v6 => v6,
    };
    let (s, d) = (source.ip().to_canonical(), destination.ip().to_canonical());
    if s.is_ipv4() == d.is_ipv4() { (s, d) } else { (v6(s), v6(d)) }
}

fn write_v1(out: &mut Vec<u8>, header: &Header) {
    match header {
        Header::Local => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        Header::Proxied { source, destination } => {
            let (s, d) = same_family(*source, *destination);
            let family = if s.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {s} {d} {} {}\r\n", source.port(), destination.port());
            out.extend_from_slice(line.as_bytes());
        }
    }
}

fn write_v2(out: &mut Vec<u8>, header: &Header) {
    out.extend_from_slice(V2_SIGNATURE);
    match header {
        Header::Local => out.extend_from_slice(&[0x20, 0, 0, 0]),
        Header::Proxied { source, destination } => {
            match same_family(*source, *destination) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&s.octets());
                    out.extend_from_slice(&d.octets());
                }
                (s, d) => {
                    let octets = |ip: IpAddr| match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                        IpAddr::V6(ip) => ip.octets(),
                    };
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&octets(s));
                    out.extend_from_slice(&octets(d));
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Link, duplex};

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = (variable.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, variable].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187];

    #[test]
    fn headers_are_read_and_the_octets_after_them_left() {
        let v4 = proxied("192.0.2.1:80", "192.0.2.2:443");
        let mut v6_addresses = [0u8; 36];
        (v6_addresses[15], v6_addresses[31], v6_addresses[33]) = (1, 2, 9);
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 80 443\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n".to_vec(), proxied("[2001:db8::1]:65535", "[::1]:0")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
            (b"PROXY UNKNOWN ffff::1 whatever \x7f\r\n".to_vec(), Header::Local),
            (v2(0x21, 0x11, &V4), v4),
            (v2(0x21, 0x11, &[&V4[..], &[1, 0, 2, 7, 7, 4, 0, 0]].concat()), v4),
            (v2(0x21, 0x21, &v6_addresses), proxied("[::1]:9", "[::2]:0")),
            (v2(0x20, 0x00, &[]), Header::Local),
            (v2(0x20, 0x11, &V4), Header::Local),
            (v2(0x21, 0x00, &[]), Header::Local),
            (v2(0x21, 0x31, &[0; 216]), Header::Local),
        ] {
            let mut followed = bytes.clone();
            followed.extend_from_slice(b"GET / HTTP/1.1\r\n");
            assert_eq!(
                parse(&followed),
                Ok(Parsed::Complete(expected, bytes.len())),
                "{}",
                bytes.escape_ascii()
            );
            // Every shorter piece asks for more, and never for more than there is.
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(Parsed::Incomplete(more)) => assert!(more > 0 && cut + more <= bytes.len()),
                    other => panic!("{} at {cut}: {other:?}", bytes.escape_ascii()),
                }
            }
        }
    }

    /// Fault X09.
    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Invalid::Signature),
            (b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), Invalid::Signature),
            (b"\r\n\r\n\0\r\nQUIX\n".to_vec(), Invalid::Signature),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 80 443\n".to_vec(), Invalid::Line),
            (long.into_bytes(), Invalid::Line),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 80\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 80 443 \r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4  192.0.2.1 192.0.2.2 80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 ::1 ::1 80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP6 192.0.2.1 192.0.2.2 80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 192.0.2.01 192.0.2.2 80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 080 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP5 192.0.2.1 192.0.2.2 80 443\r\n".to_vec(), Invalid::Grammar),
            (b"PROXY TCP4 \xff 192.0.2.2 80 443\r\n".to_vec(), Invalid::Grammar),
            (v2(0x11, 0x11, &V4), Invalid::Code),
            (v2(0x22, 0x11, &V4), Invalid::Code),
            (v2(0x21, 0x41, &V4), Invalid::Code),
            (v2(0x21, 0x13, &V4), Invalid::Code),
            (v2(0x21, 0x12, &V4), Invalid::Code),
            (v2(0x21, 0x11, &V4[..11]), Invalid::Length),
            (v2(0x21, 0x21, &V4), Invalid::Length),
            (v2(0x21, 0x11, &[&V4[..], &[4, 0]].concat()), Invalid::Length),
            (v2(0x21, 0x11, &[&V4[..], &[4, 0, 9, 1]].concat()), Invalid::Length),
            (v2(0x21, 0x11, &vec![0; 5000]), Invalid::Length),
        ] {
            assert_eq!(parse(&bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for header in [
            Header::Local,
            proxied("192.0.2.1:80", "192.0.2.2:443"),
            proxied("[2001:db8::1]:1", "[2001:db8::2]:2"),
        ] {
            for version in [Version::V1, Version::V2] {
                let mut out = Vec::new();
                write(&mut out, version, &header);
                assert_eq!(parse(&out), Ok(Parsed::Complete(header, out.len())));
            }
        }
        let mut out = Vec::new();
        write(&mut out, Version::V1, &proxied("192.0.2.1:80", "[2001:db8::2]:2"));
        assert_eq!(out, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 80 2\r\n");
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn reading_takes_the_header_and_nothing_behind_it() {
        let header = proxied("192.0.2.1:80", "192.0.2.2:443");
        for version in [Version::V1, Version::V2] {
            for seed in 0..20 {
                let (a, b) = duplex(seed, Link::rough(), Link::rough());
                let (mut a, mut b) = (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)));
                let mut out = Vec::new();
                write(&mut out, version, &header);
                out.extend_from_slice(b"GET");
                a.write_all(&out).await.unwrap();
                assert_eq!(read(&mut b).await.unwrap(), header);
                let (mut rest, mut buffer) = (Vec::new(), [0; 9]);
                while rest.len() < 3 {
                    let count = b.read(&mut buffer).await.unwrap();
                    rest.extend_from_slice(&buffer[..count]);
                }
                assert_eq!(rest, b"GET");
            }
        }
        let (a, b) = duplex(1, Link::default(), Link::default());
        let (mut a, mut b) = (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)));
        a.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(read(&mut b).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
