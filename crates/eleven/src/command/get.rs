//! `eleven get`: fetches, saves, uploads. Words what the client crate decides; `docs/get.md` has the exit codes.

mod body;
mod cached;
mod exit;
mod har;
mod many;
mod options;
mod print;
mod save;
mod setup;
pub mod show;

pub use options::Get;

use eleven_client::{Cause, Failure};
use eleven_semantics::uri::Uri;
use setup::Setup;
use show::Show;
use std::any::Any;
use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use tokio::sync::{Notify, Semaphore};

impl Get {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let show = Rc::new(Show::new(&self));
        let setup = match Setup::new(&self, &show) {
            Ok(setup) => Rc::new(setup),
            Err(failure) => {
                show.failure(&failure);
                return exit::code(&failure);
            }
        };
        let options = Rc::new(self);
        let code = eleven_net::worker::run(go(options, Rc::clone(&setup), Rc::clone(&show)));
        match code {
            Ok(code) => code,
            Err(error) => {
                show.error(&format!("cannot start: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// All URLs, some at a time. The exit code is that of the first failure, in the order in which they were given.
async fn go(options: Rc<Get>, setup: Rc<Setup>, show: Rc<Show>) -> ExitCode {
    let cancel = Rc::new(Notify::new());
    tokio::task::spawn_local(interrupted(Rc::clone(&cancel), Rc::clone(&show)));
    tokio::task::spawn_local(tick());
    let places = Rc::new(Semaphore::new(options.parallel.clamp(1, 64)));
    let failures: Rc<RefCell<Vec<(usize, Failure)>>> = Rc::default();
    let mut running = tokio::task::JoinSet::new();
    let saving = options.saves();
    let done = many::pipelined(&options, &setup, &show, &cancel).await;
    for (index, uri) in setup.uris.iter().cloned().enumerate().filter(|(index, _)| !done.contains(index)) {
        // What goes to standard output goes there one after the other.
        if !saving {
            let result = one(&options, &setup, &show, uri, &cancel, None).await;
            note(&failures, &show, index, result);
            continue;
        }
        let Ok(place) = acquire(&places, &mut running).await else { break };
        let (options, setup, show, cancel, failures) = (
            Rc::clone(&options),
            Rc::clone(&setup),
            Rc::clone(&show),
            Rc::clone(&cancel),
            Rc::clone(&failures),
        );
        running.spawn_local(async move {
            let result = one(&options, &setup, &show, uri, &cancel, Some(Box::new(place))).await;
            note(&failures, &show, index, result);
        });
    }
    while running.join_next().await.is_some() {}
    let mut failures = failures.take();
    if let Err(failure) = setup.finish(&options) {
        show.failure(&failure);
        failures.push((usize::MAX, failure));
    }
    show.finish();
    failures.sort_by_key(|(index, _)| *index);
    failures.first().map_or(ExitCode::SUCCESS, |(_, failure)| exit::code(failure))
}

/// Files at a time that are received or wait for the disk.
const UNFINISHED_MAX: usize = 256;

/// A place among those that run. Finished tasks are taken off the set on the way.
async fn acquire(
    places: &Rc<Semaphore>,
    running: &mut tokio::task::JoinSet<()>,
) -> Result<Place, tokio::sync::AcquireError> {
    while running.try_join_next().is_some() {}
    while running.len() >= UNFINISHED_MAX {
        let _ = running.join_next().await;
    }
    let permit = places.acquire().await?;
    permit.forget();
    Ok(Place(Rc::clone(places)))
}

/// Gives its place back when dropped.
struct Place(Rc<Semaphore>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

fn note(failures: &RefCell<Vec<(usize, Failure)>>, show: &Show, index: usize, result: Result<(), Failure>) {
    if let Err(failure) = result {
        show.failure(&failure);
        failures.borrow_mut().push((index, failure));
    }
}

async fn one(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    uri: Uri,
    cancel: &Rc<Notify>,
    place: Option<Box<dyn Any>>,
) -> Result<(), Failure> {
    let work = async {
        if options.saves() {
            save::save(options, setup, show, uri, cancel, place).await
        } else {
            let printed = async {
                match &setup.cache {
                    Some(cache) => cached::print(options, setup, show, cache, uri).await,
                    None => print::print(options, setup, show, uri).await,
                }
            };
            tokio::select! {
                result = printed => result,
                () = cancel.notified() => Err(Failure::new(eleven_client::Phase::Content, Cause::Cancelled)),
            }
        }
    };
    match options.max_time {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit.0, work).await {
            Ok(result) => result,
            Err(_) => {
                let milliseconds = limit.0.as_millis() as u64;
                Err(Failure::new(eleven_client::Phase::Content, Cause::Timeout(milliseconds)))
            }
        },
    }
}

/// Keeps a timer at hand that rings sooner than any deadline of an exchange. Without one the runtime wakes itself for
/// every deadline that is set (a write and a wait for each request).
async fn tick() {
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// The first interrupt ends what runs and keeps what was received; the second ends the program.
async fn interrupted(cancel: Rc<Notify>, show: Rc<Show>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        show.note("interrupted; keeping what was received");
        cancel.notify_waiters();
        cancel.notify_one();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
