//! What the workers may do with files: read beneath the directories that the configuration serves, write where it lets
//! clients or the cache write, and nothing else, by Landlock where the kernel has it. So a mistake in the handling of
//! a path cannot reach what is not served.
//!
//! Only the threads that serve are confined, and what they start. The first thread is not: it reads configuration and
//! certificates anew, opens logs, and starts the workers of applications and the next binary, none of which may be
//! bound to what held when this process started.

use crate::command::Failure;
use eleven_server::plan::{HandlerPlan, Plan};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rights that are taken away, as kernels since 6.2 know them; older ones take away what they know. Newer rights
/// (device ioctls, connecting to Unix sockets) are not about files that are served.
const RIGHTS: ABI = ABI::V3;

/// What every worker reads besides: names of hosts, trusted certificates, libraries that name look-ups load, time zones.
const SYSTEM: [&str; 18] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/run/systemd/resolve",
    "/proc/self/status",
];
/// Devices that every worker may use.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Where workers may read and write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl Reach {
    /// Reading beneath one directory.
    pub fn reading(directory: &Path) -> Reach {
        let mut reach = Reach::default();
        reach.read.insert(real(directory));
        reach
    }

    /// What a proxy needs: content on its way in files without names, what it stores, and the passwords it asks for, which
    /// are read anew when they change.
    pub fn forwarding(store: Option<&Path>, passwords: impl Iterator<Item = PathBuf>) -> Reach {
        let mut reach = Reach::default();
        reach.write.insert(real(&std::env::temp_dir()));
        reach.write.extend(store.map(real));
        reach.read.extend(passwords.filter_map(|file| file.parent().map(real)));
        reach
    }

    /// What a plan needs.
    pub fn of(plan: &Plan) -> Reach {
        let mut reach = Reach::default();
        for route in plan.routes() {
            match &route.handler {
                HandlerPlan::Files(files) if files.options.upload.is_some() => {
                    reach.write.insert(real(&files.root));
                }
                HandlerPlan::Files(files) => {
                    reach.read.insert(real(&files.root));
                }
                HandlerPlan::FastCgi(settings, scripts) => {
                    reach.read.insert(real(scripts));
                    reach.write.insert(real(&settings.spool_directory));
                }
                HandlerPlan::Application(settings) => {
                    reach.write.insert(real(&settings.runtime_directory));
                }
                HandlerPlan::Gateway(..) | HandlerPlan::Forward(_) => {
                    // Content on its way, in files without names.
                    reach.write.insert(real(&std::env::temp_dir()));
                }
                HandlerPlan::Redirect(..) | HandlerPlan::Fixed(_) | HandlerPlan::Echo => {}
            }
        }
        let policies = plan.sites.iter().map(|site| &site.policy).chain(plan.routes().map(|r| &r.policy));
        for file in policies.flat_map(|policy| policy.authentication.files()) {
            // Read anew when it changes, which as a rule is a new file of the same name.
            if let Some(directory) = file.parent() {
                reach.read.insert(real(directory));
            }
        }
        if let Some((directory, _)) = plan.cache.as_ref().and_then(|cache| cache.directory.as_ref()) {
            reach.write.insert(real(directory));
        }
        reach
    }

    /// What of `other` lies outside.
    fn missing<'o>(&self, other: &'o Reach) -> Vec<&'o Path> {
        let beneath = |set: &BTreeSet<PathBuf>, path: &Path| set.iter().any(|root| path.starts_with(root));
        let mut missing: Vec<&Path> = Vec::new();
        let read = other.read.iter().filter(|path| !beneath(&self.read, path) && !beneath(&self.write, path));
        missing.extend(read.map(PathBuf::as_path));
        missing.extend(other.write.iter().filter(|path| !beneath(&self.write, path)).map(PathBuf::as_path));
        missing
    }
}

/// Where a path leads; itself if nothing is there yet.
fn real(path: &Path) -> PathBuf {
    // The parent of a file in the directory where we are has no name.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The confinement of all workers of this process.
#[derive(Clone)]
pub struct Sandbox(Option<Arc<Confinement>>);

struct Confinement {
    reach: Reach,
    rules: RulesetCreated,
    said: AtomicBool,
}

impl Sandbox {
    /// None.
    pub fn off() -> Sandbox {
        Sandbox(None)
    }

    /// Prepares the confinement. Directories to write in are made if they are not there.
    ///
    /// # Errors
    /// If a directory cannot be opened.
    pub fn new(reach: Reach) -> Result<Sandbox, Failure> {
        let failed = |error: landlock::RulesetError| Failure(format!("cannot confine the workers: {error}"));
        for directory in &reach.write {
            std::fs::create_dir_all(directory).map_err(|error| {
                Failure(format!("cannot make the directory {}: {error}", directory.display()))
            })?;
        }
        let all = AccessFs::from_all(RIGHTS);
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)
            .and_then(Ruleset::create)
            .map_err(failed)?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in SYSTEM.iter().map(Path::new).filter(|path| path.exists()) {
            rules = allow(rules, path, reading | AccessFs::Execute)?;
        }
        for path in DEVICES.iter().map(Path::new).filter(|path| path.exists()) {
            rules = allow(rules, path, AccessFs::ReadFile | AccessFs::WriteFile)?;
        }
        for path in &reach.read {
            rules = allow(rules, path, reading)?;
        }
        for path in &reach.write {
            rules = allow(rules, path, reading | (AccessFs::from_write(RIGHTS) & !special()))?;
        }
        Ok(Sandbox(Some(Arc::new(Confinement { reach, rules, said: AtomicBool::new(false) }))))
    }

    /// Whether workers that are confined can serve by a plan that takes the place of another.
    ///
    /// # Errors
    /// What they could not reach, and what to do.
    pub fn check(&self, next: &Reach) -> Result<(), Failure> {
        let Some(confinement) = &self.0 else { return Ok(()) };
        match confinement.reach.missing(next).first() {
            None => Ok(()),
            Some(path) => Err(Failure(format!(
                "the workers were confined at the start and cannot reach {}; use `eleven upgrade`, which starts anew",
                path.display()
            ))),
        }
    }

    /// Confines the calling thread, and whatever it starts, for as long as it lives.
    pub fn enter(&self) {
        let Some(confinement) = &self.0 else { return };
        if ENTERED.replace(true) {
            return;
        }
        let entered = confinement
            .rules
            .try_clone()
            .map_err(|error| error.to_string())
            .and_then(|rules| rules.restrict_self().map_err(|error| error.to_string()));
        if confinement.said.swap(true, Ordering::Relaxed) {
            return;
        }
        match entered.map(|status| status.ruleset) {
            Ok(RulesetStatus::NotEnforced) => {
                tracing::warn!("this kernel has no Landlock: what workers do with files is not confined");
            }
            Ok(status) => {
                let Reach { read, write } = &confinement.reach;
                tracing::info!(?read, ?write, ?status, "workers are confined to these directories");
            }
            Err(error) => tracing::error!(%error, "workers are not confined"),
        }
    }
}

/// Devices and pipes, which nobody needs to make.
fn special() -> BitFlags<AccessFs> {
    AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo
}

fn allow(rules: RulesetCreated, path: &Path, rights: BitFlags<AccessFs>) -> Result<RulesetCreated, Failure> {
    let failed =
        |error: String| Failure(format!("cannot confine the workers to {}: {error}", path.display()));
    let opened = PathFd::new(path).map_err(|error| failed(error.to_string()))?;
    // A file has no entries to be listed or made.
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(RIGHTS) };
    rules.add_rule(PathBeneath::new(opened, rights)).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_found() {
        let reach = |read: &[&str], write: &[&str]| Reach {
            read: read.iter().map(PathBuf::from).collect(),
            write: write.iter().map(PathBuf::from).collect(),
        };
        let started = reach(&["/srv/www"], &["/var/cache/e"]);
        for (next, outside) in [
            (reach(&["/srv/www"], &["/var/cache/e"]), None),
            (reach(&["/srv/www/a", "/var/cache/e"], &[]), None),
            (reach(&[], &[]), None),
            (reach(&["/srv"], &[]), Some("/srv")),
            (reach(&["/srv/www2"], &[]), Some("/srv/www2")),
            (reach(&[], &["/srv/www"]), Some("/srv/www")),
        ] {
            assert_eq!(started.missing(&next).first().copied(), outside.map(Path::new));
            let sandbox = Sandbox(None);
            assert!(sandbox.check(&next).is_ok(), "nothing is outside of nothing");
        }
    }

    /// A file of passwords is reached by its directory, also where that is the one we are in.
    #[test]
    fn what_proxies_reach() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let store = Path::new("/no/such/store");
        let reach = Reach::forwarding(Some(store), ["passwords".into(), "/etc/hosts".into()].into_iter());
        assert_eq!(reach.read, BTreeSet::from([here, "/etc".into()]));
        assert_eq!(reach.write, BTreeSet::from([real(&std::env::temp_dir()), store.to_owned()]));
        let reach = Reach::forwarding(None, std::iter::empty());
        assert_eq!((reach.read.len(), reach.write.len()), (0, 1));
    }

    /// On a thread of its own, for it stays confined.
    #[test]
    fn a_confined_thread_reaches_what_it_may_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("eleven-sandbox-{}", std::process::id()));
        for name in ["read", "write", "other"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("file"), name).unwrap();
        }
        let mut reach = Reach::reading(&folder.join("read"));
        reach.write.insert(folder.join("write"));
        let sandbox = Sandbox::new(reach).unwrap();
        assert!(sandbox.check(&Reach::reading(&folder.join("other"))).is_err());
        let within = folder.clone();
        let enforced = std::thread::spawn(move || {
            sandbox.enter();
            sandbox.enter();
            let read = |name: &str| std::fs::read(within.join(name).join("file"));
            assert_eq!(read("read").unwrap(), b"read");
            assert_eq!(read("write").unwrap(), b"write");
            std::fs::write(within.join("write/new"), "new").unwrap();
            std::fs::rename(within.join("write/new"), within.join("write/newer")).unwrap();
            let enforced = read("other").is_err();
            assert_eq!(std::fs::write(within.join("read/file"), "x").is_err(), enforced);
            // Threads that it starts are confined, too.
            let other = within.join("other/file");
            assert_eq!(std::thread::spawn(move || std::fs::read(other).is_err()).join().unwrap(), enforced);
            enforced
        })
        .join()
        .unwrap();
        assert_eq!(std::fs::read(folder.join("other/file")).unwrap(), b"other", "this thread is free");
        std::fs::remove_dir_all(&folder).unwrap();
        if !enforced {
            eprintln!("this kernel has no Landlock: nothing was confined");
        }
    }
}
