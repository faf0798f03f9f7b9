//! The course of a download: asks, takes what came for what it is, begins again where that is needed, and ends with a
//! file that has its final name, or with the reason why there is none.

use super::asks::{add_range, may_split, pause, retry_after, unusable};
use super::fetch::Shared;
use super::keep::{Aborting, keep};
use super::present::{self, Found};
use super::{Done, Naming, Segments};
use crate::agent::{Hop, Response, Times};
use crate::decode::{self, DecodeError, Decoder};
use crate::error::{Cause, Failure, Phase};
use crate::partial::{Directory, Overwrite, Partial, Present};
use crate::progress::Event;
use crate::replies::{self, Asked, Reply};
use crate::segments::{Claim, Plan, RangeSet, SEGMENTS_MAX};
use crate::verify::{Promises, Running};
use eleven_semantics::content_disposition::download_name;
use eleven_semantics::date::HttpDate;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Status};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// The first response, for the report.
struct First {
    uri: Uri,
    hops: Vec<Hop>,
    status: Status,
    fields: Fields,
    times: Times,
    address: Option<std::net::SocketAddr>,
}

pub(super) struct Download {
    shared: Rc<Shared>,
    directory: Directory,
    naming: Naming,
    promises: Promises,
    first: Option<First>,
    resumed: u64,
    restarts: u32,
    /// What has the name already, and is to be compared with what the server has.
    present: Option<(String, Present)>,
    /// The comparison said that there is nothing to do.
    kept: bool,
    /// By which digests.
    verified: Vec<&'static str>,
}

/// Content of a known length up to this is complete in a moment, most of the time.
const SMALL_BYTES_MAX: u64 = 256 * 1024;

/// How an attempt ended.
enum Attempt {
    /// Everything is here.
    Complete,
    /// Begin again from nothing.
    Restart,
    /// Ask again, for something else: nothing came that would count.
    Again,
}

impl Download {
    pub(super) fn new(shared: Rc<Shared>, directory: Directory, naming: Naming) -> Download {
        let mut promises = Promises::default();
        if let Some(sha256) = shared.options.sha256 {
            promises.user(sha256);
        }
        Download {
            shared,
            directory,
            naming,
            promises,
            first: None,
            resumed: 0,
            restarts: 0,
            present: None,
            kept: false,
            verified: Vec::new(),
        }
    }

    /// Attempts until it is here, or failed for good.
    pub(super) async fn persist(&mut self) -> Result<(), Failure> {
        self.prepare()?;
        if self.kept {
            return Ok(());
        }
        let mut fruitless = 0;
        // Octets that came a second time are no progress: a server that always breaks at the same place is not
        // asked for ever.
        let mut most = self.shared.plan.borrow().done().total();
        // What each place said since there was progress, the first one first.
        let mut refusals: Vec<Failure> = Vec::new();
        loop {
            let (failure, retry_after) = match self.attempt().await {
                Ok(Attempt::Complete) => return Ok(()),
                Ok(Attempt::Again) => continue,
                Ok(Attempt::Restart) if self.restarts < 3 => {
                    self.restarts += 1;
                    continue;
                }
                Ok(Attempt::Restart) => {
                    let text = "the file on the server changes all the time".to_owned();
                    return Err(Failure::new(Phase::Verify, Cause::Changed(text)));
                }
                Err(failed) => failed,
            };
            let here = self.shared.plan.borrow().done().total();
            let progress = here > most;
            if progress {
                (most, fruitless) = (here, 0);
                refusals.clear();
            }
            if failure.phase == Phase::File || failure.cause == Cause::Cancelled {
                return Err(failure);
            }
            refusals.push(failure.clone());
            self.shared.checkpoint()?;
            self.let_go();
            if refusals.len() < self.shared.uris.len() {
                let text = format!("{failure}; trying the next mirror");
                self.shared.tell(&Event::Note(&text));
                self.shared.next_place();
                continue;
            }
            // All places were asked: worth a pause if any of them may do better then.
            fruitless += u32::from(!progress);
            self.shared.next_place();
            let all = self.shared.options.retry_all;
            let unknown = self.first.is_none();
            let hopeful = refusals.iter().find(|failure| {
                failure.is_transient() && !(unknown && failure.is_refused())
                    || all && failure.phase != Phase::Prepare
            });
            let pause = hopeful
                .filter(|_| fruitless <= self.shared.options.retries_max)
                .and_then(|_| pause(&self.shared.options, fruitless, retry_after));
            let Some(pause) = pause else { return Err(refusals.swap_remove(0)) };
            self.shared.tell(&Event::Retry(&failure, pause));
            refusals.clear();
            tokio::time::sleep(pause).await;
        }
    }

    /// Whoever had pieces is gone: they are free again.
    fn let_go(&self) {
        let (length, done) = {
            let plan = self.shared.plan.borrow();
            (plan.length(), plan.done().clone())
        };
        self.replan(length, done);
        self.shared.saturated.set(self.shared.single.get());
        self.shared.failed.borrow_mut().take();
    }

    /// Opens the file, if its name is known, with what an earlier run left, if that is to be used.
    fn prepare(&mut self) -> Result<(), Failure> {
        let name = match &self.naming {
            Naming::Fixed(name) => name.clone(),
            Naming::Remote { .. } => download_name(None, self.shared.uris[0].path()),
        };
        let known = !matches!(self.naming, Naming::Remote { disposition: true });
        let resume = self.shared.options.resume && !self.shared.options.decode;
        let options = &self.shared.options;
        if (resume || options.newer || options.keep_existing)
            && (options.keep_existing || !self.directory.has_partial(&name))
            && let Some(present) = self.directory.present(&name)
        {
            self.present = Some((name, present));
            self.kept = options.keep_existing;
            return Ok(());
        }
        let early = matches!(self.naming, Naming::Fixed(_));
        if early || (resume && self.directory.has_partial(&name)) {
            self.open(&name)?;
        } else if known {
            // Refused before anything is sent; opened when it is known what comes.
            self.directory.choose(&name, self.shared.options.overwrite)?;
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<(), Failure> {
        let resume = self.shared.options.resume && !self.shared.options.decode;
        let overwrite = self.shared.options.overwrite;
        let (partial, journal) = Partial::take(&self.directory, name, overwrite, resume)?;
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

    /// Whether what has the name already is what the server has.
    async fn compare(
        &mut self,
        name: String,
        present: Present,
    ) -> Result<Attempt, (Failure, Option<Duration>)> {
        let here = |failure: Failure| (failure, None);
        let found = if self.shared.options.newer {
            return self.ask_for_newer(name, present).await;
        } else if self.promises.is_empty() {
            let uri = self.shared.place().clone();
            let ask = (self.shared.ask)(&uri);
            let asked = present::by_asking(&self.shared.agent, ask, &self.directory, &name, present).await;
            let (response, found) = asked.map_err(here)?;
            self.remember(&response);
            if let Found::Refused(code) = found {
                return Err(self.refused(response, code).await);
            }
            response.drain().await;
            found
        } else {
            present::by_digest(&self.directory, &name, &self.promises).await.map_err(here)?
        };
        let attempt = self.compared(&name, present, found).map_err(here)?;
        self.present = Some((name, present)).filter(|_| self.kept);
        Ok(attempt)
    }

    /// Asks for what was modified later than what is here; if nothing was, that is kept (9110-13.1.3-04).
    async fn ask_for_newer(
        &mut self,
        name: String,
        present: Present,
    ) -> Result<Attempt, (Failure, Option<Duration>)> {
        let here = |failure: Failure| (failure, None);
        let uri = self.shared.place().clone();
        let mut ask = (self.shared.ask)(&uri);
        let date = HttpDate(present.modified_seconds).imf();
        let set = ask.fields.set(Known::IfModifiedSince, date);
        set.map_err(|error| here(Failure::new(Phase::Prepare, Cause::Unusable(error.to_string()))))?;
        let response = self.shared.agent.send(ask).await.map_err(here)?;
        self.remember(&response);
        // Another length is another file, whatever its time says.
        let other = response.head().framing.content_length().is_some_and(|length| length != present.bytes);
        let whole = response.head().status == Status::OK;
        if response.head().status == Status::NOT_MODIFIED
            || (whole && !other && !present::is_newer(&response.head().fields, present))
        {
            response.drain().await;
            self.kept = true;
            self.present = Some((name, present));
            return Ok(Attempt::Complete);
        }
        self.present = None;
        if matches!(self.naming, Naming::Fixed(_)) {
            self.open(&name).map_err(here)?;
        }
        match replies::judge(Asked::Whole, &uri.without_fragment(), response.head()) {
            Reply::Whole(subject) => self.begin(response, subject).await,
            Reply::Status(code) => Err(self.refused(response, code).await),
            _ => Err((unusable(&response, "no usable answer to a conditional request"), None)),
        }
    }

    /// Keeps what is here, or makes room beside it or in its place, as the user wished.
    fn compared(&mut self, name: &str, present: Present, found: Found) -> Result<Attempt, Failure> {
        let why = match found {
            Found::Same(verified) => {
                self.kept = true;
                self.verified = verified;
                return Ok(Attempt::Complete);
            }
            Found::Other(why) => why,
            Found::Refused(code) => return Err(Failure::new(Phase::Head, Cause::Status(code))),
        };
        let path = self.directory.path_of(name).display().to_string();
        if self.shared.options.overwrite == Overwrite::Refuse {
            let text = format!(
                "{path} exists with {} octets, and {why}; use --overwrite to replace it, or -o to choose another name",
                present.bytes
            );
            return Err(Failure::new(Phase::Prepare, Cause::Unusable(text)));
        }
        let text = format!("{path} has {} octets, and {why}; fetching it anew", present.bytes);
        self.shared.tell(&Event::Note(&text));
        if matches!(self.naming, Naming::Fixed(_)) {
            self.open(name)?;
        }
        Ok(Attempt::Again)
    }

    fn replan(&self, length: u64, done: RangeSet) {
        let split = self.shared.options.split_bytes_min;
        let fetchers = match self.shared.options.segments {
            Segments::Fixed(count) => count,
            Segments::Auto => SEGMENTS_MAX,
        };
        *self.shared.plan.borrow_mut() = Plan::new(length, done, 1, split).shared_by(fetchers);
    }

    /// One request and what follows from it. A failure comes with the server's Retry-After.
    async fn attempt(&mut self) -> Result<Attempt, (Failure, Option<Duration>)> {
        if let Some((name, present)) = self.present.clone() {
            return Box::pin(self.compare(name, present)).await;
        }
        let claim = self.resume_claim();
        if claim.is_none()
            && self.shared.plan.borrow().length() > 0
            && self.shared.plan.borrow().is_complete()
        {
            return Ok(Attempt::Complete);
        }
        let uri = self.shared.place().clone();
        let mut ask = (self.shared.ask)(&uri);
        let mut subject = self.shared.partial.borrow().as_ref().and_then(|p| p.subject().cloned());
        // What is here came from another place that is to have the same file.
        let foreign = subject.as_ref().is_some_and(|subject| subject.uri != uri.without_fragment());
        let proven = self.shared.options.sha256.is_some();
        if let Some(subject) = subject.as_mut().filter(|_| foreign && proven) {
            // The digest over all of it is proof enough; a mirror's tags are its own.
            (subject.etag, subject.last_modified) = (None, None);
        }
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
        let mut reply = replies::judge(asked, &uri.without_fragment(), response.head());
        if foreign && !proven && matches!(reply, Reply::Part { .. }) {
            // Fault K41: a mirror must have the same file, and that takes a validator or a digest.
            let known = subject.as_ref().and_then(|subject| subject.etag.clone());
            if known.is_none() || replies::subject("", response.head()).etag != known {
                reply = Reply::Changed(None, "a mirror has another validator");
            }
        }
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
                    let missing = length.saturating_sub(self.shared.plan.borrow().done().total());
                    partial.check_room(missing).map_err(|failure| (failure, None))?;
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
                Err(Box::pin(self.refused(response, code)).await)
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
                address: response.address(),
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
        let (partial, _) =
            Partial::take(&self.directory, &format!("{name}.error"), Overwrite::Rename, false)?;
        let mut at = 0;
        while let Some(data) = response.data().await? {
            partial.write(data, at)?;
            at += data.len() as u64;
        }
        partial.commit(Overwrite::Rename).await
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
            let resume = self.shared.options.resume && !self.shared.options.decode;
            let present = self.directory.present(&name);
            if present.is_some() && self.shared.options.keep_existing {
                self.kept = true;
                self.present = present.map(|present| (name, present));
                response.drain().await;
                return Ok(Attempt::Complete);
            }
            if let Some(present) = present.filter(|_| resume && !self.directory.has_partial(&name)) {
                let (fields, length) = (&response.head().fields, response.head().framing.content_length());
                let found = present::whole(fields, length, &self.directory, &name, present).await;
                let attempt = self.compared(&name, present, found.map_err(here)?).map_err(here)?;
                if self.kept {
                    self.present = Some((name, present));
                    response.drain().await;
                    return Ok(attempt);
                }
            }
            let left = resume && self.directory.has_partial(&name);
            if !left && subject.length.is_some_and(|length| length <= SMALL_BYTES_MAX) {
                let small = Partial::small(&self.directory, &name, self.shared.options.overwrite);
                *self.shared.partial.borrow_mut() = Some(small.map_err(here)?);
            } else {
                self.open(&name).map_err(here)?;
            }
            if self.resumed > 0 {
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
            partial.check_room(length.unwrap_or(0)).map_err(here)?;
        }
        let hashed = !self.promises.is_empty() && resumable;
        *self.shared.running.borrow_mut() = hashed.then(|| Running::new(self.promises.algorithms()));
        self.shared.open_ended.set(length.is_none());
        self.replan(length.unwrap_or(u64::MAX), RangeSet::new());
        if length == Some(0) {
            response.drain().await;
            return Ok(Attempt::Complete);
        }
        match decoder {
            Some(decoder) => Box::pin(self.decode(response, decoder)).await.map_err(here),
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
        shared.active.set(1);
        let whole = response.head().status != Status::PARTIAL_CONTENT;
        let mut keeper = None;
        let trailers = {
            let mut pump = pin!(shared.pump(response, claim, end, true));
            // What came with its head needs nobody to watch over it.
            let read = match poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx))).await {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    let watch = tokio::task::spawn_local(keep(Rc::clone(&shared), can_split));
                    keeper = Some(Aborting(vec![watch]));
                    pump.await
                }
            };
            read.map_err(|failure| (failure, None))?
        };
        if let Some(trailers) = trailers {
            self.promises.add(&trailers, whole).map_err(|failure| (failure, None))?;
        }
        if keeper.is_none() && !shared.plan.borrow().is_complete() {
            keeper = Some(Aborting(vec![tokio::task::spawn_local(keep(Rc::clone(&shared), can_split))]));
        }
        let rest = shared.finish_rest().await;
        drop(keeper);
        rest.map(|()| Attempt::Complete).map_err(|failure| (failure, None))
    }

    /// Verifies and gives the final name.
    pub(super) async fn complete(mut self) -> Result<Done, Failure> {
        let shared = Rc::clone(&self.shared);
        if let Some((name, present)) = self.present.take() {
            let path = self.directory.path_of(&name);
            shared.tell(&Event::Done { path: Some(&path), bytes: present.bytes });
            let verified = std::mem::take(&mut self.verified);
            return Ok(self.done(path, present.bytes, verified));
        }
        let Some(mut partial) = shared.partial.borrow_mut().take() else {
            return Err(Failure::new(Phase::File, Cause::Unusable("no file was written".into())));
        };
        let bytes = shared.plan.borrow().done().total();
        partial.settle().await?;
        let on_disk = partial.length()?;
        if on_disk != bytes {
            partial.distrust();
            return Err(Failure::new(Phase::Verify, Cause::Short(on_disk, bytes)));
        }
        let mut verified = Vec::new();
        if !self.promises.is_empty() {
            shared.tell(&Event::Verifying);
            let wanted = self.promises.algorithms();
            let running = shared.running.borrow_mut().take().filter(|running| running.covers(&wanted));
            let running = running.unwrap_or_else(|| Running::new(wanted));
            let made = running.finish(std::sync::Arc::clone(partial.file())).await?;
            verified = self.promises.check(&made).inspect_err(|_| partial.distrust())?;
        }
        if shared.options.remote_time
            && let Some(modified) = self.first.as_ref().and_then(|first| present::modified(&first.fields))
        {
            partial.set_modified(modified.0)?;
        }
        let path = partial.commit(shared.options.overwrite).await?;
        shared.tell(&Event::Done { path: Some(&path), bytes });
        Ok(self.done(path, bytes, verified))
    }

    fn done(mut self, path: PathBuf, bytes: u64, verified: Vec<&'static str>) -> Done {
        let first = self.first.take().unwrap_or_else(|| First {
            uri: self.shared.uris[0].clone(),
            hops: Vec::new(),
            status: Status::OK,
            fields: Fields::new(),
            times: Times::default(),
            address: None,
        });
        Done {
            path,
            bytes,
            received: self.shared.received.get(),
            resumed: self.resumed,
            kept: self.kept,
            verified,
            uri: first.uri,
            hops: first.hops,
            status: first.status,
            fields: first.fields,
            times: first.times,
            address: first.address,
        }
    }
}
