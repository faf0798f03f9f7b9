//! Many small files from one origin with `--pipeline`: requests go out ahead of their answers. Whatever is not a
//! plain, whole, small file that came as asked for is left to the ordinary way.

use super::options::Get;
use super::report::Report;
use super::setup::Setup;
use super::show::Show;
use eleven_client::journal::Subject;
use eleven_client::partial::{Directory, Overwrite, Partial};
use eleven_client::pipeline::Sink;
use eleven_client::progress::Event;
use eleven_client::replies::{self, Asked, Reply};
use eleven_client::verify::{Promises, Running};
use eleven_client::{Cause, Failure, Phase};
use eleven_messaging::ResponseHead;
use eleven_semantics::content_disposition::download_name;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Method};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Files longer than this are no small files: the rest of the pipeline would wait behind them.
const SMALL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Connections to one origin, as many as its pool has.
const CONNECTIONS_MAX: usize = 6;

/// Requests of one run; between two runs an ordinary request proves the connection anew.
const RUN_MAX: usize = 1024;

/// Fetches what can be pipelined; the indices of what is done.
pub async fn pipelined(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    cancel: &Rc<Notify>,
    interrupted: &Rc<Cell<bool>>,
) -> HashSet<usize> {
    let mut done = HashSet::new();
    let Some(depth) = options.pipeline else { return done };
    let plain = options.saves()
        && options.output.is_empty()
        && options.range.is_none()
        && options.write_out.is_none()
        && options.time_cond.is_none()
        && !options.timestamping
        && !options.remote_time
        && setup.method == Method::Get
        && setup.mirrors.is_empty()
        && !options.compressed
        && options.sha256.is_none()
        && options.limit_rate.is_none();
    if !plain {
        show.note("--pipeline is for plain GETs that are saved; going on without it");
        return done;
    }
    let Ok(directory) = setup.directory(options) else { return done };
    let mut origins: HashMap<String, Vec<(usize, Uri)>> = HashMap::new();
    for (index, uri) in setup.uris.iter().cloned().enumerate() {
        let name = download_name(None, uri.path());
        let taken = !options.overwrite && !options.rename && directory.exists(&name);
        if taken || (options.resume && directory.has_partial(&name)) {
            continue; // refused, compared or gone on with, without fetching all of it
        }
        let origin = format!("{}://{}", uri.scheme().as_str(), uri.host_and_port());
        origins.entry(origin).or_default().push((index, uri));
    }
    for queue in origins.into_values() {
        let connections =
            (queue.len() / usize::from(depth)).clamp(1, options.parallel.clamp(1, CONNECTIONS_MAX));
        let lane = Rc::new(Lane {
            options: Rc::clone(options),
            setup: Rc::clone(setup),
            show: Rc::clone(show),
            cancel: Rc::clone(cancel),
            interrupted: Rc::clone(interrupted),
            directory: directory.clone(),
            depth: usize::from(depth),
            connections,
            queue: RefCell::new(queue.into()),
            done: RefCell::default(),
        });
        let mut running = JoinSet::new();
        for _ in 0..connections {
            running.spawn_local(Rc::clone(&lane).run());
        }
        while running.join_next().await.is_some() {}
        done.extend(lane.done.take());
    }
    done
}

/// What is to be fetched from one origin, and how; its connections take from it what they can.
struct Lane {
    options: Rc<Get>,
    setup: Rc<Setup>,
    show: Rc<Show>,
    cancel: Rc<Notify>,
    interrupted: Rc<Cell<bool>>,
    directory: Directory,
    depth: usize,
    connections: usize,
    queue: RefCell<VecDeque<(usize, Uri)>>,
    done: RefCell<Vec<usize>>,
}

impl Lane {
    /// One connection.
    async fn run(self: Rc<Self>) {
        loop {
            if self.interrupted.get() || self.queue.borrow().len() < 2 {
                return;
            }
            // An ordinary request first: it makes a connection that is known to persist, or takes the place of one
            // that failed (9112-9.3.2-04).
            let Some((index, uri)) = self.queue.borrow_mut().pop_front() else { return };
            let report = RefCell::new(Report::new(uri, "GET"));
            let (options, setup, show) = (&self.options, &self.setup, &self.show);
            let saved =
                Box::pin(super::save::save(options, setup, show, index, &self.cancel, None, &report)).await;
            if saved.is_ok() {
                self.done.borrow_mut().push(index);
            }
            let run = self.take();
            if run.is_empty() {
                return;
            }
            let answered = self.pipeline(&run).await;
            let mut queue = self.queue.borrow_mut();
            run.into_iter().skip(answered).rev().for_each(|left| queue.push_front(left));
            if answered == 0 {
                return; // this origin is not for pipelining
            }
        }
    }

    /// A fair share of what is left, so that all connections come to their end together.
    fn take(&self) -> Vec<(usize, Uri)> {
        let mut queue = self.queue.borrow_mut();
        let share = queue.len().div_ceil(self.connections).max(self.depth).min(RUN_MAX).min(queue.len());
        queue.drain(..share).collect()
    }

    /// How many were answered.
    async fn pipeline(&self, run: &[(usize, Uri)]) -> usize {
        let mut files = Files::new(&self.directory, &self.options, &self.show, run);
        let asks = run.iter().map(|(_, uri)| self.setup.ask(uri)).collect();
        let ended = tokio::select! {
            ended = self.setup.agent.pipelined(asks, self.depth, &mut files) => ended,
            () = self.cancel.notified() => Ok(None),
        };
        let finished = files.finish().await;
        self.done.borrow_mut().extend(finished);
        match ended {
            Ok(Some(ended)) => ended.answered,
            Ok(None) | Err(_) => 0,
        }
    }
}

/// Takes answers and makes files of them.
struct Files<'a> {
    directory: &'a Directory,
    overwrite: Overwrite,
    disposition: bool,
    show: &'a Rc<Show>,
    run: &'a [(usize, Uri)],
    current: Option<(Partial, u64, Promises)>,
    commits: JoinSet<(usize, Result<(), Failure>)>,
    done: Vec<usize>,
}

impl<'a> Files<'a> {
    fn new(
        directory: &'a Directory,
        options: &Get,
        show: &'a Rc<Show>,
        run: &'a [(usize, Uri)],
    ) -> Files<'a> {
        let overwrite = match (options.overwrite, options.rename) {
            (true, _) => Overwrite::Replace,
            (_, true) => Overwrite::Rename,
            _ => Overwrite::Refuse,
        };
        Files {
            directory,
            overwrite,
            disposition: options.remote_name,
            show,
            run,
            current: None,
            commits: JoinSet::new(),
            done: Vec::new(),
        }
    }

    fn take_commits(
        &mut self,
        joined: Option<Result<(usize, Result<(), Failure>), tokio::task::JoinError>>,
    ) -> bool {
        match joined {
            None => false,
            Some(Ok((index, Ok(())))) => {
                self.done.push(index);
                true
            }
            Some(Ok((_, Err(failure)))) => {
                self.show.note(&failure.to_string());
                true
            }
            Some(Err(_)) => true,
        }
    }

    async fn finish(mut self) -> Vec<usize> {
        if let Some((mut partial, _, _)) = self.current.take() {
            partial.discard();
        }
        loop {
            let joined = self.commits.join_next().await;
            if !self.take_commits(joined) {
                return self.done;
            }
        }
    }
}

impl Sink for Files<'_> {
    fn head(&mut self, index: usize, head: &ResponseHead) -> Result<(), Failure> {
        let uri = &self.run[index].1;
        self.current = None;
        let Reply::Whole(subject) = replies::judge(Asked::Whole, "", head) else { return Ok(()) };
        let small = head.framing.content_length().is_some_and(|length| length <= SMALL_BYTES_MAX);
        let coded = head.fields.list(Known::ContentEncoding).next().is_some();
        if !small || coded {
            // Too large to let everything wait behind it: this connection ends here, for the ordinary way.
            return if small { Ok(()) } else { Err(Failure::new(Phase::Content, Cause::Cancelled)) };
        }
        let field = head.fields.get(Known::ContentDisposition).filter(|_| self.disposition);
        let name = download_name(field, uri.path());
        let Ok(mut partial) = Partial::small(self.directory, &name, self.overwrite) else { return Ok(()) };
        let mut promises = Promises::default();
        if promises.add(&head.fields, true).is_err() {
            return Ok(());
        }
        partial.begin(Subject { etag: None, last_modified: None, ..subject })?;
        self.current = Some((partial, 0, promises));
        Ok(())
    }

    fn data(&mut self, _: usize, octets: &[u8]) -> Result<(), Failure> {
        if let Some((partial, at, _)) = &mut self.current {
            partial.write(octets, *at)?;
            *at += octets.len() as u64;
        }
        Ok(())
    }

    fn end(&mut self, index: usize, trailers: Option<&Fields>) -> Result<(), Failure> {
        let Some((mut partial, bytes, mut promises)) = self.current.take() else { return Ok(()) };
        let index = self.run[index].0;
        if let Some(trailers) = trailers {
            promises.add(trailers, true)?;
        }
        let (show, overwrite) = (Rc::clone(self.show), self.overwrite);
        self.commits.spawn_local(async move {
            let result = async {
                if !promises.is_empty() {
                    let running = Running::new(promises.algorithms());
                    let made = running.finish(std::sync::Arc::clone(partial.file())).await?;
                    promises.check(&made).inspect_err(|_| partial.distrust())?;
                }
                let path = partial.commit(overwrite).await?;
                show.progress(String::new())(&Event::Done { path: Some(&path), bytes });
                Ok(())
            };
            (index, result.await)
        });
        while let Some(joined) = self.commits.try_join_next() {
            self.take_commits(Some(joined));
        }
        Ok(())
    }
}
