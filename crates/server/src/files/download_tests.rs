//! The downloader against our own server in a simulated world: one thread, paused time, links in memory that split, delay
//! and break at any octet, runs that are killed at any moment, and a file that changes underneath, all from one seed.
//! Whatever happens: under its final name there is one version of the file, whole, or nothing.

use super::*;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::request::Local;
use crate::service::Service;
use crate::session::serve;
use crate::worker::{Settings, Worker};
use eleven_client::agent::{Agent, Ask, Options as AgentOptions};
use eleven_client::connector::Connector;
use eleven_client::download::{self, Naming, Options, Segments, Task};
use eleven_client::error::{Cause, Failure};
use eleven_client::partial::{Directory, Overwrite};
use eleven_client::pool::PoolLimits;
use eleven_client::progress::{Event, Progress};
use eleven_net::dial::{self, Dialer};
use eleven_net::ledger::{Caps, Ledger};
use eleven_net::memory::{Link, duplex};
use eleven_net::{PeerAddr, Stream};
use eleven_semantics::uri::Uri;
use eleven_testkit::rng::{Rng, each_seed};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// A directory that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(seed: u64) -> Folder {
        let path = std::env::temp_dir().join(format!("eleven-world-{}-{seed:x}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("root")).unwrap();
        std::fs::create_dir_all(path.join("out")).unwrap();
        Folder(path)
    }

    /// The file on the server becomes this, in one step.
    fn publish(&self, content: &[u8], age: u64) {
        let new = self.0.join("root/.new");
        std::fs::write(&new, content).unwrap();
        let file = std::fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        std::fs::rename(&new, self.0.join("root/file.bin")).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    fn got(&self) -> Option<Vec<u8>> {
        std::fs::read(self.0.join("out/file")).ok()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The line between client and server: each connection may break at any octet, `faults` times in all.
struct Line {
    rng: RefCell<Rng>,
    faults: Cell<u32>,
    rough: Cell<bool>,
}

impl Line {
    fn link(&self) -> Link {
        let mut rng = self.rng.borrow_mut();
        let mut link = Link::default();
        if self.rough.get() && rng.chance(1, 2) {
            link = Link::rough();
            link.capacity_bytes = *rng.pick(&[200, 2000, 65_536]);
        }
        if rng.chance(1, 3) {
            link.delay = (Duration::ZERO, Duration::from_millis(rng.between(1, 10)));
        }
        if self.faults.get() > 0 && rng.chance(1, 2) {
            self.faults.set(self.faults.get() - 1);
            let at = if rng.chance(1, 3) { rng.below(600) } else { rng.below(120_000) };
            if rng.chance(1, 2) {
                link.reset_after_bytes = Some(at);
            } else {
                link.end_after_bytes = Some(at);
            }
        }
        link
    }
}

/// Starts the server; connections come through the line.
fn network(root: &Path, line: &Rc<Line>) -> Rc<dial::Network> {
    let ledger = Ledger::new(Caps { connections_max: 1000, connections_per_address_max: 0 });
    let root = Root::open_directory(root, Default::default()).unwrap();
    let files = Files::new(root, b"", FilesOptions::default());
    let service = Rc::new(Service::single(Handler::Files(files)));
    let recorder = Metrics::default().recorder();
    let worker = Worker::new(service, Settings::default(), ledger.clone(), None, recorder);
    ledger.sweep();
    let sweeper = ledger.clone();
    tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
    let line = Rc::clone(line);
    Rc::new(move |_, _| {
        let (forth, back) = (line.link(), line.link());
        let (client, server) = duplex(line.rng.borrow_mut().bits(), forth, back);
        let slot = ledger.enter(None).expect("room for a connection");
        let stream = Stream::Memory(Box::new(server));
        tokio::task::spawn_local(serve(
            stream,
            PeerAddr::Memory,
            Local { port: 80, listener: None },
            slot,
            worker.clone(),
        ));
        Ok(Stream::Memory(Box::new(client)))
    })
}

fn options(rng: &mut Rng) -> Options {
    Options {
        overwrite: Overwrite::Refuse,
        resume: true,
        segments: match rng.below(3) {
            0 => Segments::Fixed(1),
            1 => Segments::Fixed(rng.between(2, 6) as usize),
            _ => Segments::Auto,
        },
        split_bytes_min: rng.between(1000, 20_000),
        retries_max: 12,
        retry_pause_ms: 20,
        checkpoint_ms: rng.between(1, 200),
        checkpoint_bytes: rng.between(1000, 50_000),
        ..Options::default()
    }
}

/// One run of the program: a new agent, and what an earlier run left.
async fn run(
    folder: &Folder,
    network: &Rc<dial::Network>,
    options: Options,
    said: &Rc<RefCell<Vec<String>>>,
) -> Result<download::Done, Failure> {
    let dialer = Dialer::in_memory(Rc::clone(network), dial::Options::default());
    let connector = Connector::new(dialer, Default::default(), Default::default());
    let limits = PoolLimits { connections_per_origin_max: 16, ..PoolLimits::default() };
    let agent = Rc::new(Agent::new(AgentOptions::default(), connector, limits));
    let heard = Rc::clone(said);
    let progress: Progress = Rc::new(move |event| match event {
        Event::Note(text) => heard.borrow_mut().push((*text).to_owned()),
        Event::Retry(failure, _) => heard.borrow_mut().push(failure.to_string()),
        _ => {}
    });
    let task = Task {
        uris: vec![Uri::parse(b"http://192.0.2.1/file.bin").unwrap().0],
        ask: Box::new(|uri| Ask::get(uri.clone())),
        directory: Directory::open(&folder.out()).unwrap(),
        naming: Naming::Fixed("file".into()),
        options,
        line: None,
    };
    download::run(agent, task, progress, Rc::new(Notify::new())).await
}

/// Octets that the journal vouches for.
fn durable(folder: &Folder) -> u64 {
    let text = std::fs::read(folder.out().join("file.eleven-journal")).unwrap_or_default();
    eleven_client::journal::read(&text).map_or(0, |journal| journal.done.total())
}

fn world(rng: &mut Rng, changes: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    let seed = rng.bits();
    let length = if rng.chance(1, 8) { rng.below(50) } else { rng.below(300_000) } as usize;
    let versions = [rng.bytes(length), {
        let length = if rng.chance(1, 2) { length } else { rng.below(300_000) as usize };
        rng.bytes(length)
    }];
    let folder = Folder::new(seed);
    folder.publish(&versions[0], 1000);
    let line = Rc::new(Line {
        rng: RefCell::new(Rng::new(seed)),
        faults: Cell::new(rng.below(12) as u32),
        rough: Cell::new(rng.chance(1, 2)),
    });
    let said = Rc::new(RefCell::new(Vec::new()));
    let mut current = 0;
    runtime.block_on(async {
        let network = network(&folder.0.join("root"), &line);
        // Runs that are killed, at any moment, without a word.
        for _ in 0..rng.below(5) {
            if changes && current == 0 && rng.chance(1, 3) {
                folder.publish(&versions[1], 500);
                current = 1;
            }
            let moment =
                Duration::from_millis(if rng.chance(1, 4) { rng.below(20) } else { rng.below(3000) });
            let before = durable(&folder);
            let options = options(rng);
            let killed = tokio::time::timeout(moment, run(&folder, &network, options, &said)).await;
            if let Ok(Ok(done)) = killed {
                // Octets of the version that was resumed were not asked for again.
                assert!(
                    changes || done.received <= versions[0].len() as u64 - before.min(done.resumed),
                    "{done:?} after {before}: {:?}",
                    said.borrow()
                );
                break;
            }
            // What the last run had begun on the disk comes to its end, as it would in the kernel.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Some(got) = folder.got() {
                assert!(versions.contains(&got), "a wrong file of {} octets: {:?}", got.len(), said.borrow());
                break;
            }
        }
        // In the end the weather is fair, and the file comes.
        line.faults.set(0);
        line.rough.set(false);
        if folder.got().is_none() {
            let before = durable(&folder);
            let done = run(&folder, &network, options(rng), &said).await;
            let done = done.unwrap_or_else(|failure| panic!("{failure}: {:?}", said.borrow()));
            assert_eq!(folder.got().as_ref(), Some(&versions[current]), "{:?}", said.borrow());
            if !changes {
                assert_eq!(done.resumed, before, "what was durable is used: {:?}", said.borrow());
                assert_eq!(done.received, versions[0].len() as u64 - before, "and not fetched twice");
            }
        }
        let got = folder.got();
        assert!(got.as_ref().is_some_and(|got| versions[..=current].contains(got)), "{:?}", said.borrow());
        let mut names: Vec<_> =
            std::fs::read_dir(folder.out()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file"], "{:?}", said.borrow());
    });
}

/// No corrupted octet, ever; and nothing durable is fetched twice.
#[test]
fn downloads_survive_every_weather() {
    each_seed(40, |rng| world(rng, false));
}

/// A file that changes between two runs is never mixed from both versions.
#[test]
fn downloads_never_mix_versions() {
    each_seed(40, |rng| world(rng, true));
}

/// A connection that breaks at any octet costs nothing but another connection: each place once, resets and ends.
#[test]
fn downloads_broken_at_every_octet() {
    let content = Rng::new(1).bytes(100);
    for reset in [true, false] {
        for at in 0..480 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build_local(Default::default())
                .unwrap();
            let folder = Folder::new(at + u64::from(reset) * 10_000);
            folder.publish(&content, 1000);
            runtime.block_on(async {
                let line = Rc::new(Line {
                    rng: RefCell::new(Rng::new(at)),
                    faults: Cell::new(0),
                    rough: Cell::new(false),
                });
                let clean = network(&folder.0.join("root"), &line);
                let first = Cell::new(true);
                // The first connection breaks behind this octet of the response, all others hold.
                let broken: Rc<dial::Network> = Rc::new(move |host, port| {
                    if !first.replace(false) {
                        return clean(host, port);
                    }
                    let mut link = Link::default();
                    if reset {
                        link.reset_after_bytes = Some(at);
                    } else {
                        link.end_after_bytes = Some(at);
                    }
                    let (client, relay) = duplex(at, Link::default(), link);
                    let Ok(server) = clean(host, port) else { return Err(std::io::ErrorKind::Other.into()) };
                    tokio::task::spawn_local(pass(Stream::Memory(Box::new(relay)), server));
                    Ok(Stream::Memory(Box::new(client)))
                });
                let said = Rc::default();
                let options = Options { retry_pause_ms: 1, ..Options::default() };
                let result = run(&folder, &broken, options, &said).await;
                let done = result.unwrap_or_else(|failure| panic!("{at}: {failure}"));
                assert_eq!(folder.got().as_deref(), Some(&content[..]), "{at}");
                assert_eq!(done.received, 100, "{at}: nothing twice");
            });
        }
    }
}

/// Passes octets both ways until one side ends.
async fn pass(mut a: Stream, mut b: Stream) {
    let mut buffers = ([0; 4096], [0; 4096]);
    loop {
        let (from_a, count) = tokio::select! {
            count = a.read(&mut buffers.0) => (true, count),
            count = b.read(&mut buffers.1) => (false, count),
        };
        let Ok(count @ 1..) = count else { return };
        let written = if from_a {
            b.write_all(&buffers.0[..count]).await
        } else {
            a.write_all(&buffers.1[..count]).await
        };
        if written.is_err() {
            return;
        }
    }
}

#[test]
fn a_missing_file_is_a_failure_and_leaves_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build_local(Default::default()).unwrap();
    let folder = Folder::new(99);
    runtime.block_on(async {
        let line =
            Rc::new(Line { rng: RefCell::new(Rng::new(1)), faults: Cell::new(0), rough: Cell::new(false) });
        let network = network(&folder.0.join("root"), &line);
        let failure = run(&folder, &network, Options::default(), &Rc::default()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Status(404));
        assert_eq!(std::fs::read_dir(folder.out()).unwrap().count(), 0);
    });
}
