//! What is told of a certificate to people: the names it is for, and when it ends (RFC 5280 §4.1.2.5, §4.2.1.6). Whether it may be
//! trusted is decided by rustls; this only walks to three places of its structure, and gives up where that is not as it
//! should be. The steps of the walk (DER, X.690) serve `ocsp` too.

/// Names told of one certificate.
const NAMES_MAX: usize = 100;

/// What is told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// DNS names and addresses it is for.
    pub names: Vec<String>,
    /// Its last second, in seconds since 1970 UTC.
    pub not_after_unix_s: i64,
}

pub(crate) const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const ENUMERATED: u8 = 0x0a;
/// `[0] EXPLICIT`: the version of a certificate, and more elsewhere.
pub(crate) const CONTEXT_0: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

impl Facts {
    /// Of a certificate in DER.
    pub fn of(der: &[u8]) -> Option<Facts> {
        // Serial number, signature algorithm, issuer.
        let rest = skip(skip(skip(from_serial_number(der)?)?)?)?;
        let (validity, rest) = expect(rest, SEQUENCE)?;
        let (tag, not_after, _) = next(skip(validity)?)?;
        let not_after_unix_s = time(tag, not_after)?;
        // Subject, public key; then what is optional.
        let mut rest = skip(skip(rest)?)?;
        let mut names = Vec::new();
        while let Some((tag, content, after)) = next(rest) {
            if tag == EXTENSIONS {
                names = alternative_names(content).unwrap_or_default();
            }
            rest = after;
        }
        Some(Facts { names, not_after_unix_s })
    }
}

/// The serial number of a certificate in DER, as it is encoded.
pub(crate) fn serial_number(der: &[u8]) -> Option<&[u8]> {
    Some(expect(from_serial_number(der)?, INTEGER)?.0)
}

/// What a certificate says, from its serial number on.
fn from_serial_number(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (to_be_signed, _) = expect(certificate, SEQUENCE)?;
    Some(match next(to_be_signed)? {
        (CONTEXT_0, _, rest) => rest,
        _ => to_be_signed,
    })
}

/// The next element: its tag, its content, and what comes after it.
pub(crate) fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

pub(crate) fn expect(der: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = next(der)?;
    (tag == expected).then_some((content, rest))
}

pub(crate) fn skip(der: &[u8]) -> Option<&[u8]> {
    next(der).map(|(_, _, rest)| rest)
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let (mut extensions, _) = expect(extensions, SEQUENCE)?;
    while let Some((extension, rest)) = expect(extensions, SEQUENCE) {
        let (identifier, mut value) = expect(extension, OBJECT_IDENTIFIER)?;
        if identifier == SUBJECT_ALT_NAME {
            // Whether it is critical stands before it, perhaps.
            if let Some((tag, _, rest)) = next(value)
                && tag != OCTET_STRING
            {
                value = rest;
            }
            let (mut members, _) = expect(expect(value, OCTET_STRING)?.0, SEQUENCE)?;
            let mut names = Vec::new();
            while let Some((tag, content, rest)) = next(members) {
                match (tag, content.len()) {
                    (DNS_NAME, _) => names.push(String::from_utf8_lossy(content).into_owned()),
                    (IP_ADDRESS, 4) => {
                        names.push(std::net::IpAddr::from(<[u8; 4]>::try_from(content).ok()?).to_string());
                    }
                    (IP_ADDRESS, 16) => {
                        names.push(std::net::IpAddr::from(<[u8; 16]>::try_from(content).ok()?).to_string());
                    }
                    _ => {}
                }
                if names.len() == NAMES_MAX {
                    break;
                }
                members = rest;
            }
            return Some(names);
        }
        extensions = rest;
    }
    None
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` in seconds since 1970.
pub(crate) fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |octets: &[u8]| octets.iter().fold(0i64, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        // RFC 5280 §4.1.2.5.1
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 0..50 => (2000 + year, &digits[2..]),
            year => (1900 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 of a date of the Gregorian calendar, counted in years that begin with March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
        - 1
        - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn times() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20000229120000Z", Some(951_825_600)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "700101000000+0100", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "70010100000xZ", None),
            (GENERALIZED_TIME, "700101000000Z", None),
            (OCTET_STRING, "700101000000Z", None),
        ] {
            assert_eq!(time(tag, text.as_bytes()), expected, "{text}");
        }
    }

    /// Made by OpenSSL: `openssl req -x509 -addext subjectAltName=DNS:a.example,DNS:*.b.example,IP:127.0.0.1,IP:::1`.
    #[test]
    fn of_a_certificate_of_openssl() {
        let der = CertificateDer::from_pem_slice(include_bytes!("certificate.pem")).unwrap();
        let facts = Facts::of(&der).unwrap();
        assert_eq!(facts.names, ["a.example", "*.b.example", "127.0.0.1", "::1"]);
        assert_eq!(facts.not_after_unix_s, 1_827_101_503);
        // Cut anywhere, or with any octet changed, it is still no reason to fail.
        for at in 0..der.len() {
            let _ = Facts::of(&der[..at]);
            let mut changed = der.to_vec();
            changed[at] ^= 0x80;
            let _ = Facts::of(&changed);
        }
        assert_eq!(Facts::of(b""), None);
    }
}
