//! One file, from wherever it can be had to where it should be: complete, verified, or not there at all.
//!
//! The driver of `segments.rs` (what next), `replies.rs` (what came), `partial.rs` (where it goes) and
//! `verify.rs` (whether it is right). Transient failures go on where they happened, in the same run; a journal
//! lets a later run do so. Does not know how to show any of it.

use crate::agent::{Agent, Ask, Hop, Response, Times};
use crate::decode::{self, DecodeError, Decoder};
use crate::error::{Cause, Failure, Phase};
use crate::partial::{Directory, Overwrite, Partial};
use crate::progress::{Event, Progress};
use crate::rate::{Minimum, RateLimit};
use crate::replies::{self, Asked, Reply};
use crate::segments::{Claim, Plan, RangeSet, SPLIT_BYTES_MIN};
use crate::verify::{self, Promises};
use eleven_net::clock;
use eleven_semantics::content_disposition::download_name;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Status};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Octets read at a time: few system calls, and no more memory than a small image.
pub const READ_BYTES: usize = 256 * 1024;

/// How many connections fetch one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// So many, if the server and the length allow it.
    Fixed(usize),
    /// As many as make it faster.
    Auto,
}

/// How the file is named.
#[derive(Debug, Clone)]
pub enum Naming {
    /// So.
    Fixed(String),
    /// By the last part of the URI that was asked for, or by Content-Disposition if `disposition`.
    Remote {
        /// Heed Content-Disposition.
        disposition: bool,
    },
}

/// How a download behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to do if the name is taken.
    pub overwrite: Overwrite,
    /// Go on with what an earlier run left.
    pub resume: bool,
    /// Connections.
    pub segments: Segments,
    /// Smallest piece worth a connection, in octets.
    pub split_bytes_min: u64,
    /// Attempts after the first that make no progress, before it is given up.
    pub retries_max: u32,
    /// Pause before the first retry; doubled each time.
    pub retry_pause_ms: u64,
    /// Longest pause, also if the server asks for more (fault K43).
    pub retry_pause_ms_max: u64,
    /// Octets per second; none for as fast as possible.
    pub rate_limit: Option<u64>,
    /// The digest it must have.
    pub sha256: Option<[u8; 32]>,
    /// Ask for content codings and undo them. Then nothing can be resumed or split.
    pub decode: bool,
    /// Save the content of an error response under the name, too.
    pub save_errors: bool,
    /// Time between two checkpoints.
    pub checkpoint_ms: u64,
    /// Octets between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Octets of content at most.
    pub content_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            overwrite: Overwrite::Refuse,
            resume: false,
            segments: Segments::Fixed(1),
            split_bytes_min: SPLIT_BYTES_MIN,
            retries_max: 5,
            retry_pause_ms: 1_000,
            retry_pause_ms_max: 300_000,
            rate_limit: None,
            sha256: None,
            decode: false,
            save_errors: false,
            checkpoint_ms: 2_000,
            checkpoint_bytes: 256 * 1024 * 1024,
            content_bytes_max: u64::MAX,
        }
    }
}

/// What to fetch.
pub struct Task {
    /// The file, and mirrors of it.
    pub uris: Vec<Uri>,
    /// Makes the request for one of them; ranges are added here.
    pub ask: Box<dyn Fn(&Uri) -> Ask>,
    /// Where it goes.
    pub directory: Directory,
    /// Under which name.
    pub naming: Naming,
    /// How.
    pub options: Options,
}

/// A download that is there.
#[derive(Debug)]
pub struct Done {
    /// Where.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Octets received in this run.
    pub received: u64,
    /// Octets that an earlier run had left.
    pub resumed: u64,
    /// What was verified.
    pub verified: Vec<&'static str>,
    /// Who answered.
    pub uri: Uri,
    /// The way there.
    pub hops: Vec<Hop>,
    /// The status of the first response.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long the first response took.
    pub times: Times,
}

/// What the connections of one download share.
struct Shared {
    agent: Rc<Agent>,
    progress: Progress,
    ask: Box<dyn Fn(&Uri) -> Ask>,
    uris: Vec<Uri>,
    options: Options,
    partial: RefCell<Option<Partial>>,
    plan: RefCell<Plan>,
    rate: RefCell<Option<RateLimit>>,
    /// Octets received in this run.
    received: Cell<u64>,
    /// Connections that fetch.
    active: Cell<usize>,
    /// A helper was refused: no more of them.
    saturated: Cell<bool>,
    /// The server does not do ranges.
    single: Cell<bool>,
    /// The length was not told beforehand.
    open_ended: Cell<bool>,
    failed: RefCell<Option<Failure>>,
    changed: Notify,
}

/// Runs a download. `cancel` ends it early; what was received is kept for a later run.
///
/// # Errors
/// Why the file is not there. Nothing that was there before was touched.
pub async fn run(
    agent: Rc<Agent>,
    task: Task,
    progress: Progress,
    cancel: Rc<Notify>,
) -> Result<Done, Failure> {
    let Task { uris, ask, directory, naming, options } = task;
    let shared = Rc::new(Shared {
        agent,
        progress,
        ask,
        uris,
        plan: RefCell::new(Plan::new(0, RangeSet::new(), 1, options.split_bytes_min)),
        rate: RefCell::new(options.rate_limit.map(RateLimit::new)),
        options,
        partial: RefCell::new(None),
        received: Cell::new(0),
        active: Cell::new(0),
        saturated: Cell::new(false),
        single: Cell::new(false),
        open_ended: Cell::new(false),
        failed: RefCell::new(None),
        changed: Notify::new(),
    });
    let mut download = Download {
        shared: Rc::clone(&shared),
        directory,
        naming,
        promises: Promises::default(),
        first: None,
        resumed: 0,
        restarts: 0,
    };
    if let Some(sha256) = shared.options.sha256 {
        download.promises.user(sha256);
    }
    let result = tokio::select! {
        result = download.persist() => result,
        () = cancel.notified() => Err(Failure::new(Phase::Content, Cause::Cancelled)),
    };
    match result {
        Ok(()) => download.complete().await,
        Err(failure) => {
            let partial = shared.partial.borrow_mut().take();
            if let Some(mut partial) = partial {
                let done = shared.plan.borrow().done().clone();
                // The failure to tell is the first one; what was durable stays durable.
                let _ = partial.park(&done).await;
            }
            Err(failure)
        }
    }
}

/// The first response, for the report.
struct First {
    uri: Uri,
    hops: Vec<Hop>,
    status: Status,
    fields: Fields,
    times: Times,
}

struct Download {
    shared: Rc<Shared>,
    directory: Directory,
    naming: Naming,
    promises: Promises,
    first: Option<First>,
    resumed: u64,
    restarts: u32,
}

/// How an attempt ended.
enum Attempt {
    /// Everything is here.
    Complete,
    /// Begin again from nothing.
    Restart,
}

impl Download {
    /// Attempts until it is here, or failed for good.
    async fn persist(&mut self) -> Result<(), Failure> {
        self.prepare()?;
        let mut fruitless = 0;
        // Octets that came a second time are no progress: a server that always breaks at the same place is not
        // asked for ever.
        let mut most = self.shared.plan.borrow().done().total();
        loop {
            let failure = match self.attempt().await {
                Ok(Attempt::Complete) => return Ok(()),
                Ok(Attempt::Restart) if self.restarts < 3 => {
                    self.restarts += 1;
                    continue;
                }
                Ok(Attempt::Restart) => {
                    let text = "the file on the server changes all the time".to_owned();
                    return Err(Failure::new(Phase::Verify, Cause::Changed(text)));
                }
                Err((failure, retry_after)) => (failure, retry_after),
            };
            let (failure, retry_after) = failure;
            let here = self.shared.plan.borrow().done().total();
            fruitless = if here > most { 0 } else { fruitless + 1 };
            most = most.max(here);
            if !failure.is_transient() || fruitless > self.shared.options.retries_max {
                return Err(failure);
            }
            let pause = pause(&self.shared.options, fruitless, retry_after);
            let Some(pause) = pause else { return Err(failure) };
            self.shared.tell(&Event::Retry(&failure, pause));
            self.shared.checkpoint()?;
            // Whoever had pieces is gone: they are free again.
            let (length, done) = {
                let plan = self.shared.plan.borrow();
                (plan.length(), plan.done().clone())
            };
            self.replan(length, done);
            self.shared.saturated.set(self.shared.single.get());
            self.shared.failed.borrow_mut().take();
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens the file, if its name is known, with what an earlier run left, if that is to be used.
    fn prepare(&mut self) -> Result<(), Failure> {
        let name = match &self.naming {
            Naming::Fixed(name) => name.clone(),
            Naming::Remote { .. } => download_name(None, self.shared.uris[0].path()),
        };
        let known = !matches!(self.naming, Naming::Remote { disposition: true });
        let resume = self.shared.options.resume && !self.shared.options.decode;
        if known || (resume && self.directory.has_partial(&name)) {
            let name = self.directory.choose(&name, self.shared.options.overwrite)?;
            self.open(&name)?;
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<(), Failure> {
        let resume = self.shared.options.resume && !self.shared.options.decode;
        let (partial, journal) = Partial::open(&self.directory, name, resume)?;
        match journal {
            // An entity tag is unique among the representations of one resource only (RFC 9110 §8.8.3).
            Some(Ok(journal))
                if !self.shared.uris.iter().any(|uri| uri.without_fragment() == journal.subject.uri)
                    && self.shared.options.sha256.is_none() =>
            {
                let text = format!("what is here was fetched from {}; beginning anew", journal.subject.uri);
                self.shared.tell(&Event::Note(&text));
            }
            Some(Ok(journal)) => {
                self.resumed = journal.done.total();
                let length = journal.subject.length.unwrap_or(u64::MAX);
                self.shared.open_ended.set(journal.subject.length.is_none());
                self.replan(length, journal.done);
            }
            Some(Err(why)) => {
                let text = format!("the journal of an earlier run cannot be used ({why}); beginning anew");
                self.shared.tell(&Event::Note(&text));
            }
            None => {}
        }
        *self.shared.partial.borrow_mut() = Some(partial);
        Ok(())
    }

    fn replan(&self, length: u64, done: RangeSet) {
        let split = self.shared.options.split_bytes_min;
        *self.shared.plan.borrow_mut() = Plan::new(length, done, 1, split);
    }

    /// One request and what follows from it. A failure comes with the server's Retry-After.
    async fn attempt(&mut self) -> Result<Attempt, (Failure, Option<Duration>)> {
        let claim = self.resume_claim();
        if claim.is_none()
            && self.shared.plan.borrow().length() > 0
            && self.shared.plan.borrow().is_complete()
        {
            return Ok(Attempt::Complete);
        }
        let uri = self.shared.uris[0].clone();
        let mut ask = (self.shared.ask)(&uri);
        let subject = self.shared.partial.borrow().as_ref().and_then(|p| p.subject().cloned());
        let asked = match (&claim, &subject) {
            (Some(claim), Some(subject)) => {
                let end = (claim.end < self.shared.plan.borrow().length()).then_some(claim.end);
                add_range(&mut ask, claim.start, end, subject.if_range())
                    .map_err(|failure| (failure, None))?;
                Asked::Part { start: claim.start, end, subject }
            }
            _ => Asked::Whole,
        };
        if self.shared.options.decode && !ask.fields.contains(Known::AcceptEncoding) {
            let _ = ask.fields.push(Known::AcceptEncoding, decode::ACCEPT_ENCODING);
        }
        let response = match self.shared.agent.send(ask).await {
            Ok(response) => response,
            Err(failure) => {
                self.shared.release(claim);
                return Err((failure, None));
            }
        };
        let reply = replies::judge(asked, &uri.without_fragment(), response.head());
        self.remember(&response);
        match reply {
            Reply::Part { start, end, length } => {
                let Some(claim) = claim else {
                    return Err((unusable(&response, "a part not asked for"), None));
                };
                self.promise(&response, false).map_err(|failure| (failure, None))?;
                if let Some(digest) = subject.as_ref().and_then(|subject| subject.repr_digest.clone()) {
                    let fields: Fields = [(Known::ReprDigest, digest)].iter().collect();
                    self.promises.add(&fields, false).map_err(|failure| (failure, None))?;
                }
                if let Some(partial) = self.shared.partial.borrow_mut().as_mut() {
                    partial.learn_length(length);
                }
                if self.shared.open_ended.replace(false) {
                    // Only now is the length known: the plan gets its end.
                    let done = self.shared.plan.borrow().done().clone();
                    self.replan(length, done);
                    return self.fetch_claimed(response, end).await;
                }
                debug_assert_eq!(start, claim.start);
                self.fetch(response, claim, end).await
            }
            Reply::Complete { .. } => {
                response.drain().await;
                let bytes = self.shared.plan.borrow().done().total();
                let done = self.shared.plan.borrow().done().clone();
                self.replan(bytes, done);
                Ok(Attempt::Complete)
            }
            Reply::Whole(subject) => self.begin(response, subject).await,
            Reply::RangeIgnored(subject) => {
                self.shared
                    .tell(&Event::Note("the server ignores ranges; fetching the whole file in one stream"));
                self.shared.single.set(true);
                self.shared.saturated.set(true);
                self.begin(response, subject).await
            }
            Reply::Changed(subject, why) => {
                let text = format!("{why}; beginning anew");
                self.shared.tell(&Event::Note(&text));
                match subject {
                    Some(subject) if self.restarts < 3 => {
                        self.restarts += 1;
                        self.begin(response, subject).await
                    }
                    _ => {
                        response.drain().await;
                        self.forget().map_err(|failure| (failure, None))?;
                        Ok(Attempt::Restart)
                    }
                }
            }
            Reply::Unusable(why) => {
                self.shared.release(claim);
                Err((unusable(&response, why), None))
            }
            Reply::Status(code) => {
                self.shared.release(claim);
                Err(self.refused(response, code).await)
            }
        }
    }

    /// The first piece that is missing of what an earlier attempt began.
    fn resume_claim(&self) -> Option<Claim> {
        let known = self.shared.partial.borrow().as_ref().and_then(|p| p.subject().cloned())?;
        known.if_range()?;
        if self.shared.plan.borrow().done().total() == 0 {
            return None;
        }
        self.shared.plan.borrow_mut().claim()
    }

    fn remember(&mut self, response: &Response) {
        if self.first.is_none() || response.head().status != Status::PARTIAL_CONTENT {
            self.first = Some(First {
                uri: response.uri.clone(),
                hops: response.hops.clone(),
                status: response.head().status,
                fields: response.head().fields.clone(),
                times: response.times,
            });
        }
    }

    fn promise(&mut self, response: &Response, whole: bool) -> Result<(), Failure> {
        let mut promises = Promises::default();
        if let Some(sha256) = self.shared.options.sha256 {
            promises.user(sha256);
        }
        promises.add(&response.head().fields, whole)?;
        self.promises = promises;
        Ok(())
    }

    /// An error response.
    async fn refused(&mut self, mut response: Response, code: u16) -> (Failure, Option<Duration>) {
        let failure = Failure::new(Phase::Head, Cause::Status(code))
            .at(response.uri.host_and_port(), response.address());
        let after = retry_after(&response.head().fields);
        if self.shared.options.save_errors && !failure.is_transient() {
            match self.save_error(&mut response).await {
                Ok(path) => {
                    let text = format!("the content of the error is in {}", path.display());
                    self.shared.tell(&Event::Note(&text));
                }
                Err(other) => self.shared.tell(&Event::Note(&other.to_string())),
            }
        }
        response.drain().await;
        (failure, after)
    }

    async fn save_error(&mut self, response: &mut Response) -> Result<PathBuf, Failure> {
        let name = match &self.naming {
            Naming::Fixed(name) => name.clone(),
            Naming::Remote { .. } => download_name(None, self.shared.uris[0].path()),
        };
        let name = self.directory.choose(&format!("{name}.error"), Overwrite::Rename)?;
        let (partial, _) = Partial::open(&self.directory, &name, false)?;
        let mut at = 0;
        while let Some(data) = response.data().await? {
            partial.write(data, at)?;
            at += data.len() as u64;
        }
        partial.commit(Overwrite::Refuse).await
    }

    fn forget(&mut self) -> Result<(), Failure> {
        self.resumed = 0;
        self.replan(0, RangeSet::new());
        if let Some(partial) = self.shared.partial.borrow_mut().as_mut() {
            partial.begin(crate::journal::Subject {
                uri: String::new(),
                etag: None,
                last_modified: None,
                length: None,
                repr_digest: None,
            })?;
        }
        Ok(())
    }

    /// The whole file comes, from its first octet on.
    async fn begin(
        &mut self,
        response: Response,
        subject: crate::journal::Subject,
    ) -> Result<Attempt, (Failure, Option<Duration>)> {
        let here = |failure: Failure| (failure, None);
        if self.shared.partial.borrow().is_none() {
            let Naming::Remote { disposition } = &self.naming else {
                return Err(here(Failure::new(Phase::File, Cause::Unusable("no file to write to".into()))));
            };
            let field = response.head().fields.get(Known::ContentDisposition).filter(|_| *disposition);
            // K28: the name is that of the URI the user gave, wherever a redirection led.
            let name = download_name(field, self.shared.uris[0].path());
            let name = self.directory.choose(&name, self.shared.options.overwrite).map_err(here)?;
            let left = self.shared.options.resume && self.directory.has_partial(&name);
            self.open(&name).map_err(here)?;
            if left && self.resumed > 0 {
                // Found only now: ask again, for what is missing.
                return Ok(Attempt::Restart);
            }
        }
        self.resumed = 0;
        self.promise(&response, true).map_err(here)?;
        let decoder = if self.shared.options.decode {
            Decoder::for_fields(&response.head().fields)
                .map_err(|why| here(Failure::new(Phase::Content, Cause::Coding(why.to_string()))))?
        } else {
            None
        };
        let length = if decoder.is_some() { None } else { subject.length };
        if length.is_some_and(|length| length > self.shared.options.content_bytes_max) {
            let cause = Cause::TooLarge("content_bytes_max", self.shared.options.content_bytes_max);
            return Err(here(Failure::new(Phase::Content, cause)));
        }
        let resumable = decoder.is_none();
        let subject = if resumable {
            subject
        } else {
            crate::journal::Subject { etag: None, last_modified: None, length: None, ..subject }
        };
        {
            let mut partial = self.shared.partial.borrow_mut();
            let Some(partial) = partial.as_mut() else {
                return Err(here(Failure::new(Phase::File, Cause::Unusable("no file to write to".into()))));
            };
            partial.begin(subject).map_err(here)?;
        }
        self.shared.open_ended.set(length.is_none());
        self.replan(length.unwrap_or(u64::MAX), RangeSet::new());
        if length == Some(0) {
            response.drain().await;
            return Ok(Attempt::Complete);
        }
        match decoder {
            Some(decoder) => self.decode(response, decoder).await.map_err(here),
            None => self.fetch_claimed(response, length.unwrap_or(u64::MAX)).await,
        }
    }

    /// Encoded content: decoded as it comes, in one stream.
    async fn decode(&mut self, mut response: Response, mut decoder: Decoder) -> Result<Attempt, Failure> {
        self.announce(None);
        let shared = Rc::clone(&self.shared);
        let mut hashers: Vec<_> = self
            .promises
            .algorithms()
            .into_iter()
            .map(eleven_semantics::digest_fields::Hasher::new)
            .collect();
        let mut at = 0u64;
        loop {
            let Some(data) = response.data().await? else { break };
            hashers.iter_mut().for_each(|hasher| hasher.update(data));
            let received = data.len() as u64;
            let partial = shared.partial.borrow();
            let Some(partial) = partial.as_ref() else { break };
            let limit = shared.options.content_bytes_max;
            let mut sink = |octets: &[u8]| {
                if at + octets.len() as u64 > limit {
                    return Err(Failure::new(Phase::Content, Cause::TooLarge("content_bytes_max", limit)));
                }
                partial.write(octets, at)?;
                at += octets.len() as u64;
                Ok(())
            };
            decoder.push(data, &mut sink).map_err(|error| match error {
                DecodeError::Coding(why) => Failure::new(Phase::Content, Cause::Coding(why.to_string())),
                DecodeError::Sink(failure) => failure,
            })?;
            shared.received.set(shared.received.get() + received);
            shared.tell(&Event::Here(at));
        }
        decoder.finish().map_err(|why| Failure::new(Phase::Content, Cause::Coding(why.to_string())))?;
        if let Some(trailers) = response.trailers().cloned() {
            self.promises.add(&trailers, true)?;
        }
        response.finish().await;
        // Digests are of the coded octets; they were made on the way, if they were known before.
        let made: Vec<_> = hashers.into_iter().map(|hasher| hasher.finish()).collect();
        self.promises.check(&made)?;
        self.promises = Promises::default();
        let mut done = RangeSet::new();
        done.insert(0, at);
        self.replan(at, done);
        Ok(Attempt::Complete)
    }

    fn announce(&self, length: Option<u64>) {
        let partial = self.shared.partial.borrow();
        let path = partial.as_ref().map(Partial::final_path).unwrap_or_default();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.shared.tell(&Event::Begun { name: &name, length, resumed: self.resumed });
    }

    async fn fetch_claimed(
        &mut self,
        response: Response,
        end: u64,
    ) -> Result<Attempt, (Failure, Option<Duration>)> {
        let claim = self.shared.plan.borrow_mut().claim();
        match claim {
            Some(claim) => self.fetch(response, claim, end).await,
            None => Ok(Attempt::Complete),
        }
    }

    /// Reads the response that is here, with helpers where that pays, until every octet is here.
    async fn fetch(
        &mut self,
        response: Response,
        claim: Claim,
        end: u64,
    ) -> Result<Attempt, (Failure, Option<Duration>)> {
        let shared = Rc::clone(&self.shared);
        let length = (!shared.open_ended.get()).then(|| shared.plan.borrow().length());
        self.announce(length);
        let can_split = length.is_some()
            && !shared.saturated.get()
            && may_split(&response)
            && self
                .shared
                .partial
                .borrow()
                .as_ref()
                .is_some_and(|p| p.subject().is_some_and(|subject| subject.if_range().is_some()));
        let keeper = Aborting(vec![tokio::task::spawn_local(keep(Rc::clone(&shared), can_split))]);
        shared.active.set(1);
        let whole = response.head().status != Status::PARTIAL_CONTENT;
        let read = shared.pump(response, claim, end, true).await;
        let trailers = match read {
            Ok(trailers) => trailers,
            Err(failure) => {
                drop(keeper);
                return Err((failure, None));
            }
        };
        if let Some(trailers) = trailers {
            self.promises.add(&trailers, whole).map_err(|failure| (failure, None))?;
        }
        let rest = shared.finish_rest().await;
        drop(keeper);
        rest.map(|()| Attempt::Complete).map_err(|failure| (failure, None))
    }

    /// Verifies and gives the final name.
    async fn complete(mut self) -> Result<Done, Failure> {
        let shared = Rc::clone(&self.shared);
        let Some(mut partial) = shared.partial.borrow_mut().take() else {
            return Err(Failure::new(Phase::File, Cause::Unusable("no file was written".into())));
        };
        let bytes = shared.plan.borrow().done().total();
        partial.settle().await?;
        let on_disk = partial.file().metadata().map_err(|error| Failure::io(Phase::File, &error))?.len();
        if on_disk != bytes {
            partial.distrust();
            return Err(Failure::new(Phase::Verify, Cause::Short(on_disk, bytes)));
        }
        let mut verified = Vec::new();
        if !self.promises.is_empty() {
            shared.tell(&Event::Verifying);
            let made =
                verify::of_file(std::sync::Arc::clone(partial.file()), self.promises.algorithms()).await?;
            verified = self.promises.check(&made).inspect_err(|_| partial.distrust())?;
        }
        let path = partial.commit(shared.options.overwrite).await?;
        shared.tell(&Event::Done { path: Some(&path), bytes });
        let first = self.first.take().unwrap_or_else(|| First {
            uri: shared.uris[0].clone(),
            hops: Vec::new(),
            status: Status::OK,
            fields: Fields::new(),
            times: Times::default(),
        });
        Ok(Done {
            path,
            bytes,
            received: shared.received.get(),
            resumed: self.resumed,
            verified,
            uri: first.uri,
            hops: first.hops,
            status: first.status,
            fields: first.fields,
            times: first.times,
        })
    }
}

/// Tasks that end with their owner.
struct Aborting(Vec<JoinHandle<()>>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

fn may_split(response: &Response) -> bool {
    let fields = &response.head().fields;
    !fields.has_member(Known::AcceptRanges, "none")
        && fields.list(Known::ContentEncoding).next().is_none()
        && response.head().version >= eleven_semantics::Version::Http11
}

fn unusable(response: &Response, why: &str) -> Failure {
    Failure::new(Phase::Head, Cause::Malformed(why.to_owned()))
        .at(response.uri.host_and_port(), response.address())
}

fn add_range(ask: &mut Ask, start: u64, end: Option<u64>, if_range: Option<&str>) -> Result<(), Failure> {
    let mut value = Vec::new();
    eleven_semantics::range::write_range(&mut value, start, end.map(|end| end - 1));
    let set = |fields: &mut Fields, name: Known, value: &[u8]| {
        fields.set(name, value).map_err(|error| {
            Failure::new(Phase::Prepare, Cause::Unusable(format!("{}: {error}", name.name())))
        })
    };
    set(&mut ask.fields, Known::Range, &value)?;
    if let Some(validator) = if_range {
        set(&mut ask.fields, Known::IfRange, validator.as_bytes())?; // 9110-13.1.5-01
    }
    // Content-Encoding and ranges never mix.
    ask.fields.remove(Known::AcceptEncoding);
    Ok(())
}

/// Retry-After (9110-10.2.3-R1), as a wait from now.
fn retry_after(fields: &Fields) -> Option<Duration> {
    let value = fields.only(Known::RetryAfter).one()?;
    if let Some(seconds) = eleven_semantics::grammar::decimal_saturating(value) {
        return Some(Duration::from_secs(seconds.min(u64::from(u32::MAX))));
    }
    let now = eleven_semantics::date::HttpDate(clock::unix_seconds());
    let at = eleven_semantics::date::HttpDate::parse(value, now)?;
    Some(Duration::from_secs(u64::try_from(at.0 - now.0).unwrap_or(0)))
}

/// The pause before a retry; none if the server asks for more patience than there is (fault K43).
fn pause(options: &Options, fruitless: u32, retry_after: Option<Duration>) -> Option<Duration> {
    let longest = Duration::from_millis(options.retry_pause_ms_max);
    if let Some(asked) = retry_after {
        return (asked <= longest).then_some(asked);
    }
    if fruitless == 0 {
        return Some(Duration::from_millis(options.retry_pause_ms.min(100)));
    }
    let factor = 1u32.checked_shl(fruitless - 1).unwrap_or(u32::MAX);
    Some(Duration::from_millis(options.retry_pause_ms).saturating_mul(factor).min(longest))
}

impl Shared {
    fn release(&self, claim: Option<Claim>) {
        if let Some(claim) = claim {
            self.plan.borrow_mut().release(claim.id);
        }
    }

    fn tell(&self, event: &Event<'_>) {
        (self.progress)(event);
    }

    /// Reads a response into its piece, until the piece is finished or stolen away, or the response ends at
    /// `end`. Gives the connection back if everything of it was read.
    async fn pump(
        &self,
        mut response: Response,
        claim: Claim,
        end: u64,
        first: bool,
    ) -> Result<Option<Fields>, Failure> {
        let read_bytes = self.rate.borrow().as_ref().map_or(READ_BYTES, RateLimit::read_bytes);
        response.connection_mut().set_read_bytes(read_bytes);
        let result = self.pump_content(&mut response, claim, end).await;
        if result.is_err() {
            self.plan.borrow_mut().release(claim.id);
            return result;
        }
        let at_end = response.is_complete();
        let trailers = response.trailers().cloned();
        if at_end {
            response.finish().await;
        }
        self.plan.borrow_mut().release(claim.id);
        self.changed.notify_waiters();
        Ok(trailers.filter(|_| first && at_end))
    }

    async fn pump_content(
        &self,
        response: &mut Response,
        claim: Claim,
        end: u64,
    ) -> Result<Option<Fields>, Failure> {
        loop {
            if let Some(failure) = self.failed.borrow_mut().take() {
                return Err(failure);
            }
            let finished = self.plan.borrow().is_finished(claim.id);
            let position = self.plan.borrow().position(claim.id);
            if finished && position < end {
                return Ok(None); // the rest was stolen, or is not ours
            }
            let Some(data) = response.data().await? else {
                return self.content_ended(claim, position, end).map(|()| None);
            };
            let count = data.len() as u64;
            let wanted = self.plan.borrow().wanted(claim.id, count);
            if finished || (wanted < count && position + wanted >= end) {
                let text = "more octets than were promised".to_owned();
                return Err(Failure::new(Phase::Content, Cause::Malformed(text)));
            }
            if position + wanted > self.options.content_bytes_max {
                let cause = Cause::TooLarge("content_bytes_max", self.options.content_bytes_max);
                return Err(Failure::new(Phase::Content, cause));
            }
            {
                let partial = self.partial.borrow();
                let Some(partial) = partial.as_ref() else {
                    return Err(Failure::new(Phase::Content, Cause::Cancelled));
                };
                partial.write(&data[..wanted as usize], position)?;
            }
            self.plan.borrow_mut().advance(claim.id, wanted);
            self.received.set(self.received.get() + wanted);
            let pause = self.rate.borrow_mut().as_mut().map(|rate| rate.take(count, clock::now()));
            if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn content_ended(&self, claim: Claim, position: u64, end: u64) -> Result<(), Failure> {
        if self.open_ended.get() && end == u64::MAX {
            // Only now is the length known: it ends here, by a framing that proved it.
            let done = self.plan.borrow().done().clone();
            *self.plan.borrow_mut() = Plan::new(position, done, 1, self.options.split_bytes_min);
            self.open_ended.set(false);
            return Ok(());
        }
        if position < end && !self.plan.borrow().is_finished(claim.id) {
            return Err(Failure::new(
                Phase::Content,
                Cause::Short(position - claim.start, end - claim.start),
            ));
        }
        Ok(())
    }

    /// What is left after the first response: pieces given back or never taken, and helpers at work.
    async fn finish_rest(self: &Rc<Self>) -> Result<(), Failure> {
        loop {
            if self.plan.borrow().is_complete() {
                return Ok(());
            }
            if let Some(failure) = self.failed.borrow_mut().take() {
                return Err(failure);
            }
            let waiting = self.changed.notified();
            let claim = self.plan.borrow_mut().claim();
            match claim {
                Some(claim) => self.fetch_piece(claim, 0).await?,
                None => waiting.await,
            }
        }
    }

    /// One piece by one request, from the mirror of this number.
    async fn fetch_piece(&self, claim: Claim, mirror: usize) -> Result<(), Failure> {
        let result = self.ask_piece(claim, mirror).await;
        let (response, end) = match result {
            Ok(found) => found,
            Err(failure) => {
                self.plan.borrow_mut().release(claim.id);
                return Err(failure);
            }
        };
        self.pump(response, claim, end, false).await.map(|_| ())
    }

    async fn ask_piece(&self, claim: Claim, mirror: usize) -> Result<(Response, u64), Failure> {
        let uri = &self.uris[mirror % self.uris.len()];
        let subject = self.partial.borrow().as_ref().and_then(|partial| partial.subject().cloned());
        let Some(mut subject) = subject else { return Err(Failure::new(Phase::Content, Cause::Cancelled)) };
        let foreign = !mirror.is_multiple_of(self.uris.len());
        if foreign && self.options.sha256.is_some() {
            // The digest over all of it is proof enough; a mirror's tags are its own.
            (subject.etag, subject.last_modified) = (None, None);
        }
        let mut ask = (self.ask)(uri);
        add_range(&mut ask, claim.start, Some(claim.end), subject.if_range())?;
        let response = self.agent.send(ask).await?;
        let asked = Asked::Part { start: claim.start, end: Some(claim.end), subject: &subject };
        let new = replies::subject("", response.head());
        match replies::judge(asked, "", response.head()) {
            // Fault K41: a mirror must have the same file, and that takes a validator or a digest.
            Reply::Part { .. } if foreign && self.options.sha256.is_none() && new.etag != subject.etag => {
                Err(Failure::new(Phase::Verify, Cause::Changed("a mirror has another validator".into())))
            }
            Reply::Part { end, .. } => Ok((response, end)),
            Reply::Status(code) => Err(Failure::new(Phase::Head, Cause::Status(code))),
            Reply::Changed(_, why) => Err(Failure::new(Phase::Verify, Cause::Changed(why.to_owned()))),
            _ => Err(unusable(&response, "no usable answer to a request for a part")),
        }
    }

    /// A helper: takes pieces until none is left, and leaves at the first trouble; what it had is free again.
    async fn help(self: Rc<Self>, mirror: usize) {
        loop {
            let claim = self.plan.borrow_mut().claim();
            let Some(claim) = claim else { break };
            if let Err(failure) = self.fetch_piece(claim, mirror).await {
                let text = format!("one connection less: {failure}");
                self.tell(&Event::Note(&text));
                self.saturated.set(true);
                break;
            }
        }
        self.active.set(self.active.get() - 1);
        self.changed.notify_waiters();
    }

    /// Begins to make durable what is here.
    fn checkpoint(&self) -> Result<(), Failure> {
        let plan = self.plan.borrow();
        self.partial.borrow_mut().as_mut().map_or(Ok(()), |partial| partial.checkpoint(plan.done()))
    }
}

/// Beside the pumps: tells progress, makes checkpoints, watches the speed, and adds helpers while they help.
async fn keep(shared: Rc<Shared>, can_split: bool) {
    const TICK: Duration = Duration::from_millis(100);
    let most = match shared.options.segments {
        _ if !can_split => 1,
        Segments::Fixed(count) => count.clamp(1, crate::segments::SEGMENTS_MAX),
        Segments::Auto => crate::segments::SEGMENTS_MAX,
    };
    let mut helpers = Aborting(Vec::new());
    let mut ramp = Ramp::new(matches!(shared.options.segments, Segments::Auto));
    let mut minimum = Minimum::new(clock::now());
    let (mut synced_at, mut synced_bytes) = (clock::now(), shared.received.get());
    let mut told = u64::MAX;
    loop {
        let left = {
            let plan = shared.plan.borrow();
            plan.length() - plan.done().total()
        };
        let wanted = ramp.wanted(shared.received.get(), left, clock::now(), most);
        while shared.active.get() < wanted && !shared.saturated.get() && shared.plan.borrow().has_work() {
            shared.active.set(shared.active.get() + 1);
            let mirror = shared.active.get() - 1;
            helpers.0.push(tokio::task::spawn_local(Rc::clone(&shared).help(mirror)));
            shared.tell(&Event::Connections(shared.active.get()));
        }
        tokio::time::sleep(TICK).await;
        let here = shared.plan.borrow().done().total();
        if here != told {
            told = here;
            shared.tell(&Event::Here(here));
        }
        let now = clock::now();
        let limited =
            shared.options.rate_limit.is_some_and(|rate| rate < 4 * crate::rate::MINIMUM_BYTES_PER_SECOND);
        if !limited && minimum.is_stalled(shared.received.get(), now) {
            let cause = Cause::Timeout(crate::rate::MINIMUM_OVER_MS);
            *shared.failed.borrow_mut() = Some(Failure::new(Phase::Content, cause));
        }
        let bytes = shared.received.get() - synced_bytes;
        let due =
            now.saturating_duration_since(synced_at) >= Duration::from_millis(shared.options.checkpoint_ms);
        if bytes > 0 && (due || bytes >= shared.options.checkpoint_bytes) {
            (synced_at, synced_bytes) = (now, shared.received.get());
            if let Err(failure) = shared.checkpoint() {
                *shared.failed.borrow_mut() = Some(failure);
                shared.changed.notify_waiters();
            }
        }
    }
}

/// How many connections to use, where that is for us to find out: doubled step by step as long as there is work for
/// more than a moment. A full line loses nothing by it, a limit per connection is overcome by it. (The speed of
/// one is no proof: servers that limit begin with a burst.)
struct Ramp {
    auto: bool,
    current: usize,
    begun: Option<(tokio::time::Instant, u64)>,
    stepped: Option<tokio::time::Instant>,
}

impl Ramp {
    /// How long one step lasts at least.
    const STEP: Duration = Duration::from_millis(100);
    /// With less than this left, a new connection would come too late.
    const WORTHWHILE_S: f64 = 1.0;

    fn new(auto: bool) -> Ramp {
        Ramp { auto, current: 1, begun: None, stepped: None }
    }

    /// The number wanted, with `received` octets in this run, `left` to come, and at most `most` allowed.
    fn wanted(&mut self, received: u64, left: u64, now: tokio::time::Instant, most: usize) -> usize {
        if !self.auto {
            return most;
        }
        let begun = *self.begun.get_or_insert((now, received));
        let stepped = *self.stepped.get_or_insert(now);
        if now.saturating_duration_since(stepped) >= Ramp::STEP && self.current < most {
            let took = now.saturating_duration_since(begun.0).as_secs_f64();
            let speed = (received - begun.1) as f64 / took;
            if left as f64 > speed * Ramp::WORTHWHILE_S {
                self.current *= 2;
                self.stepped = Some(now);
            }
        }
        self.current.min(most)
    }
}

#[cfg(test)]
mod tests;
