//! `eleven get`: fetches, saves, uploads. Words what the client crate decides; `docs/get.md` has the exit codes.

mod body;
mod cached;
mod exit;
mod har;
mod many;
mod options;
mod print;
mod report;
mod save;
mod setup;
pub mod show;

pub use options::Get;

use eleven_client::{Cause, Failure};
use report::Report;
use setup::Setup;
use show::Show;
use std::any::Any;
use std::cell::{Cell, RefCell};
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
    let interrupted = Rc::new(Cell::new(false));
    tokio::task::spawn_local(heed_interrupts(Rc::clone(&cancel), Rc::clone(&interrupted), Rc::clone(&show)));
    tokio::task::spawn_local(tick());
    let places = Rc::new(Semaphore::new(options.parallel.clamp(1, 64)));
    let failures: Rc<RefCell<Vec<(usize, Failure)>>> = Rc::default();
    let mut running = tokio::task::JoinSet::new();
    let saving = options.saves();
    let done = many::pipelined(&options, &setup, &show, &cancel, &interrupted).await;
    for index in (0..setup.uris.len()).filter(|index| !done.contains(index)) {
        // What goes to standard output goes there one after the other.
        if !saving && interrupted.get() {
            break;
        }
        if !saving {
            let result = one(&options, &setup, &show, index, &cancel, None).await;
            note(&failures, &show, index, result);
            continue;
        }
        let Ok(place) = acquire(&places, &mut running).await else { break };
        if interrupted.get() {
            let failure = Failure::new(eleven_client::Phase::Prepare, Cause::Cancelled);
            failures.borrow_mut().push((index, failure));
            break; // what was not begun is not begun any more
        }
        let (options, setup, show, cancel, failures) = (
            Rc::clone(&options),
            Rc::clone(&setup),
            Rc::clone(&show),
            Rc::clone(&cancel),
            Rc::clone(&failures),
        );
        running.spawn_local(async move {
            let result = one(&options, &setup, &show, index, &cancel, Some(Box::new(place))).await;
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
    index: usize,
    cancel: &Rc<Notify>,
    place: Option<Box<dyn Any>>,
) -> Result<(), Failure> {
    let report = RefCell::new(Report::new(setup.uris[index].clone(), setup.method.as_str()));
    let result = limited(options, setup, show, index, cancel, place, &report).await;
    if let Some(format) = &options.write_out {
        let text = report.borrow().text(format, result.as_ref().err());
        let mut out = std::io::stdout().lock();
        let written =
            std::io::Write::write_all(&mut out, &text).and_then(|()| std::io::Write::flush(&mut out));
        written.map_err(|error| print::output_failure(&error))?;
    }
    result
}

async fn limited(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    index: usize,
    cancel: &Rc<Notify>,
    place: Option<Box<dyn Any>>,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    let uri = setup.uris[index].clone();
    // In boxes: what prints is not what saves, and none of it should be moved about for each of many files.
    let work = async {
        if options.saves() {
            Box::pin(save::save(options, setup, show, index, cancel, place, report)).await
        } else {
            let printed = async {
                match &setup.cache {
                    Some(cache) => cached::print(options, setup, show, cache, uri).await,
                    None => print::print(options, setup, show, uri, report).await,
                }
            };
            tokio::select! {
                result = Box::pin(printed) => result,
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
async fn heed_interrupts(cancel: Rc<Notify>, interrupted: Rc<Cell<bool>>, show: Rc<Show>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        interrupted.set(true);
        show.note("interrupted; keeping what was received");
        cancel.notify_waiters();
        cancel.notify_one();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
