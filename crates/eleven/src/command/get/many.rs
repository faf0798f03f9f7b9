//! Many small files from one origin with `--pipeline`: requests go out ahead of their answers. Whatever is not a
//! plain, whole, small file that came as asked for is left to the ordinary way.

use super::options::Get;
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
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Files longer than this are no small files: the rest of the pipeline would wait behind them.
const SMALL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Requests of one run; between two runs an ordinary request proves the connection anew.
const RUN_MAX: usize = 1024;

/// Fetches what can be pipelined; the indices of what is done.
pub async fn pipelined(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    cancel: &Rc<Notify>,
) -> HashSet<usize> {
    let mut done = HashSet::new();
    let Some(depth) = options.pipeline else { return done };
    let plain = options.saves()
        && options.output.is_none()
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
    for mut queue in origins.into_values() {
        queue.reverse();
        while queue.len() > 1 {
            // An ordinary request first: it makes a connection that is known to persist, or takes the place of one
            // that failed (9112-9.3.2-04).
            let Some((index, uri)) = queue.pop() else { break };
            if super::save::save(options, setup, show, uri, cancel, None).await.is_ok() {
                done.insert(index);
            }
            let run: Vec<(usize, Uri)> =
                queue.split_off(queue.len().saturating_sub(RUN_MAX)).into_iter().rev().collect();
            let mut files = Files::new(&directory, options, show, &run);
            let asks = run.iter().map(|(_, uri)| setup.ask(uri)).collect();
            let ended = setup.agent.pipelined(asks, usize::from(depth), &mut files).await;
            done.extend(files.finish().await);
            let answered = match ended {
                Ok(Some(ended)) => ended.answered,
                Ok(None) | Err(_) => 0,
            };
            if answered == 0 {
                break; // this origin is not for pipelining
            }
            queue.extend(run.into_iter().skip(answered).rev());
        }
    }
    done
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
