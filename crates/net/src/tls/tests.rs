//! TLS over sockets and memory, with certificates made for the test. Faults A10 to A14, A17, A19, A21, R19.

use super::*;
use crate::clock;
use crate::memory::{self, Link};
use crate::ocsp::OcspProblem;
use crate::stream::Stream;
use crate::tls::{AcceptError, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SerialNumber,
};
use std::io::Write;

/// A directory with an authority and certificates issued by it.
struct Pki {
    path: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Pki {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let path = std::env::temp_dir().join(format!("net-tls-{:x}", u64::from_ne_bytes(random)));
        std::fs::create_dir(&path).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("test authority {random:x?}");
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(path.join("ca.pem"), authority.pem()).unwrap();
        Pki { path, authority }
    }

    fn issue(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let identity = Identity {
            certificate: self.path.join(format!("{file}.pem")),
            key: self.path.join(format!("{file}.key")),
            ocsp: None,
        };
        std::fs::write(&identity.certificate, certificate.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    fn client(&self) -> Arc<ClientConfig> {
        self.client_settings().build().unwrap()
    }

    fn client_settings(&self) -> ClientSettings {
        ClientSettings { trust: Trust::Files(vec![self.path.join("ca.pem")]), ..ClientSettings::default() }
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn server(identities: Vec<Identity>) -> Arc<ServerConfig> {
    ServerSettings { identities, ..ServerSettings::default() }.build().unwrap()
}

fn memory_pair(seed: u64, link: Link) -> (Stream, Stream) {
    let (a, b) = memory::duplex(seed, link.clone(), link);
    (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)))
}

fn connection(config: &Arc<ClientConfig>, name: &str) -> rustls::ClientConnection {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    rustls::ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Client and server shake hands over memory.
async fn shake(
    client: &Arc<ClientConfig>,
    name: &str,
    server: &Arc<ServerConfig>,
    link: Link,
) -> (io::Result<Stream>, Result<Stream, AcceptError>) {
    let (a, b) = memory_pair(3, link);
    let (server, connection) = (Arc::clone(server), connection(client, name));
    let (client, server) =
        tokio::join!(TlsStream::handshake(a, connection), TlsStream::accept(b, move |_| Some(server)));
    (client.map(|tls| Stream::Tls(Box::new(tls))), server.map(|tls| Stream::Tls(Box::new(tls))))
}

fn problem(error: io::Error) -> Option<CertificateProblem> {
    CertificateProblem::from_error(&error.downcast::<rustls::Error>().unwrap())
}

/// Faults F01 to F04 on top of TLS: bytes survive rough weather, a short buffer, and writes that block. All of them are
/// application data (9112-9.7-01), and each end says close_notify (9112-9.8-03, 9112-9.8-06): an end without it would
/// be an error.
/// Fault D07.
#[tokio::test(flavor = "local", start_paused = true)]
async fn bytes_pass_through_rough_weather() {
    let pki = Pki::new();
    let config = server(vec![pki.issue("a", &["a.example"], |_| {})]);
    let (client, accepted) = shake(&pki.client(), "a.example", &config, Link::rough()).await;
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
    assert!(client.is_tls());
    let tls = accepted.tls().unwrap();
    assert_eq!(tls.server_name(), Some("a.example"));
    assert_eq!(tls.connection().alpn_protocol(), Some(ALPN));
    let content: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    let sent = content.clone();
    let writer = tokio::task::spawn_local(async move {
        let mut slices = [io::IoSlice::new(&sent[..5]), io::IoSlice::new(b""), io::IoSlice::new(&sent[5..])];
        client.write_all_vectored(&mut slices).await.unwrap();
        client.shutdown_write().await.unwrap();
        let mut answer = [0; 8];
        let count = client.read(&mut answer).await.unwrap();
        answer[..count].to_vec()
    });
    let (mut got, mut buffer) = (Vec::new(), [0; 999]);
    loop {
        match accepted.read(&mut buffer).await.unwrap() {
            0 => break,
            count => got.extend_from_slice(&buffer[..count]),
        }
    }
    assert!(got == content);
    // Half-closed: the other direction still works.
    accepted.write_all(b"ok").await.unwrap();
    assert_eq!(writer.await.unwrap(), b"ok");
}

/// 9112-9.8-R1, fault R19: an end that was not announced is not an end.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_end_without_close_notify_is_an_error() {
    let pki = Pki::new();
    let config = server(vec![pki.issue("a", &["a.example"], |_| {})]);
    let (client, accepted) = shake(&pki.client(), "a.example", &config, Link::default()).await;
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
    client.write_all(b"cut").await.unwrap();
    let Stream::Tls(tls) = &mut client else { panic!() };
    tls.transport_mut().shutdown_write().await.unwrap();
    let mut buffer = [0; 99];
    assert_eq!(accepted.read(&mut buffer).await.unwrap(), 3);
    let error = accepted.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// 9112-9.8-03, 9112-9.8-06: a client that is dropped says that it closes, a server says so when it knows that all was said;
/// after a reset neither does, and neither does a server that was merely dropped.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_close_is_announced_by_whoever_may() {
    let pki = Pki::new();
    let config = server(vec![pki.issue("a", &["a.example"], |_| {})]);
    for (of_client, announced, resets, expected) in [
        (true, false, false, Ok(0)),
        (true, true, false, Ok(0)),
        (true, false, true, Err(io::ErrorKind::ConnectionReset)),
        (false, true, false, Ok(0)),
        (false, false, false, Err(io::ErrorKind::UnexpectedEof)),
        (false, true, true, Err(io::ErrorKind::ConnectionReset)),
    ] {
        let (client, accepted) = shake(&pki.client(), "a.example", &config, Link::default()).await;
        let (client, accepted) = (client.unwrap(), accepted.unwrap());
        let (mut ours, mut theirs) = if of_client { (client, accepted) } else { (accepted, client) };
        // Tickets are read with it: a transport with octets that nobody read ends in a reset.
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 1);
        if resets {
            ours.set_linger_reset().unwrap();
        }
        if announced {
            ours.announce_close();
        }
        drop(ours);
        let got = theirs.read(&mut [0; 9]).await.map_err(|error| error.kind());
        assert_eq!(got, expected, "client {of_client}, announced {announced}, reset {resets}");
    }
}

/// Faults A11 and A12: each refusal has its name.
#[tokio::test(flavor = "local", start_paused = true)]
async fn certificates_are_refused_with_a_reason() {
    let pki = Pki::new();
    let old = pki.issue("old", &["a.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let future = pki.issue("future", &["a.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    });
    let purpose = pki.issue("purpose", &["a.example"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let common_name = pki.issue("cn", &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "a.example");
    });
    let other = Pki::new();
    let stranger = other.issue("stranger", &["a.example"], |_| {});
    let good = pki.issue("good", &["*.w.example", "127.0.0.1"], |_| {});
    for (identity, name, expected) in [
        (&good, "a.w.example", None),
        (&good, "127.0.0.1", None),
        (&good, "a.b.w.example", Some(CertificateProblem::WrongName)),
        (&good, "w.example", Some(CertificateProblem::WrongName)),
        (&good, "127.0.0.2", Some(CertificateProblem::WrongName)),
        (&common_name, "a.example", Some(CertificateProblem::WrongName)),
        (&old, "a.example", Some(CertificateProblem::Expired)),
        (&future, "a.example", Some(CertificateProblem::NotValidYet)),
        (&purpose, "a.example", Some(CertificateProblem::WrongPurpose)),
        (&stranger, "a.example", Some(CertificateProblem::UnknownIssuer)),
    ] {
        let config = server(vec![identity.clone()]);
        let (client, _) = shake(&pki.client(), name, &config, Link::default()).await;
        assert_eq!(client.err().and_then(problem), expected, "{} {name}", identity.key.display());
    }
    // And with nobody checking, the stranger gets in.
    let anybody = ClientSettings { trust: Trust::Anybody, ..ClientSettings::default() }.build().unwrap();
    let (client, _) = shake(&anybody, "x.example", &server(vec![stranger]), Link::default()).await;
    client.unwrap();
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_certificate_follows_the_name() {
    let pki = Pki::new();
    let config = server(vec![
        pki.issue("a", &["a.example"], |_| {}),
        pki.issue("b", &["b.example", "*.c.example"], |_| {}),
    ]);
    for (name, good) in
        [("a.example", true), ("b.example", true), ("x.c.example", true), ("d.example", false)]
    {
        let (client, _) = shake(&pki.client(), name, &config, Link::default()).await;
        assert_eq!(client.is_ok(), good, "{name}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn clients_show_a_certificate_where_one_is_asked_for() {
    let pki = Pki::new();
    let settings = |optional| ServerSettings {
        identities: vec![pki.issue("a", &["a.example"], |_| {})],
        client_trust: vec![pki.path.join("ca.pem")],
        client_certificate_optional: optional,
        ..ServerSettings::default()
    };
    let identity = Some(pki.issue("client", &["someone"], |_| {}));
    let with = ClientSettings { identity, ..pki.client_settings() }.build().unwrap();
    for (optional, client, good) in
        [(false, &with, true), (false, &pki.client(), false), (true, &pki.client(), true)]
    {
        let config = settings(optional).build().unwrap();
        let (_, accepted) = shake(client, "a.example", &config, Link::default()).await;
        assert_eq!(accepted.is_ok(), good, "{optional}");
        if let (Ok(stream), false) = (&accepted, optional) {
            assert!(stream.tls().unwrap().connection().peer_certificates().is_some());
        }
    }
}

/// Faults A19 and A21.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_is_not_http_over_tls_is_refused() {
    let pki = Pki::new();
    let config = server(vec![pki.issue("a", &["a.example"], |_| {})]);
    let (mut a, b) = memory_pair(1, Link::default());
    a.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    match TlsStream::accept(b, |_| Some(Arc::clone(&config))).await {
        Err(AcceptError::NotTls(back)) => {
            let (mut stream, read) = *back;
            assert_eq!(read, b"GET / HTTP/1.1\r\n");
            stream.write_all(b"HTTP/1.1 400 ").await.unwrap();
        }
        other => panic!("{other:?}"),
    }
    let mut h2_only = (*pki.client()).clone();
    h2_only.alpn_protocols = vec![b"h2".to_vec()];
    let (client, accepted) = shake(&Arc::new(h2_only), "a.example", &config, Link::default()).await;
    assert!(client.is_err());
    assert!(matches!(accepted, Err(AcceptError::Tls(rustls::Error::NoApplicationProtocol))), "{accepted:?}");
    // Bytes that begin as TLS and go on as noise, and a client that goes away.
    for junk in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16", b""] {
        let (mut a, b) = memory_pair(1, Link::default());
        a.write_all(junk).await.unwrap();
        a.shutdown_write().await.unwrap();
        let refused = TlsStream::accept(b, |_| Some(Arc::clone(&config))).await;
        assert!(matches!(refused, Err(AcceptError::Tls(_) | AcceptError::Io(_))), "{refused:?}");
    }
}

/// Fault A17: broken files are named and nothing is half-loaded.
#[test]
fn settings_are_checked_whole() {
    let pki = Pki::new();
    let (a, b) = (pki.issue("a", &["a.example"], |_| {}), pki.issue("b", &["b.example"], |_| {}));
    let build = |certificate: &Path, key: &Path| {
        let identity = Identity { certificate: certificate.to_owned(), key: key.to_owned(), ocsp: None };
        ServerSettings { identities: vec![identity], ..ServerSettings::default() }
            .build()
            .unwrap_err()
            .to_string()
    };
    let empty = pki.path.join("empty");
    std::fs::File::create(&empty).unwrap().write_all(b"no PEM here").unwrap();
    let absent = pki.path.join("absent");
    assert!(build(&absent, &a.key).starts_with(&format!("cannot read {}", absent.display())));
    assert!(build(&empty, &a.key).contains("holds no usable certificate in PEM"));
    assert!(build(&a.certificate, &empty).contains("holds no usable private key in PEM"));
    assert!(build(&a.certificate, &b.key).contains("does not go with key"));
    assert!(matches!(ServerSettings::default().build(), Err(TlsConfigError::NoCertificate)));
    let trust = Trust::Files(vec![empty]);
    assert!(ClientSettings { trust, ..ClientSettings::default() }.build().is_err());
    for trust in [Trust::Platform, Trust::Bundled, Trust::Anybody] {
        ClientSettings { trust, preset: Preset::Modern, ..ClientSettings::default() }.build().unwrap();
    }
}

/// Fault A13: the certificate of another site is shown to nobody whose name has one of its own.
#[test]
fn a_name_finds_its_certificate_among_many() {
    let pki = Pki::new();
    let identities = [
        pki.issue("first", &["first.example"], |_| {}),
        pki.issue("wild", &["*.wild.example", "wild.example"], |_| {}),
        pki.issue("exact", &["Exact.wild.example"], |_| {}),
        pki.issue("again", &["first.example", "again.example"], |_| {}),
    ];
    let loaded = Loaded::default();
    let pairs: Vec<_> = loaded.load_all(&identities).into_iter().map(Result::unwrap).collect();
    let chooser = ByName::new(pairs.clone());
    for (name, expected) in [
        (Some("first.example"), 0),
        (Some("wild.example"), 1),
        (Some("a.wild.example"), 1),
        (Some("A.Wild.Example."), 1),
        (Some("exact.wild.example"), 2),
        (Some("again.example"), 3),
        // A wildcard stands for one label, and not for none.
        (Some("a.b.wild.example"), 0),
        (Some("other.example"), 0),
        (Some("example"), 0),
        (Some(""), 0),
        (None, 0),
    ] {
        assert!(Arc::ptr_eq(chooser.choose(name).unwrap(), &pairs[expected]), "{name:?}");
    }
    assert!(ByName::new(Vec::new()).choose(Some("a.example")).is_none());
}

/// However many threads load them, each comes out in its place, or what is wrong with its own files.
#[test]
fn many_certificates_are_loaded_each_in_its_place() {
    let pki = Pki::new();
    let mut identities: Vec<_> = (0..30)
        .map(|number| pki.issue(&format!("n{number}"), &[&format!("n{number}.example")], |_| {}))
        .collect();
    identities[7].certificate = pki.path.join("absent.pem");
    identities[21].key = identities[22].key.clone();
    for threads in [0, 1, 2, 5, 40] {
        let loaded = Loaded::default();
        for _again in 0..2 {
            let outcomes = loaded.load_all_on(&identities, threads);
            assert_eq!(outcomes.len(), identities.len());
            for (number, outcome) in outcomes.into_iter().enumerate() {
                match (number, outcome) {
                    (7, Err(error)) => assert!(error.to_string().contains("absent.pem"), "{error}"),
                    (21, Err(error)) => assert!(error.to_string().contains("n21"), "{error}"),
                    (7 | 21, Ok(_)) => panic!("{number} is wrong"),
                    (_, outcome) => {
                        let pair = outcome.unwrap();
                        assert_eq!(pair.facts().unwrap().names, [format!("n{number}.example")]);
                        assert!(Arc::ptr_eq(&pair, &loaded.known(&identities[number]).unwrap()));
                    }
                }
            }
        }
    }
}

/// Takes any certificate, and keeps the OCSP response that came with it.
#[derive(Debug)]
struct Stapled(Arc<dyn ServerCertVerifier>, std::sync::Mutex<Vec<Vec<u8>>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.1.lock().unwrap().push(response.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// RFC 6066 §8: a response is stapled while it holds, one that came later is taken, and none stops a handshake.
#[tokio::test(flavor = "local", start_paused = true)]
async fn responses_are_stapled_until_they_expire() {
    const GOOD: &[u8] = include_bytes!("../ocsp/good.der");
    const UNTIL: u64 = 4_733_510_400;
    let pki = Pki::new();
    let mut identity = pki.issue("a", &["a.example"], |params| {
        let leaf = CertificateDer::from_pem_slice(include_bytes!("../certificate.pem")).unwrap();
        params.serial_number =
            Some(SerialNumber::from_slice(crate::certificate::serial_number(&leaf).unwrap()));
    });
    let file = pki.path.join("a.ocsp");
    identity.ocsp = Some(file.clone());
    let settings = ServerSettings { identities: vec![identity], ..ServerSettings::default() };
    let kept =
        Arc::new(Stapled(Arc::new(TrustAnybody(Preset::default().provider())), std::sync::Mutex::default()));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut client = ClientConfig::builder_with_provider(Preset::default().provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(kept.clone())
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        let client = Arc::new(client);
        std::fs::remove_file(&file).ok();
        for (now, content, outcome, expected) in [
            (UNTIL - 100, None, "unreadable", &b""[..]),
            (UNTIL - 100, Some(&b"junk"[..]), "it is no OCSP response in DER", b""),
            (UNTIL - 100, Some(GOOD), "", GOOD),
            (UNTIL, None, "it has expired", b""),
        ] {
            clock::set_unix_seconds(now);
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            // At the end what was loaded in time is asked for once it is over: nothing is read again.
            let config = settings.build().unwrap();
            let stapling: Vec<_> = settings.staplings(clock::unix_seconds()).collect();
            match &stapling[..] {
                [Stapling { outcome: Ok(until), .. }] => assert_eq!((*until, outcome), (UNTIL as i64, "")),
                [Stapling { outcome: Err(OcspProblem::Unreadable(_)), .. }] => {
                    assert_eq!(outcome, "unreadable")
                }
                [Stapling { outcome: Err(why), .. }] => assert_eq!(why.to_string(), outcome),
                other => panic!("{other:?}"),
            }
            let (shaken, _) = shake(&client, "a.example", &config, Link::default()).await;
            shaken.unwrap();
            assert_eq!(
                kept.1.lock().unwrap().pop().as_deref(),
                Some(expected),
                "{version:?} {now} {outcome}"
            );
        }
    }
    clock::unset();
}

/// Fault A10: what each preset takes of versions and suites, and what it refuses; nothing of the library's that is not
/// written out here.
#[tokio::test(flavor = "local", start_paused = true)]
async fn presets_take_their_versions_and_suites_and_no_others() {
    use rustls::CipherSuite;
    let pki = Pki::new();
    let ecdsa = pki.issue("ecdsa", &["a.example"], |_| {});
    let names: Vec<_> =
        Preset::NAMES.iter().map(|(name, preset)| (*name, Preset::named(name), *preset)).collect();
    assert!(names.iter().all(|(_, named, preset)| *named == Some(*preset)), "{names:?}");
    assert_eq!((Preset::named("old"), Preset::named("Modern")), (None, None));
    let all = Preset::Intermediate.provider().cipher_suites.clone();
    assert_eq!(all.len(), 9);
    for (preset, tls12) in [(Preset::Modern, false), (Preset::Intermediate, true)] {
        let settings =
            ServerSettings { identities: vec![ecdsa.clone()], preset, ..ServerSettings::default() };
        let config = settings.build().unwrap();
        for suite in &all {
            let provider =
                CryptoProvider { cipher_suites: vec![*suite], ..(*Preset::Intermediate.provider()).clone() };
            let version =
                if suite.tls13().is_some() { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
            let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots(&[pki.path.join("ca.pem")]).unwrap())
                .with_no_client_auth();
            client.alpn_protocols = vec![ALPN.to_vec()];
            // The certificate is ECDSA's: suites that want an RSA key find none.
            let of_rsa = matches!(
                suite.suite(),
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            );
            let expected = suite.tls13().is_some() || (tls12 && !of_rsa);
            let (shaken, _) = shake(&Arc::new(client), "a.example", &config, Link::default()).await;
            assert_eq!(shaken.is_ok(), expected, "{preset:?} {suite:?}");
            if let Ok(stream) = shaken {
                let agreed = stream.tls().unwrap().connection().negotiated_cipher_suite();
                assert_eq!(agreed.map(|agreed| agreed.suite()), Some(suite.suite()));
            }
        }
    }
}
