//! Stapled OCSP responses (RFC 6960; RFC 8446 §4.4.2.1): whether a response in a file may be shown with a certificate,
//! and until when. Clients verify its signature; this looks only at what a careless operator or a stopped renewal gets
//! wrong: another certificate, an end that has passed, an answer that is not "good". Nothing is fetched here.

use crate::certificate::{
    CONTEXT_0, ENUMERATED, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, expect,
    next, serial_number, skip, time,
};
use std::path::PathBuf;

/// Longest response that is read. One with its responder's certificate has about 2 KiB.
pub const RESPONSE_BYTES_MAX: u64 = 32 * 1024;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// Tags of `certStatus` (RFC 6960 §4.2.1): good and unknown carry nothing, revoked is made of parts.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const UNKNOWN: u8 = 0x82;

/// Why a response is not stapled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspProblem {
    /// The file cannot be read, in the system's words.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Not an OCSP response with a basic answer in it.
    #[error("it is no OCSP response in DER")]
    Malformed,
    /// The responder refused (RFC 6960 §4.2.1, `responseStatus`).
    #[error("the responder answered with an error ({0})")]
    Refused(u8),
    /// It says nothing about this certificate.
    #[error("it is for another certificate")]
    OtherCertificate,
    /// The certificate has been revoked.
    #[error("it says that the certificate is REVOKED: replace the certificate")]
    Revoked,
    /// The responder does not know the certificate.
    #[error("the responder does not know the certificate")]
    Unknown,
    /// Its time has not come.
    #[error("it holds from a later time on")]
    NotYet,
    /// Its time has passed.
    #[error("it has expired")]
    Expired,
    /// There is no telling when it goes out of date.
    #[error("it does not say until when it holds (nextUpdate)")]
    Endless,
}

/// What became of a file with a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stapling {
    /// The file.
    pub file: PathBuf,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// Until when it is stapled, in seconds since 1970 UTC, or why it is not.
    pub outcome: Result<i64, OcspProblem>,
}

/// The first second at which `response` no longer holds for the certificate `leaf`, both in DER.
///
/// # Errors
/// Why it must not be shown.
pub fn usable_until(response: &[u8], leaf: &[u8], now_unix_s: i64) -> Result<i64, OcspProblem> {
    let serial = serial_number(leaf).ok_or(OcspProblem::OtherCertificate)?;
    let single = find(answers(response)?, serial)?;
    match single.status {
        GOOD => {}
        REVOKED => return Err(OcspProblem::Revoked),
        UNKNOWN => return Err(OcspProblem::Unknown),
        _ => return Err(OcspProblem::Malformed),
    }
    // RFC 6960 §4.2.2.1: not before thisUpdate, not after nextUpdate.
    if single.this_update_unix_s > now_unix_s {
        return Err(OcspProblem::NotYet);
    }
    let end = single.next_update_unix_s.ok_or(OcspProblem::Endless)?;
    if end <= now_unix_s { Err(OcspProblem::Expired) } else { Ok(end) }
}

/// The list `responses` within an OCSPResponse.
fn answers(response: &[u8]) -> Result<&[u8], OcspProblem> {
    let malformed = OcspProblem::Malformed;
    let (content, rest) = expect(response, SEQUENCE).ok_or(malformed.clone())?;
    let (status, bytes) = expect(content, ENUMERATED).ok_or(malformed.clone())?;
    match status {
        [0] if rest.is_empty() => {}
        [refused @ 1..=6] => return Err(OcspProblem::Refused(*refused)),
        _ => return Err(malformed),
    }
    answers_of(bytes).ok_or(malformed)
}

/// Through responseBytes, BasicOCSPResponse and ResponseData to its `responses`.
fn answers_of(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, answer) = expect(expect(expect(bytes, CONTEXT_0)?.0, SEQUENCE)?.0, OBJECT_IDENTIFIER)?;
    if kind != BASIC {
        return None;
    }
    let (basic, _) = expect(expect(answer, OCTET_STRING)?.0, SEQUENCE)?;
    let (data, _) = expect(basic, SEQUENCE)?;
    let data = match next(data)? {
        (CONTEXT_0, _, rest) => rest,
        _ => data,
    };
    // Responder and time of making.
    Some(expect(skip(skip(data)?)?, SEQUENCE)?.0)
}

/// What is said of one certificate.
struct Single {
    status: u8,
    this_update_unix_s: i64,
    next_update_unix_s: Option<i64>,
}

fn find(mut answers: &[u8], serial: &[u8]) -> Result<Single, OcspProblem> {
    while !answers.is_empty() {
        let (answer, rest) = expect(answers, SEQUENCE).ok_or(OcspProblem::Malformed)?;
        let (of, single) = read_single(answer).ok_or(OcspProblem::Malformed)?;
        if of == serial {
            return Ok(single);
        }
        answers = rest;
    }
    Err(OcspProblem::OtherCertificate)
}

fn read_single(answer: &[u8]) -> Option<(&[u8], Single)> {
    let (id, rest) = expect(answer, SEQUENCE)?;
    // Algorithm, hash of the issuer's name, hash of its key.
    let (serial, _) = expect(skip(skip(skip(id)?)?)?, INTEGER)?;
    let (status, _, rest) = next(rest)?;
    let (this_update, rest) = expect(rest, GENERALIZED_TIME)?;
    let next_update_unix_s = match next(rest) {
        Some((CONTEXT_0, content, _)) => Some(time(GENERALIZED_TIME, expect(content, GENERALIZED_TIME)?.0)?),
        _ => None,
    };
    let this_update_unix_s = time(GENERALIZED_TIME, this_update)?;
    Some((serial, Single { status, this_update_unix_s, next_update_unix_s }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    // Made by `openssl ocsp`, for the serial number of `certificate.pem`; the times in them were changed afterwards.
    const GOOD: &[u8] = include_bytes!("ocsp/good.der");
    const REVOKED: &[u8] = include_bytes!("ocsp/revoked.der");
    const UNKNOWN: &[u8] = include_bytes!("ocsp/unknown.der");
    /// Their `thisUpdate`, 2020-01-01, and their `nextUpdate`, 2120-01-01.
    const FROM: i64 = 1_577_836_800;
    const UNTIL: i64 = 4_733_510_400;

    fn leaf() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("certificate.pem")).unwrap()
    }

    fn changed(from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let at = GOOD.windows(from.len()).position(|part| part == from).unwrap();
        [&GOOD[..at], to, &GOOD[at + to.len()..]].concat()
    }

    #[test]
    fn responses_are_shown_for_their_certificate_in_their_time_only() {
        let leaf = leaf();
        let serial = serial_number(&leaf).unwrap();
        let other: Vec<u8> = serial.iter().map(|octet| octet ^ 0x55).collect();
        for (response, now, expected) in [
            (GOOD.to_vec(), FROM, Ok(UNTIL)),
            (GOOD.to_vec(), UNTIL - 1, Ok(UNTIL)),
            (GOOD.to_vec(), FROM - 1, Err(OcspProblem::NotYet)),
            (GOOD.to_vec(), UNTIL, Err(OcspProblem::Expired)),
            (REVOKED.to_vec(), FROM, Err(OcspProblem::Revoked)),
            (UNKNOWN.to_vec(), FROM, Err(OcspProblem::Unknown)),
            (changed(serial, &other), FROM, Err(OcspProblem::OtherCertificate)),
            (changed(b"\xa0\x11\x18\x0f2120", b"\xa1\x11\x18\x0f2120"), FROM, Err(OcspProblem::Endless)),
            (changed(b"\x18\x0f2120", b"\x17\x0f2120"), FROM, Err(OcspProblem::Malformed)),
            (changed(b"2120010100", b"2120130100"), FROM, Err(OcspProblem::Malformed)),
            (changed(BASIC, b"\x2b\x06\x01\x05\x05\x07\x30\x01\x02"), FROM, Err(OcspProblem::Malformed)),
            (b"\x30\x03\x0a\x01\x03".to_vec(), FROM, Err(OcspProblem::Refused(3))),
            (b"\x30\x03\x0a\x01\x00".to_vec(), FROM, Err(OcspProblem::Malformed)),
            ([GOOD, b"\0"].concat(), FROM, Err(OcspProblem::Malformed)),
            (b"-----BEGIN".to_vec(), FROM, Err(OcspProblem::Malformed)),
            (Vec::new(), FROM, Err(OcspProblem::Malformed)),
        ] {
            assert_eq!(usable_until(&response, &leaf, now), expected, "{now} {response:02x?}");
        }
        assert_eq!(usable_until(GOOD, b"no certificate", FROM), Err(OcspProblem::OtherCertificate));
    }

    /// Cut anywhere, or with any octet changed, it is still no reason to fail.
    #[test]
    fn damage_is_refused_or_harmless() {
        let leaf = leaf();
        for at in 0..GOOD.len() {
            assert!(usable_until(&GOOD[..at], &leaf, FROM).is_err(), "{at}");
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut damaged = GOOD.to_vec();
                damaged[at] ^= flip;
                let _ = usable_until(&damaged, &leaf, FROM);
            }
        }
    }
}
