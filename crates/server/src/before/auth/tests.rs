use super::*;
use eleven_semantics::auth::digest::{Algorithm, Challenge};
use std::time::SystemTime;

fn run(judgement: Judgement) -> Outcome {
    match judgement {
        Judgement::Settled(outcome) => outcome,
        Judgement::Hash(job) => job.run(),
    }
}

fn basic_value(user: &str, password: &str) -> Fields {
    let value = basic::encode(user.as_bytes(), password.as_bytes()).unwrap();
    Fields::from_iter(&[("Authorization", value)])
}

/// `openssl passwd -apr1/-5/-6`, `htpasswd -B`, `argon2`: hashes made by others.
const FILE: &str = "\
# a comment

apr:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/
sha256:$5$saltsalt$gOjOtoMpVhru2uyjeJSEc/JaLQWOXMNmlOnj6T4AtC.
sha512:$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/
";

fn file() -> PasswordFile {
    let mut file = PasswordFile::parse(FILE).unwrap();
    file.insert("bcrypt", Hash::parse(&bcrypt::hash("password", 4).unwrap()).unwrap());
    let argon = {
        use argon2::password_hash::PasswordHasher;
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon.hash_password_with_salt(b"password", b"saltsaltsaltsalt").unwrap().to_string()
    };
    file.insert("argon", Hash::parse(&argon).unwrap());
    file
}

/// Faults A01 to A05: every kind of hash, right and wrong, and what is no credentials at all.
/// Fault A04.
#[test]
fn basic_over_every_kind_of_hash() {
    let auth = Authentication { basic: Some(Basic::new("r", file(), None, [7; 32]).unwrap()), digest: None };
    let judge = |fields: &Fields| run(auth.judge(fields, "GET", b"/", 0));
    for user in ["apr", "sha256", "sha512", "bcrypt", "argon"] {
        // The second time it is remembered.
        for _ in 0..2 {
            assert_eq!(judge(&basic_value(user, "password")), Ok(user.as_bytes().into()), "{user}");
            assert_eq!(judge(&basic_value(user, "passwore")), Err(Denied::Wrong), "{user}");
        }
        assert_eq!(judge(&basic_value(user, "")), Err(Denied::Wrong), "{user}");
    }
    assert_eq!(judge(&basic_value("nobody", "password")), Err(Denied::Wrong));
    assert_eq!(judge(&Fields::new()), Err(Denied::Missing));
    for (value, expected) in [
        ("Bearer abc", Denied::Missing),
        ("Digest username=\"a\"", Denied::Missing),
        ("Basic", Denied::Malformed),
        ("Basic !!!", Denied::Malformed),
        ("Basic YQ==", Denied::Malformed),
        ("", Denied::Malformed),
    ] {
        assert_eq!(judge(&Fields::from_iter(&[("Authorization", value)])), Err(expected), "{value:?}");
    }
    let right = basic_value("apr", "password");
    let value = String::from_utf8(right.get(Known::Authorization).unwrap().to_vec()).unwrap();
    let lower = value.replace("Basic", "bAsIc");
    assert_eq!(judge(&Fields::from_iter(&[("Authorization", &lower)])), Ok((*b"apr").into()));
    let twice = Fields::from_iter(&[("Authorization", &value), ("Authorization", &value)]);
    assert_eq!(judge(&twice), Err(Denied::Malformed));
    let mut fields = Fields::new();
    auth.challenge(Denied::Missing, 0, &mut fields);
    assert_eq!(fields.get(Known::WwwAuthenticate), Some(&b"Basic realm=\"r\", charset=\"UTF-8\""[..]));
}

/// Fault A02.
#[test]
fn an_unknown_user_costs_the_same_work() {
    let basic = Basic::new("r", file(), None, [7; 32]).unwrap();
    let value = basic_value("nobody", "password");
    let auth = Auth::credentials(value.get(Known::Authorization).unwrap()).unwrap();
    assert!(matches!(basic.judge(&auth, 0), Judgement::Hash(_)));
}

/// Fault A03: only so many checks at once; beyond that 503, and the places come back.
#[test]
fn checks_at_once_are_bounded() {
    static OWN: AtomicUsize = AtomicUsize::new(0);
    let basic = Basic::counted("r", file(), None, [7; 32], &OWN).unwrap();
    let value = basic_value("apr", "wrong");
    let auth = Auth::credentials(value.get(Known::Authorization).unwrap()).unwrap();
    let mut held = Vec::new();
    for _ in 0..VERIFICATIONS_MAX {
        let Judgement::Hash(job) = basic.judge(&auth, 0) else { panic!("{} are held", held.len()) };
        held.push(job);
    }
    for _ in 0..3 {
        let Judgement::Settled(outcome) = basic.judge(&auth, 0) else { panic!("one too many") };
        assert_eq!(outcome, Err(Denied::Busy));
    }
    held.pop();
    assert!(matches!(basic.judge(&auth, 0), Judgement::Hash(_)));
    drop(held);
    assert_eq!(OWN.load(Ordering::Relaxed), 0);
}

#[test]
fn hashes_that_are_refused() {
    for (hash, why) in [
        ("", UnusableHash::Empty),
        ("password", UnusableHash::Unknown),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", UnusableHash::Sha1),
        ("rqXexS6ZhobKA", UnusableHash::Unknown),
        ("$1$salt$qJH7.N4xYta3aEG/dfqo/0", UnusableHash::Unknown),
        ("$apr1$saltsalt$short", UnusableHash::Malformed),
        ("$2y$31$......................................................", UnusableHash::TooCostly),
        ("$2y$10$short", UnusableHash::Malformed),
        ("$2y$xx$.....................................................", UnusableHash::Malformed),
        ("$6$saltsalt$short", UnusableHash::Malformed),
        ("$6$rounds=9999999$saltsalt$x", UnusableHash::TooCostly),
        ("$6$rounds=+5000$saltsalt$x", UnusableHash::Malformed),
        ("$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", UnusableHash::TooCostly),
        ("$argon2id$nonsense", UnusableHash::Malformed),
    ] {
        assert_eq!(Hash::parse(hash), Err(why), "{hash}");
    }
    for (text, line) in [("a", 1), ("# c\n:x", 2), ("apr:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\nb:x", 2)] {
        let error = PasswordFile::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}")), "{error}");
    }
    assert!(PasswordFile::parse(&FILE.repeat(2)).is_err(), "a user twice");
}

/// A file that changes counts within a second; one that is broken does not.
#[test]
fn files_are_read_anew() {
    let path = std::env::temp_dir().join(format!("eleven-htpasswd-{}", std::process::id()));
    let write = |text: &str, at: u64| {
        std::fs::write(&path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    write(FILE, 1000);
    let auth = Authentication {
        basic: Some(Basic::new("r", PasswordFile::default(), Some(path.clone()), [7; 32]).unwrap()),
        digest: None,
    };
    let judge = |now| run(auth.judge(&basic_value("apr", "password"), "GET", b"/", now));
    assert_eq!(judge(1), Ok((*b"apr").into()));
    write("broken", 2000);
    assert_eq!(judge(2), Ok((*b"apr").into()));
    write(&FILE.replace("apr:", "app:"), 3000);
    assert_eq!(judge(3), Err(Denied::Wrong));
    std::fs::remove_file(&path).unwrap();
    assert!(Basic::new("r", PasswordFile::default(), Some(path), [7; 32]).is_err());
}

fn digest() -> Authentication {
    let md5 = Algorithm::Md5.hash(&[b"ann", b"r", b"secret"]);
    let sha = Algorithm::Sha256.hash(&[b"ann", b"r", b"secret"]);
    let text = format!("ann:r:{md5}\nann:r:{sha}\nbob:other:{md5}\n");
    let users = DigestFile::parse(&text, "r").unwrap();
    Authentication { basic: None, digest: Some(Digest::new("r", users, 300, true, [9; 32])) }
}

fn answer(auth: &Authentication, index: usize, now: i64, user: &str, password: &str, count: u32) -> Fields {
    let value = auth.digest.as_ref().unwrap().challenges(false, now).remove(index);
    let challenge = Challenge::read(&Auth::credentials(&value).unwrap()).unwrap();
    let value = challenge.answer(user.as_bytes(), password.as_bytes(), "GET", "/a?b", count, "cnonce");
    Fields::from_iter(&[("Authorization", value)])
}

/// A file of secrets that changes counts within a second; one that is broken, empty or gone does not.
#[test]
fn digest_files_are_read_anew() {
    let path = std::env::temp_dir().join(format!("eleven-htdigest-{}", std::process::id()));
    let line =
        |password: &str| format!("ann:r:{}\n", Algorithm::Sha256.hash(&[b"ann", b"r", password.as_bytes()]));
    std::fs::write(&path, line("secret")).unwrap();
    let digest = Digest::of_file("r", path.clone(), 300, false, [9; 32]).unwrap();
    let auth = Authentication { basic: None, digest: Some(digest) };
    let mut count = 0;
    let mut judge = |now, password: &str| {
        count += 1;
        run(auth.judge(&answer(&auth, 0, now, "ann", password, count), "GET", b"/a?b", now))
    };
    assert_eq!(judge(1, "secret"), Ok((*b"ann").into()));
    for (now, text) in [(2, "broken"), (3, ""), (4, "bob:other:0123456789abcdef0123456789abcdef\n")] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(judge(now, "secret"), Ok((*b"ann").into()), "{text}");
    }
    std::fs::write(&path, line("a longer one")).unwrap();
    assert_eq!(judge(5, "secret"), Err(Denied::Wrong));
    assert_eq!(judge(5, "a longer one"), Ok((*b"ann").into()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(judge(6, "a longer one"), Ok((*b"ann").into()));
    assert!(Digest::of_file("r", path, 300, false, [9; 32]).is_err());
}

/// RFC 7616: both algorithms, nonces that expire, counts that are used once, the target that is covered.
#[test]
fn digest_judges() {
    let auth = digest();
    let judge =
        |fields: &Fields, method: &str, target: &[u8], now| run(auth.judge(fields, method, target, now));
    for index in [0, 1] {
        let now = 1000 + index as i64 * 50;
        let right = answer(&auth, index, now, "ann", "secret", 1);
        assert_eq!(judge(&right, "GET", b"/other", now), Err(Denied::Malformed));
        assert_eq!(judge(&right, "PUT", b"/a?b", now), Err(Denied::Wrong));
        assert_eq!(judge(&right, "GET", b"/a?b", now + 301), Err(Denied::Stale));
        assert_eq!(judge(&right, "GET", b"/a?b", now - 1), Err(Denied::Stale));
        assert_eq!(judge(&right, "GET", b"/a?b", now + 300), Ok((*b"ann").into()));
        assert_eq!(judge(&right, "GET", b"/a?b", now + 1), Err(Denied::Stale), "a replay");
        let next = answer(&auth, index, now, "ann", "secret", 2);
        assert_eq!(judge(&next, "GET", b"/a?b", now), Ok((*b"ann").into()));
        for (user, password) in [("ann", "wrong"), ("bob", "secret"), ("", "")] {
            let wrong = answer(&auth, index, now, user, password, 3);
            assert_eq!(judge(&wrong, "GET", b"/a?b", now), Err(Denied::Wrong), "{user}");
        }
    }
    let foreign = Challenge::read(
        &Auth::credentials(b"Digest realm=\"r\", nonce=\"x\", qop=\"auth\", algorithm=MD5").unwrap(),
    )
    .unwrap();
    let value = foreign.answer(b"ann", b"secret", "GET", "/a?b", 1, "c");
    assert_eq!(judge(&Fields::from_iter(&[("Authorization", value)]), "GET", b"/a?b", 0), Err(Denied::Stale));
    let mut fields = Fields::new();
    auth.challenge(Denied::Stale, 0, &mut fields);
    let lines: Vec<_> = fields.all(Known::WwwAuthenticate).map(String::from_utf8_lossy).collect();
    assert!(lines.len() == 2 && lines[0].contains("SHA-256") && lines[1].contains("MD5"), "{lines:?}");
    assert!(
        lines.iter().all(|line| line.contains("stale=true") && line.contains("realm=\"r\"")),
        "{lines:?}"
    );
}

#[test]
fn digest_files_that_are_refused() {
    for text in ["", "ann:r", "ann", "ann:r:zz", "ann:r:0123", "ann:other:00000000000000000000000000000000"] {
        assert!(DigestFile::parse(text, "r").is_err(), "{text}");
    }
}

/// RFC 7616 §3.3: clients that are challenged in the same second do not share a nonce, because each counts its own requests.
#[test]
fn every_challenge_has_a_nonce_of_its_own() {
    let users = DigestFile::parse("u:r:0123456789abcdef0123456789abcdef\n", "r").unwrap();
    let digest = Digest::new("r", users, 300, true, [9; 32]);
    let challenges: std::collections::HashSet<_> = (0..100).map(|_| digest.challenges(false, 1000)).collect();
    assert_eq!(challenges.len(), 100);
}
