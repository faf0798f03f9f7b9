//! Faults P01 to P13, P15, P22 and P25, against `openat2` and against the fall-back.

use super::*;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A directory that goes away with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let name = temporary_name(b"net-test").unwrap();
        let path = std::env::temp_dir().join(std::ffi::OsStr::from_bytes(&name));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.0.join(name)).unwrap();
    }

    fn root(&self, options: Options) -> Root {
        Root::open_directory(&self.0.join("root"), options).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch() -> Scratch {
    let s = Scratch::new();
    s.file("secret", "secret");
    s.file("root/a.txt", "a");
    s.file("root/dir/b.txt", "b");
    s.file("root/dir/back\\slash", "literal");
    s.file("root/%2e%2e", "percent");
    s.file("root/.git/config", "git");
    s.file("root/.env", "env");
    s.file("root/.well-known/x", "wk");
    s.file("root/.well-known/.y", "wk");
    s.file("root/x.eleven-part", "unfinished");
    s.link("root/inside", "dir/b.txt");
    s.link("root/dirlink", "dir");
    s.link("root/outside", "../secret");
    s.link("root/absolute", "/etc/passwd");
    s.link("root/procfs", "/proc/self/environ");
    s.link("root/magic", "/proc/self/root");
    s.link("root/loop", "loop");
    let flags = rustix::fs::Mode::from_raw_mode(0o600);
    fs::mkfifoat(fs::CWD, s.0.join("root/fifo"), flags).unwrap();
    std::os::unix::net::UnixListener::bind(s.0.join("root/socket")).unwrap();
    s
}

fn outcome(result: Result<Opened, OpenError>) -> String {
    match result {
        Ok(mut opened) if opened.meta.kind == Kind::File => {
            let mut text = String::new();
            opened.file.read_to_string(&mut text).unwrap();
            assert_eq!(opened.meta.size, text.len() as u64);
            text
        }
        Ok(opened) => format!("{:?}", opened.meta.kind),
        Err(OpenError::Refused(refusal)) => format!("{refusal:?}"),
        Err(OpenError::NotFound) => "404".into(),
        Err(OpenError::Io(error)) => format!("io: {error}"),
    }
}

/// Name, outcome where links are refused, outcome where they may stay beneath the root.
const TABLE: &[(&[u8], &str, &str)] = &[
    (b"/a.txt", "a", "a"),
    (b"a.txt", "a", "a"),
    (b"/dir/b.txt", "b", "b"),
    (b"/", "Directory", "Directory"),
    (b"", "Directory", "Directory"),
    (b"/dir", "Directory", "Directory"),
    (b"/dir/", "Directory", "Directory"),
    (b"/a.txt/", "404", "404"),
    (b"/a.txt/x", "404", "404"),
    (b"/absent", "404", "404"),
    (b"/absent/x", "404", "404"),
    // P01
    (b"/../secret", "NotCanonical", "NotCanonical"),
    (b"/dir/../../secret", "NotCanonical", "NotCanonical"),
    (b"..", "NotCanonical", "NotCanonical"),
    (b"/dir/..", "NotCanonical", "NotCanonical"),
    // P02, P03: nothing is decoded here.
    (b"/%2e%2e", "percent", "percent"),
    (b"/%2e%2e/secret", "404", "404"),
    (b"/%252e%252e/secret", "404", "404"),
    // P04: overlong UTF-8 is octets.
    (b"/\xc0\xae\xc0\xae/secret", "404", "404"),
    // P05
    (b"/a.txt\0.html", "Nul", "Nul"),
    // P06
    (b"/dir/back\\slash", "literal", "literal"),
    (b"/..\\..\\secret", "DotName", "DotName"),
    // P07
    (b"//etc/passwd", "NotCanonical", "NotCanonical"),
    (b"/etc/passwd", "404", "404"),
    (b"/C:/x", "404", "404"),
    (b"\\\\srv\\x", "404", "404"),
    (b"/dir//b.txt", "NotCanonical", "NotCanonical"),
    (b"/./a.txt", "NotCanonical", "NotCanonical"),
    (b"/dir/.", "NotCanonical", "NotCanonical"),
    (b"//", "NotCanonical", "NotCanonical"),
    (b"///", "NotCanonical", "NotCanonical"),
    // P08
    (b"/inside", "Symlink", "b"),
    (b"/dirlink/b.txt", "Symlink", "b"),
    (b"/outside", "Symlink", "Escapes"),
    (b"/absolute", "Symlink", "Escapes"),
    (b"/loop", "Symlink", "Symlink"),
    // P10
    (b"/procfs", "Symlink", "Escapes"),
    (b"/magic/etc/passwd", "Symlink", "Escapes"),
    // P11
    (b"/.git/config", "DotName", "DotName"),
    (b"/.env", "DotName", "DotName"),
    (b"/.well-known/x", "wk", "wk"),
    (b"/.well-known/.y", "DotName", "DotName"),
    (b"/dir/.well-known/x", "DotName", "DotName"),
    // P12
    (b"/x.eleven-part", "Temporary", "Temporary"),
    // P13
    (b"/fifo", "NotRegular", "NotRegular"),
    (b"/socket", "NotRegular", "NotRegular"),
];

#[test]
fn names_are_resolved_beneath_the_root_or_not_at_all() {
    let s = scratch();
    for (symlinks, beneath) in [(Symlinks::Refuse, false), (Symlinks::Beneath, true)] {
        let root = s.root(Options { symlinks, dot_names: false });
        for (name, refuse, follow) in TABLE {
            let expected = if beneath { follow } else { refuse };
            assert_eq!(outcome(root.open(name)), *expected, "{} {symlinks:?}", name.escape_ascii());
        }
    }
    let root = s.root(Options { dot_names: true, ..Options::default() });
    assert_eq!(outcome(root.open(b"/.git/config")), "git");
    assert_eq!(outcome(root.open(b"/x.eleven-part")), "Temporary");
}

/// The fall-back for kernels without `openat2` gives the same answers, links refused.
#[test]
fn component_by_component_gives_the_same() {
    let s = scratch();
    let root = s.root(Options::default());
    let open = |name: &[u8]| -> Result<Opened, OpenError> {
        let name = Name::check(name)?;
        name.is_public(false)?;
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if name.directory {
            flags |= OFlags::DIRECTORY;
        }
        let file = File::from(root.resolve_by_component(&name, flags, Mode::empty())?);
        let meta = Meta::of(&file)?;
        match meta.kind {
            Kind::File | Kind::Directory => Ok(Opened { file, meta }),
            _ => Err(OpenError::Refused(Refusal::NotRegular)),
        }
    };
    for (name, refuse, _) in TABLE {
        assert_eq!(outcome(open(name)), *refuse, "{}", name.escape_ascii());
    }
}

/// Fault P09: a name that is swapped for a link to the outside while it is being opened never leads there.
#[test]
fn a_link_swapped_in_during_the_open_leads_nowhere() {
    let s = scratch();
    let root = s.root(Options { symlinks: Symlinks::Beneath, dot_names: false });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (victim, spare) = (s.0.join("root/victim"), s.0.join("root/spare"));
        std::fs::write(&victim, "fine").unwrap();
        std::os::unix::fs::symlink("../secret", &spare).unwrap();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                fs::renameat_with(fs::CWD, &victim, fs::CWD, &spare, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let outcomes: Vec<String> = (0..2000).map(|_| outcome(root.open(b"/victim"))).collect();
        stop.store(true, Ordering::Relaxed);
        for got in outcomes {
            assert!(matches!(&got[..], "fine" | "Escapes"), "{got}");
        }
    });
}

/// Fault P22.
#[test]
fn an_absent_root_is_an_error_and_not_the_working_directory() {
    let s = scratch();
    assert!(Root::open_directory(&s.0.join("absent"), Options::default()).is_err());
    assert!(Root::open_directory(&s.0.join("secret"), Options::default()).is_err());
    assert!(Root::open_directory(Path::new(""), Options::default()).is_err());
}

/// Fault P25: a replaced file is another one, though size and time are the same.
#[test]
fn a_replaced_file_differs_and_an_opened_one_stays() {
    let s = scratch();
    let root = s.root(Options::default());
    let mut first = root.open(b"/a.txt").unwrap();
    s.file("root/new", "z");
    std::fs::rename(s.0.join("root/new"), s.0.join("root/a.txt")).unwrap();
    let second = root.open(b"/a.txt").unwrap();
    assert_ne!((first.meta.ino, first.meta.dev), (second.meta.ino, second.meta.dev));
    let mut text = String::new();
    first.file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a");
}

#[test]
fn a_temporary_file_gets_its_name_when_whole_or_vanishes() {
    let s = scratch();
    let root = s.root(Options::default());
    let names = || read_directory(&root.open(b"/dir").unwrap().file, 100).unwrap().0;
    let before = names().len();
    for nameless in [true, false] {
        let mut half = match nameless {
            true => root.create_temporary(b"/dir", b"../b\x1b.txt", 0o600).unwrap(),
            false => Temporary::named(root.directory(b"/dir").unwrap(), b"../b\x1b.txt", 0o600).unwrap(),
        };
        half.file.write_all(b"half").unwrap();
        if let Some(name) = half.name() {
            assert!(is_temporary_name(name) && name.starts_with(b".btxt."), "{name:?}");
        } else {
            assert!(nameless);
        }
        assert_eq!(names().len(), before + usize::from(half.name().is_some()));
        drop(half);
        assert_eq!(names().len(), before);
    }

    let mut whole = root.create_temporary(b"/dir", b"c", 0o640).unwrap();
    whole.file.write_all(b"whole").unwrap();
    whole.commit(b"c.txt", Existing::Keep, Durability::Synced).unwrap();
    assert_eq!(outcome(root.open(b"/dir/c.txt")), "whole");
    assert_eq!(root.look_at(b"/dir/c.txt").unwrap().mode & 0o077, 0o040);

    // Faults K24 and K27: an existing name, be it a link, is not overwritten unless asked for.
    s.link("root/dir/link", "../../secret");
    for name in [&b"c.txt"[..], b"link"] {
        let other = root.create_temporary(b"/dir", b"c", 0o600).unwrap();
        let error = other.commit(name, Existing::Keep, Durability::Unsynced).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
    let other = root.create_temporary(b"/dir", b"c", 0o600).unwrap();
    other.commit(b"c.txt", Existing::Replace, Durability::Unsynced).unwrap();
    assert_eq!(outcome(root.open(b"/dir/c.txt")), "");
    assert!(!names().iter().any(|entry| is_temporary_name(&entry.name)));
    for bad in [&b""[..], b".", b"..", b"a/b", b"/etc/x", b"a\0"] {
        let other = root.create_temporary(b"/dir", b"c", 0o600).unwrap();
        assert!(other.commit(bad, Existing::Replace, Durability::Unsynced).is_err(), "{bad:?}");
    }
}

/// What a crash left is removed, what is being written is not, nor what only looks alike.
#[test]
fn what_a_crash_left_is_reaped() {
    let s = scratch();
    s.file("root/.a.0123456789abcdef.eleven-part", "left");
    s.file("root/dir/.b.0123456789abcdef.eleven-part", "left");
    s.file("root/dir/named.eleven-part", "not hidden: somebody's own");
    let root = s.root(Options { dot_names: true, ..Options::default() });
    let alive = Temporary::named(root.directory(b"/dir").unwrap(), b"c", 0o600).unwrap();
    assert_eq!(reap::reap(&root, 1_000_000).unwrap(), 2);
    assert_eq!(reap::reap(&root, 1_000_000).unwrap(), 0);
    assert!(root.look_at(&[b"/dir/", alive.name().unwrap()].concat()).is_ok());
    assert!(root.look_at(b"/dir/named.eleven-part").is_ok());
    alive.commit(b"c.txt", Existing::Keep, Durability::Synced).unwrap();
    assert_eq!(outcome(root.open(b"/dir/c.txt")), "");
}

/// Writing follows no link and stays beneath the root.
#[test]
fn writing_is_bound_by_the_same_rules() {
    let s = scratch();
    let root = s.root(Options { symlinks: Symlinks::Beneath, dot_names: true });
    for (name, expected) in [
        (&b"/outside"[..], "Symlink"),
        (b"/inside", "Symlink"),
        (b"/../secret", "NotCanonical"),
        (b"/fifo", "NotRegular"),
        (b"/", "NotCanonical"),
        (b"/absent/x", "404"),
        (b"/magic/tmp/x", "Escapes"),
    ] {
        let got = outcome(root.open_for_writing(name, true, 0o600));
        assert_eq!(got, expected, "{}", name.escape_ascii());
    }
    assert_eq!(std::fs::read_to_string(s.0.join("secret")).unwrap(), "secret");
    root.create_directory(b"/new", 0o700).unwrap();
    assert!(root.create_directory(b"/new", 0o700).is_err());
    let mut opened = root.open_for_writing(b"/new/.state", true, 0o600).unwrap();
    opened.file.write_all(b"s").unwrap();
    assert_eq!(outcome(root.open(b"/new/.state")), "s");
    root.remove_file(b"/new/.state").unwrap();
    assert_eq!(outcome(root.open(b"/new/.state")), "404");
    assert!(root.remove_file(b"/new").is_err());
}

/// Fault P15: a listing stops at its limit.
#[test]
fn listings_are_bounded_and_say_so() {
    let s = scratch();
    for i in 0..50 {
        s.file(&format!("root/many/{i}"), "");
    }
    let root = s.root(Options::default());
    let directory = root.open(b"/many").unwrap().file;
    for _ in 0..2 {
        let (entries, more) = read_directory(&directory, 20).unwrap();
        assert_eq!((entries.len(), more), (20, true));
        let (entries, more) = read_directory(&directory, 50).unwrap();
        assert_eq!((entries.len(), more), (50, false));
    }
    let (entries, _) = read_directory(&root.open(b"/").unwrap().file, 100).unwrap();
    let kind = |name: &[u8]| {
        let entry = entries.iter().find(|entry| entry.name == name).unwrap();
        (entry.file, entry.directory)
    };
    assert_eq!(kind(b"a.txt"), (true, false));
    assert_eq!(kind(b"dir"), (false, true));
    assert_eq!(kind(b"fifo"), (false, false));
    assert_eq!(kind(b"inside"), (false, false));
    assert_eq!(look_at_entry(&directory, b"7").unwrap().kind, Kind::File);
}
