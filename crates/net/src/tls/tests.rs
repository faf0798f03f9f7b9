//! TLS over sockets and memory, with certificates made for the test. Faults A10 to A14, A17, A19, A21, R19.

use super::*;
use crate::memory::{self, Link};
use crate::stream::Stream;
use crate::tls::{AcceptError, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
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
        let identity = Identity { certificate: certificate.to_owned(), key: key.to_owned() };
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
        ClientSettings { trust, tls13_only: true, ..ClientSettings::default() }.build().unwrap();
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
    let provider = provider();
    let pairs: Vec<_> = identities
        .iter()
        .map(|identity| {
            let (chain, key) = identity.read().unwrap();
            Arc::new(CertifiedKey::from_der(chain, key, &provider).unwrap())
        })
        .collect();
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
