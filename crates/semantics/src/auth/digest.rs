//! The Digest scheme (RFC 7616): a user agent's answer to a challenge, and a server's check of one. MD5, SHA-256 and
//! SHA-512-256, each also as `-sess`; quality of protection `auth`, or none as RFC 2069 had it (answered by a user
//! agent only with MD5, never offered by a server). A name goes hashed where a server supports that (`userhash`).
//!
//! Randomness (cnonce, nonces) and times come in as arguments. `auth-int` is not done: a challenge that allows
//! nothing else is [`Unanswerable`]. Servers here do not ask for hashed names.

use super::{Auth, constant_time_eq};
use crate::grammar::{decimal, hex_digit, list, push_quoted};
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

/// Which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5: still what most servers ask for.
    Md5,
    /// MD5 over a session.
    Md5Sess,
    /// SHA-256.
    Sha256,
    /// SHA-256 over a session.
    Sha256Sess,
    /// SHA-512 cut to 256 bits.
    Sha512Cut,
    /// The same over a session.
    Sha512CutSess,
}

impl Algorithm {
    /// The algorithm of this name, in any case.
    pub fn from_bytes(name: &[u8]) -> Option<Algorithm> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"md5" => Algorithm::Md5,
            b"md5-sess" => Algorithm::Md5Sess,
            b"sha-256" => Algorithm::Sha256,
            b"sha-256-sess" => Algorithm::Sha256Sess,
            b"sha-512-256" => Algorithm::Sha512Cut,
            b"sha-512-256-sess" => Algorithm::Sha512CutSess,
            _ => return None,
        })
    }

    /// As written in a field.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Md5Sess => "MD5-sess",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha256Sess => "SHA-256-sess",
            Algorithm::Sha512Cut => "SHA-512-256",
            Algorithm::Sha512CutSess => "SHA-512-256-sess",
        }
    }

    /// One of the SHA-2 ones.
    pub fn is_sha(self) -> bool {
        self.without_session() != Algorithm::Md5
    }

    fn is_session(self) -> bool {
        self.without_session() != self
    }

    /// The hash alone.
    fn without_session(self) -> Algorithm {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => Algorithm::Md5,
            Algorithm::Sha256 | Algorithm::Sha256Sess => Algorithm::Sha256,
            Algorithm::Sha512Cut | Algorithm::Sha512CutSess => Algorithm::Sha512Cut,
        }
    }

    /// The hash of all parts joined by colons, in lower-case hexadecimal.
    pub fn hash(self, parts: &[&[u8]]) -> String {
        let joined = parts.join(&b':');
        match self.without_session() {
            Algorithm::Sha256 => hex(&Sha256::digest(&joined)),
            Algorithm::Sha512Cut => hex(&Sha512_256::digest(&joined)),
            _ => hex(&Md5::digest(&joined)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [HEX[(b >> 4) as usize], HEX[(b & 15) as usize]]).map(char::from).collect()
}

/// A challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: Vec<u8>,
    /// The server's nonce.
    pub nonce: Vec<u8>,
    /// Returned as it came.
    pub opaque: Option<Vec<u8>>,
    /// Which hash.
    pub algorithm: Algorithm,
    /// Whether `qop=auth` is offered. Without it the old form of RFC 2069 is used.
    pub qop_auth: bool,
    /// The former nonce was too old, not the password wrong: answer without asking anybody.
    pub stale: bool,
    /// The server takes the hash of a user's name instead of the name.
    pub userhash: bool,
}

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswerable {
    /// Another scheme.
    Scheme,
    /// No realm or no nonce.
    Incomplete,
    /// An algorithm that is not known here.
    Algorithm,
    /// Only qualities of protection that are not known here.
    Qop,
    /// A nonce, realm or opaque longer than 4 KiB.
    TooLong,
}

impl Challenge {
    /// Reads a Digest challenge.
    ///
    /// # Errors
    /// Why it cannot be answered.
    pub fn read(auth: &Auth) -> Result<Challenge, Unanswerable> {
        if auth.scheme != "digest" {
            return Err(Unanswerable::Scheme);
        }
        let realm = auth.parameter("realm").ok_or(Unanswerable::Incomplete)?;
        let nonce = auth.parameter("nonce").filter(|n| !n.is_empty()).ok_or(Unanswerable::Incomplete)?;
        let opaque = auth.parameter("opaque");
        if [Some(realm), Some(nonce), opaque].into_iter().flatten().any(|text| text.len() > 4096) {
            return Err(Unanswerable::TooLong);
        }
        let algorithm = match auth.parameter("algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::from_bytes(name).ok_or(Unanswerable::Algorithm)?,
        };
        let qop_auth = match auth.parameter("qop") {
            None if algorithm == Algorithm::Md5 => false,
            None => return Err(Unanswerable::Qop),
            Some(offered) if list(offered).any(|q| q.eq_ignore_ascii_case(b"auth")) => true,
            Some(_) => return Err(Unanswerable::Qop),
        };
        Ok(Challenge {
            realm: realm.to_vec(),
            nonce: nonce.to_vec(),
            opaque: opaque.map(<[u8]>::to_vec),
            algorithm,
            qop_auth,
            stale: auth.parameter("stale").is_some_and(|s| s.eq_ignore_ascii_case(b"true")),
            userhash: auth.parameter("userhash").is_some_and(|s| s.eq_ignore_ascii_case(b"true")),
        })
    }

    /// The value of Authorization that answers it. `count` is how often this nonce was used, from 1; `cnonce`
    /// is fresh randomness, as text that a quoted string may hold.
    pub fn answer(
        &self,
        user: &[u8],
        password: &[u8],
        method: &str,
        target: &str,
        count: u32,
        cnonce: &str,
    ) -> Vec<u8> {
        let count = format!("{count:08x}");
        let a1 = secret_hash(self.algorithm, user, &self.realm, password, &self.nonce, cnonce.as_bytes());
        let a2 = self.algorithm.hash(&[method.as_bytes(), target.as_bytes()]);
        let response = if self.qop_auth {
            let parts: [&[u8]; 6] =
                [a1.as_bytes(), &self.nonce, count.as_bytes(), cnonce.as_bytes(), b"auth", a2.as_bytes()];
            self.algorithm.hash(&parts)
        } else {
            self.algorithm.hash(&[a1.as_bytes(), &self.nonce, a2.as_bytes()])
        };
        let mut out = b"Digest username=".to_vec();
        if self.userhash {
            push_quoted(&mut out, self.algorithm.hash(&[user, &self.realm]).as_bytes()); // RFC 7616 §3.4.4
        } else {
            push_quoted(&mut out, user);
        }
        let mut quoted = |name: &str, value: &[u8]| {
            out.extend_from_slice(b", ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            push_quoted(&mut out, value);
        };
        quoted("realm", &self.realm);
        quoted("nonce", &self.nonce);
        quoted("uri", target.as_bytes());
        quoted("response", response.as_bytes());
        if let Some(opaque) = &self.opaque {
            quoted("opaque", opaque);
        }
        if self.qop_auth {
            quoted("cnonce", cnonce.as_bytes());
        }
        // RFC 7616 §3.4: algorithm, qop and nc are not quoted.
        out.extend_from_slice(format!(", algorithm={}", self.algorithm.name()).as_bytes());
        if self.qop_auth {
            out.extend_from_slice(format!(", qop=auth, nc={count}").as_bytes());
        }
        if self.userhash {
            out.extend_from_slice(b", userhash=true");
        }
        out
    }
}

/// H(A1) of RFC 7616 §3.4.2.
fn secret_hash(
    algorithm: Algorithm,
    user: &[u8],
    realm: &[u8],
    password: &[u8],
    nonce: &[u8],
    cnonce: &[u8],
) -> String {
    let plain = algorithm.hash(&[user, realm, password]);
    if algorithm.is_session() { algorithm.hash(&[plain.as_bytes(), nonce, cnonce]) } else { plain }
}

/// What a server asks with (its realm, a nonce, one algorithm): the value of WWW-Authenticate.
pub fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> Vec<u8> {
    let mut out = b"Digest realm=".to_vec();
    push_quoted(&mut out, realm.as_bytes());
    out.extend_from_slice(b", nonce=");
    push_quoted(&mut out, nonce.as_bytes());
    out.extend_from_slice(b", qop=\"auth\", algorithm=");
    out.extend_from_slice(algorithm.name().as_bytes());
    out.extend_from_slice(b", charset=UTF-8");
    if stale {
        out.extend_from_slice(b", stale=true");
    }
    out
}

/// A user's secret as a server keeps it: H(user:realm:password) of the algorithm's hash, in hexadecimal.
#[derive(Debug, Clone, Copy)]
pub struct Secret<'a> {
    /// Which hash it was made with.
    pub algorithm: Algorithm,
    /// 32 or 64 hexadecimal digits.
    pub hash: &'a str,
}

/// A Digest response as a server received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The user it claims to be.
    pub user: Vec<u8>,
    /// The realm it was made for.
    pub realm: Vec<u8>,
    /// The nonce it answers.
    pub nonce: Vec<u8>,
    /// The target it was made for; must be the request's own, or it was stolen from another request.
    pub target: Vec<u8>,
    /// How often the nonce was used. The caller keeps the highest and refuses what is not above it.
    pub count: u32,
    algorithm: Algorithm,
    cnonce: Vec<u8>,
    count_text: Vec<u8>,
    response: Vec<u8>,
}

/// Why Digest credentials are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not Digest, a part is missing, or malformed: 400.
    Malformed,
    /// Made for another target than this request's: 400 (RFC 7616 §3.4.6).
    OtherTarget,
    /// Another realm, algorithm, user or password: 401.
    Wrong,
}

impl Response {
    /// Reads Digest credentials. Only `qop=auth` is taken.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn read(auth: &Auth) -> Result<Response, Refused> {
        let get = |name| auth.parameter(name).ok_or(Refused::Malformed);
        if auth.scheme != "digest" || !get("qop")?.eq_ignore_ascii_case(b"auth") {
            return Err(Refused::Malformed);
        }
        let count_text = get("nc")?;
        if count_text.len() != 8 {
            return Err(Refused::Malformed);
        }
        let mut count = 0u32;
        for &b in count_text {
            count = count << 4 | u32::from(hex_digit(b).ok_or(Refused::Malformed)?);
        }
        let algorithm = match auth.parameter("algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::from_bytes(name).ok_or(Refused::Malformed)?,
        };
        Ok(Response {
            user: get("username")?.to_vec(),
            realm: get("realm")?.to_vec(),
            nonce: get("nonce")?.to_vec(),
            target: get("uri")?.to_vec(),
            count,
            algorithm,
            cnonce: get("cnonce")?.to_vec(),
            count_text: count_text.to_vec(),
            response: get("response")?.to_vec(),
        })
    }

    /// Checks it against a stored secret. Takes as long for a wrong response as for a right one; for an unknown
    /// user, check against a dummy secret.
    ///
    /// # Errors
    /// Why it is refused. Nonce age and count are the caller's to judge, by [`nonce_age`] and `count`.
    pub fn check(
        &self,
        secret: Secret<'_>,
        realm: &[u8],
        method: &str,
        target: &[u8],
    ) -> Result<(), Refused> {
        if self.target != target {
            return Err(Refused::OtherTarget);
        }
        let same_hash = self.algorithm.without_session() == secret.algorithm.without_session();
        let plain = secret.hash.to_ascii_lowercase();
        let a1 = if self.algorithm.is_session() {
            self.algorithm.hash(&[plain.as_bytes(), &self.nonce, &self.cnonce])
        } else {
            plain
        };
        let a2 = self.algorithm.hash(&[method.as_bytes(), target]);
        let parts: [&[u8]; 6] =
            [a1.as_bytes(), &self.nonce, &self.count_text, &self.cnonce, b"auth", a2.as_bytes()];
        let expected = self.algorithm.hash(&parts);
        let right = constant_time_eq(expected.as_bytes(), &self.response.to_ascii_lowercase());
        if right && same_hash && self.realm == realm { Ok(()) } else { Err(Refused::Wrong) }
    }
}

/// A nonce that needs no table: the time in seconds, a number that no other nonce of this second has, and a hash that only
/// the holder of `secret` can make. Two clients must never share one: each counts its own requests (RFC 7616 §3.3).
pub fn make_nonce(secret: &[u8; 32], now: i64, serial: u64) -> String {
    let message = format!("{now}.{serial:x}");
    format!("{message}-{}", nonce_mac(secret, message.as_bytes()))
}

/// Age of an own nonce in seconds; `None` for one that is not ours.
pub fn nonce_age(nonce: &[u8], secret: &[u8; 32], now: i64) -> Option<i64> {
    let at = memchr::memchr(b'-', nonce)?;
    let (message, mac) = (&nonce[..at], &nonce[at + 1..]);
    if !constant_time_eq(nonce_mac(secret, message).as_bytes(), mac) {
        return None;
    }
    let time = &message[..memchr::memchr(b'.', message)?];
    Some(now - i64::try_from(decimal(time)?).ok()?)
}

/// HMAC-SHA-256 (RFC 2104) with a key shorter than a block.
fn nonce_mac(secret: &[u8; 32], message: &[u8]) -> String {
    let pad = |octet: u8| {
        let mut block = [octet; 64];
        block.iter_mut().zip(secret).for_each(|(b, s)| *b ^= s);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    hex(&Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    fn read(value: &str) -> Result<Challenge, Unanswerable> {
        Challenge::read(&Auth::credentials(value.as_bytes()).unwrap())
    }

    /// RFC 7616 §3.9.1: the example, both algorithms.
    #[test]
    fn the_example_of_the_rfc() {
        for (algorithm, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let challenge = read(&format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"{NONCE}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            ))
            .unwrap();
            let value = challenge.answer(b"Mufasa", b"Circle of Life", "GET", "/dir/index.html", 1, CNONCE);
            let text = String::from_utf8(value.clone()).unwrap();
            assert!(text.contains(&format!("response=\"{expected}\"")), "{text}");
            assert!(text.contains("nc=00000001") && text.contains("qop=auth,"), "{text}");
            let response = Response::read(&Auth::credentials(&value).unwrap()).unwrap();
            let algorithm = challenge.algorithm;
            let hash = algorithm.hash(&[b"Mufasa", b"http-auth@example.org", b"Circle of Life"]);
            let secret = Secret { algorithm, hash: &hash };
            let realm = b"http-auth@example.org";
            assert_eq!(response.check(secret, realm, "GET", b"/dir/index.html"), Ok(()));
            assert_eq!(response.check(secret, realm, "PUT", b"/dir/index.html"), Err(Refused::Wrong));
            assert_eq!(response.check(secret, b"other", "GET", b"/dir/index.html"), Err(Refused::Wrong));
            assert_eq!(response.check(secret, realm, "GET", b"/other"), Err(Refused::OtherTarget));
            let wrong = Secret { algorithm, hash: &algorithm.hash(&[b"x"]) };
            assert_eq!(response.check(wrong, realm, "GET", b"/dir/index.html"), Err(Refused::Wrong));
        }
    }

    /// RFC 7616 §3.9.2: hashed name, SHA-512-256. The RFC prints values that were made with another hash by mistake;
    /// these come from OpenSSL.
    #[test]
    fn a_hashed_name() {
        let challenge = read(
            "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
             nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", charset=UTF-8, userhash=true",
        )
        .unwrap();
        let name = "J\u{e4}s\u{f8}n Doe".as_bytes();
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm";
        let value = challenge.answer(name, b"Secret, or not?", "GET", "/doe.json", 1, cnonce);
        let text = String::from_utf8(value).unwrap();
        for part in [
            "username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\"",
            "response=\"7a4e1192babbba02e91182d2895bfdbf7adafc6e48d4e517ca301974843d840c\"",
            "algorithm=SHA-512-256,",
            "userhash=true",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// RFC 2617 §3.5, and RFC 2069's form without quality of protection.
    #[test]
    fn the_older_forms() {
        let challenge = read(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        )
        .unwrap();
        let value = challenge.answer(b"Mufasa", b"Circle Of Life", "GET", "/dir/index.html", 1, "0a4f113b");
        assert!(String::from_utf8(value).unwrap().contains("response=\"6629fae49393a05397450978507c4ef1\""));
        let old = read("Digest realm=\"r\", nonce=\"n\"").unwrap();
        let text = String::from_utf8(old.answer(b"u", b"p", "GET", "/", 1, "c")).unwrap();
        assert!(!text.contains("cnonce") && !text.contains("nc="), "{text}");
        assert!(
            Response::read(&Auth::credentials(text.as_bytes()).unwrap()).is_err(),
            "a server takes it not"
        );
    }

    #[test]
    fn sessions_round_trip() {
        for algorithm in
            [Algorithm::Md5Sess, Algorithm::Sha256Sess, Algorithm::Sha512Cut, Algorithm::Sha512CutSess]
        {
            let value = super::challenge("r", "n", algorithm, true);
            let challenge = Challenge::read(&Auth::credentials(&value).unwrap()).unwrap();
            assert!(challenge.stale && challenge.algorithm == algorithm);
            let answer = challenge.answer(b"u\"v", b"p", "GET", "/", 0xabc, "c");
            let response = Response::read(&Auth::credentials(&answer).unwrap()).unwrap();
            assert_eq!((response.count, response.user.as_slice()), (0xabc, &b"u\"v"[..]));
            let hash = algorithm.hash(&[b"u\"v", b"r", b"p"]);
            assert_eq!(response.check(Secret { algorithm, hash: &hash }, b"r", "GET", b"/"), Ok(()));
        }
    }

    #[test]
    fn challenges_and_responses_refused() {
        for (value, expected) in [
            ("Basic realm=x", Unanswerable::Scheme),
            ("Digest nonce=n", Unanswerable::Incomplete),
            ("Digest realm=r", Unanswerable::Incomplete),
            ("Digest realm=r, nonce=\"\"", Unanswerable::Incomplete),
            ("Digest realm=r, nonce=n, algorithm=SHA-512-256", Unanswerable::Qop),
            ("Digest realm=r, nonce=n, qop=auth, algorithm=SHA-1", Unanswerable::Algorithm),
            ("Digest realm=r, nonce=n, qop=auth-int", Unanswerable::Qop),
            ("Digest realm=r, nonce=n, algorithm=SHA-256", Unanswerable::Qop),
        ] {
            assert_eq!(read(value).unwrap_err(), expected, "{value}");
        }
        let long = format!("Digest realm=r, nonce=\"{}\"", "n".repeat(5000));
        assert_eq!(read(&long).unwrap_err(), Unanswerable::TooLong);
        let good =
            "Digest username=u, realm=r, nonce=n, uri=\"/\", cnonce=c, qop=auth, nc=00000001, response=x";
        assert!(Response::read(&Auth::credentials(good.as_bytes()).unwrap()).is_ok());
        for bad in ["nc=1", "nc=0000000g", "nc=000000001", "qop=auth-int", "algorithm=SHA-1", "nc=+0000001"] {
            let name = bad.split('=').next().unwrap();
            let mut parts: Vec<&str> =
                good.split(", ").filter(|p| !p.starts_with(&format!("{name}="))).collect();
            parts.push(bad);
            let auth = Auth::credentials(parts.join(", ").as_bytes()).unwrap();
            assert_eq!(Response::read(&auth).unwrap_err(), Refused::Malformed, "{bad}");
        }
    }

    #[test]
    fn nonces_prove_themselves() {
        let (secret, other) = ([7u8; 32], [8u8; 32]);
        assert_ne!(make_nonce(&secret, 1000, 1), make_nonce(&secret, 1000, 2));
        let nonce = make_nonce(&secret, 1000, 1);
        assert_eq!(nonce_age(nonce.as_bytes(), &secret, 1060), Some(60));
        assert_eq!(nonce_age(nonce.as_bytes(), &other, 1060), None);
        let forged = nonce.replacen("1000", "2000", 1);
        for bad in [forged.as_bytes(), b"", b"1000", b"1000-", b"x-y"] {
            assert_eq!(nonce_age(bad, &secret, 1060), None);
        }
    }

    /// RFC 4231 §4.3 does not apply (its key is shorter); RFC 4231 §4.2 with the key padded by zeros is the same
    /// HMAC, since shorter keys are padded with zeros anyway.
    #[test]
    fn hmac_is_hmac() {
        let mut key = [0u8; 32];
        key[..20].fill(0x0b);
        assert_eq!(
            nonce_mac(&key, b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}
