//! Printing to standard output, or to a device: in order, one stream, and what was written is never written
//! again. A transfer that breaks goes on behind the last octet, if the server can prove that it is the same file.

use super::options::{Get, RangeArg};
use super::report::{Answer, Report};
use super::setup::{Setup, unusable};
use super::show::{self, Show};
use eleven_client::agent::{Ask, Response};
use eleven_client::decode::{self, DecodeError, Decoder};
use eleven_client::journal::Subject;
use eleven_client::replies::{self, Asked, Reply};
use eleven_client::verify::Promises;
use eleven_client::{Cause, Failure, Phase};
use eleven_semantics::digest_fields::Hasher;
use eleven_semantics::range::ContentRange;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Known, Method, Status};
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// Octets of an error's content shown to a user.
const ERROR_BYTES_MAX: usize = 4096;

/// Prints one URL to standard output.
///
/// # Errors
/// What went wrong; what was printed by then was right.
pub async fn print(
    options: &Get,
    setup: &Setup,
    show: &Show,
    uri: Uri,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let out = Box::new(std::io::stdout());
    Printer::new(options, setup, show, out, terminal, report).run(uri).await
}

/// Writes one URL to a device or FIFO.
///
/// # Errors
/// As [`print`].
pub async fn to_special(
    options: &Get,
    setup: &Setup,
    show: &Show,
    uri: Uri,
    path: &Path,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|error| Failure::io(Phase::File, &error).at(path.display().to_string(), None))?;
    to_writer(options, setup, show, uri, Box::new(file), report).await
}

/// Writes one URL to whatever takes octets.
///
/// # Errors
/// As [`print`].
pub async fn to_writer(
    options: &Get,
    setup: &Setup,
    show: &Show,
    uri: Uri,
    out: Box<dyn Write>,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    Printer::new(options, setup, show, out, false, report).run(uri).await
}

struct Printer<'a> {
    options: &'a Get,
    setup: &'a Setup,
    show: &'a Show,
    out: Box<dyn Write>,
    terminal: bool,
    /// Octets of content written, before decoding.
    position: u64,
    written: u64,
    subject: Option<Subject>,
    promises: Promises,
    hashers: Vec<Hasher>,
    report: &'a RefCell<Report>,
    /// Octets still to be written of a whole file of which a range is wanted.
    window: Option<u64>,
}

impl<'a> Printer<'a> {
    fn new(
        options: &'a Get,
        setup: &'a Setup,
        show: &'a Show,
        out: Box<dyn Write>,
        terminal: bool,
        report: &'a RefCell<Report>,
    ) -> Printer<'a> {
        Printer {
            options,
            setup,
            show,
            out,
            terminal,
            position: 0,
            written: 0,
            subject: None,
            promises: Promises::default(),
            hashers: Vec::new(),
            report,
            window: None,
        }
    }

    async fn run(mut self, uri: Uri) -> Result<(), Failure> {
        let mut fruitless = 0;
        loop {
            let before = self.position;
            let Err(failure) = self.attempt(&uri).await else { break };
            fruitless = if self.position > before { 0 } else { fruitless + 1 };
            // Once something was printed, only a part of the same file can follow.
            let resumable = self.position == 0
                || (!self.options.compressed
                    && self.options.range.is_none()
                    && self.subject.as_ref().is_some_and(|subject| subject.if_range().is_some()));
            let unknown = self.report.borrow().answer.is_none();
            let again = (failure.is_transient() && !(unknown && failure.is_refused())
                || self.options.retry_all_errors && !matches!(failure.phase, Phase::Prepare | Phase::File))
                && self.setup.method.is_idempotent()
                && resumable
                && fruitless <= self.options.retry;
            if !again {
                return Err(failure);
            }
            let delay = self.options.retry_delay.0;
            let pause = match fruitless {
                0 => delay.min(Duration::from_millis(100)),
                n => delay * (1 << (n - 1).min(6)),
            };
            self.show.note(&format!("{failure}; trying again in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
        self.out.flush().map_err(|error| output_failure(&error))
    }

    async fn attempt(&mut self, uri: &Uri) -> Result<(), Failure> {
        let mut ask = self.setup.ask(uri);
        let subject = self.subject.clone().filter(|_| self.position > 0);
        if let Some(subject) = &subject {
            self.add_range(&mut ask, subject)?;
        } else if self.options.compressed && !ask.fields.contains(Known::AcceptEncoding) {
            let _ = ask.fields.push(Known::AcceptEncoding, decode::ACCEPT_ENCODING);
        }
        if let Some(range) = self.options.range {
            let text = match range {
                RangeArg::From(first, None) => format!("bytes={first}-"),
                RangeArg::From(first, Some(last)) => format!("bytes={first}-{last}"),
                RangeArg::Last(count) => format!("bytes=-{count}"),
            };
            ask.fields.set(Known::Range, text).map_err(|error| unusable(error.to_string()))?;
        }
        let response = self.setup.agent.send(ask).await?;
        self.report.borrow_mut().answer = Some(Answer::of(&response));
        if self.setup.method == Method::Head || response.switched {
            return self.head_only(response).await;
        }
        if let Some(range) = self.options.range
            && response.head().status.code() < 300
        {
            return self.range(response, range).await;
        }
        let asked = match &subject {
            Some(subject) => Asked::Part { start: self.position, end: None, subject },
            None => Asked::Whole,
        };
        match replies::judge(asked, "", response.head()) {
            Reply::Whole(subject) => self.whole(response, subject).await,
            Reply::Part { .. } => self.content(response, 0, None).await,
            Reply::RangeIgnored(_) => {
                // The same file from its start: what was printed is passed over.
                let skip = std::mem::take(&mut self.position);
                self.content(response, skip, None).await
            }
            Reply::Complete { .. } => Ok(()),
            Reply::Changed(_, why) => {
                Err(Failure::new(Phase::Verify, Cause::Changed(format!("{why} while it was being printed"))))
            }
            // No file, but a perfectly good answer.
            Reply::Unusable(_) if matches!(response.head().status.code(), 204 | 205) => {
                self.head_only(response).await
            }
            Reply::Unusable(why) => Err(Failure::new(Phase::Head, Cause::Malformed(why.to_owned()))
                .at(uri.host_and_port(), response.address())),
            Reply::Status(304) if self.options.time_cond.is_some() => self.head_only(response).await,
            Reply::Status(code) => self.refused(response, code).await,
        }
    }

    /// The answer to `--range`: the part that was asked for (9110-14.4-01), or all, of which it is cut (9110-14.2-02: a
    /// server may ignore Range; 9110-14.3-02: whatever it announced).
    async fn range(&mut self, response: Response, range: RangeArg) -> Result<(), Failure> {
        let head = response.head();
        let unusable = |why: &str| {
            Failure::new(Phase::Head, Cause::Malformed(why.to_owned()))
                .at(response.uri.host_and_port(), response.address())
        };
        if self.options.include {
            self.print_head(&response)?;
        }
        let length = head.framing.content_length();
        if head.status == Status::PARTIAL_CONTENT {
            let part = head.fields.only(Known::ContentRange).one().map(ContentRange::parse);
            let Some(Ok(ContentRange::Part { span, complete })) = part else {
                return Err(unusable("206 without a usable Content-Range"));
            };
            let fits = match range {
                RangeArg::From(first, last) => {
                    span.first == first && last.is_none_or(|last| span.last <= last)
                }
                RangeArg::Last(count) => {
                    span.len() <= count && complete.is_none_or(|complete| span.last + 1 == complete)
                }
            };
            if !fits || length.is_some_and(|length| length != span.len()) {
                return Err(unusable("another part than the one asked for"));
            }
            return self.content(response, 0, None).await;
        }
        let (skip, count) = match (range, length) {
            (RangeArg::From(first, last), _) => (first, last.map_or(u64::MAX, |last| last - first + 1)),
            (RangeArg::Last(count), Some(length)) => (length.saturating_sub(count), u64::MAX),
            (RangeArg::Last(_), None) => {
                return Err(unusable("the server ignores ranges, and does not say where its content ends"));
            }
        };
        if length.is_some_and(|length| skip >= length) {
            return Err(Failure::new(Phase::Head, Cause::Status(416)));
        }
        self.window = Some(count);
        self.content(response, skip, None).await
    }

    fn add_range(&self, ask: &mut Ask, subject: &Subject) -> Result<(), Failure> {
        let Some(validator) = subject.if_range() else {
            return Err(unusable("the transfer broke, and the server gives nothing to go on by"));
        };
        let set = ask
            .fields
            .set(Known::Range, format!("bytes={}-", self.position))
            .and_then(|()| ask.fields.set(Known::IfRange, validator));
        ask.fields.remove(Known::AcceptEncoding);
        set.map_err(|error| unusable(error.to_string()))
    }

    /// The status line and fields: only for `-i` and `-I`, and harmless on a terminal.
    fn print_head(&mut self, response: &Response) -> Result<(), Failure> {
        let head = show::response_head(response.head());
        let text = if self.terminal {
            let lines: Vec<String> = head
                .split(|&b| b == b'\n')
                .map(|line| show::harmless(line.strip_suffix(b"\r").unwrap_or(line)))
                .collect();
            lines.join("\n").into_bytes()
        } else {
            head
        };
        self.out.write_all(&text).map_err(|error| output_failure(&error))
    }

    async fn head_only(&mut self, response: Response) -> Result<(), Failure> {
        let code = response.head().status.code();
        if self.options.include || self.options.head {
            self.print_head(&response)?;
        }
        let failure = (code >= 400).then(|| status_failure(&response, code));
        response.drain().await;
        failure.map_or(Ok(()), Err)
    }

    async fn whole(&mut self, response: Response, subject: Subject) -> Result<(), Failure> {
        if self.written > 0 {
            return Err(Failure::new(Phase::Verify, Cause::Changed("the transfer cannot go on".into())));
        }
        if self.options.include {
            self.print_head(&response)?;
        }
        self.promises = Promises::default();
        if let Some(sha256) = self.options.sha256 {
            self.promises.user(sha256.0);
        }
        self.promises.add(&response.head().fields, true)?;
        self.hashers = self.promises.algorithms().into_iter().map(Hasher::new).collect();
        if self.hashers.is_empty() && response.head().fields.contains(Known::Trailer) {
            // A digest may come behind the content.
            self.hashers.push(Hasher::new(eleven_semantics::digest_fields::Algorithm::Sha256));
        }
        self.subject = Some(subject);
        let decoder = if self.options.compressed {
            Decoder::for_fields(&response.head().fields).map_err(coding_failure)?
        } else {
            None
        };
        self.content(response, 0, decoder).await
    }

    async fn content(
        &mut self,
        mut response: Response,
        mut skip: u64,
        mut decoder: Option<Decoder>,
    ) -> Result<(), Failure> {
        let limit = self.options.max_filesize.map_or(u64::MAX, |size| size.0);
        let mut rate = self.options.limit_rate.map(|rate| eleven_client::rate::RateLimit::new(rate.0));
        response.connection_mut().set_read_bytes(64 * 1024);
        while let Some(data) = response.data().await? {
            let count = data.len() as u64;
            let passed = skip.min(count);
            skip -= passed;
            let mut fresh = &data[passed as usize..];
            if let Some(left) = &mut self.window {
                fresh = &fresh[..fresh.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
                *left -= fresh.len() as u64;
            }
            self.report.borrow_mut().bytes += count;
            self.position += count;
            if passed == 0 || !fresh.is_empty() {
                self.hashers.iter_mut().for_each(|hasher| hasher.update(fresh));
            }
            if self.position > limit {
                return Err(Failure::new(Phase::Content, Cause::TooLarge("max_filesize", limit)));
            }
            match &mut decoder {
                None => write(&mut self.out, fresh, self.terminal, &mut self.written)?,
                Some(decoder) => {
                    let (out, terminal, written) = (&mut self.out, self.terminal, &mut self.written);
                    let mut sink = |octets: &[u8]| {
                        if *written + octets.len() as u64 > limit {
                            return Err(Failure::new(Phase::Content, Cause::TooLarge("max_filesize", limit)));
                        }
                        write(out, octets, terminal, written)
                    };
                    decoder.push(fresh, &mut sink).map_err(|error| match error {
                        DecodeError::Coding(why) => coding_failure(why),
                        DecodeError::Sink(failure) => failure,
                    })?;
                }
            }
            if self.window == Some(0) {
                return Ok(()); // the rest is of no use: its connection is closed
            }
            if let Some(rate) = &mut rate {
                let pause = rate.take(count, eleven_net::clock::now());
                tokio::time::sleep(pause).await;
            }
        }
        if let Some(decoder) = decoder {
            decoder.finish().map_err(coding_failure)?;
        }
        if let Some(trailers) = response.trailers() {
            self.promises.add(trailers, true)?;
        }
        response.finish().await;
        let made: Vec<_> = std::mem::take(&mut self.hashers).into_iter().map(Hasher::finish).collect();
        // A promise in a trailer by an algorithm that was not made on the way cannot be checked any more.
        if self.promises.algorithms().iter().all(|algorithm| made.iter().any(|d| d.algorithm == *algorithm)) {
            self.promises.check(&made)?;
        }
        Ok(())
    }

    /// An error status (9110-15.5-02, 9110-15.6-02: its content is for the user): shown beside the message, or printed if asked for.
    async fn refused(&mut self, mut response: Response, code: u16) -> Result<(), Failure> {
        let failure = status_failure(&response, code);
        if self.options.include {
            self.print_head(&response)?;
        }
        if self.options.save_errors {
            while let Some(data) = response.data().await? {
                write(&mut self.out, data, self.terminal, &mut self.written)?;
            }
            response.finish().await;
            return Err(failure);
        }
        let is_text = response.head().fields.get(Known::ContentType).is_some_and(|kind| {
            kind.starts_with(b"text/plain") || kind.starts_with(b"application/problem+json")
        });
        if is_text && std::io::stderr().is_terminal() && !self.options.quiet {
            let mut text = Vec::new();
            while let Ok(Some(data)) = response.data().await {
                text.extend_from_slice(&data[..data.len().min(ERROR_BYTES_MAX - text.len())]);
                if text.len() == ERROR_BYTES_MAX {
                    break;
                }
            }
            for line in text.split(|&b| b == b'\n') {
                self.show.note(&format!("| {}", show::harmless(line)));
            }
        }
        response.drain().await;
        Err(failure)
    }
}

fn status_failure(response: &Response, code: u16) -> Failure {
    Failure::new(Phase::Head, Cause::Status(code)).at(response.uri.host_and_port(), response.address())
}

fn coding_failure(why: decode::Undecodable) -> Failure {
    Failure::new(Phase::Content, Cause::Coding(why.to_string()))
}

/// What went wrong with standard output.
pub fn output_failure(error: &std::io::Error) -> Failure {
    Failure::new(Phase::File, Cause::Io(error.kind(), format!("standard output: {error}")))
}

/// Writes content; binary content is not sprayed on a terminal (fault K30).
///
/// # Errors
/// If it cannot be written, or is binary and would garble a terminal.
pub fn write(
    out: &mut Box<dyn Write>,
    octets: &[u8],
    terminal: bool,
    written: &mut u64,
) -> Result<(), Failure> {
    if terminal && *written == 0 && octets.iter().take(1024).any(|&b| b == 0 || b == 0x1b) {
        return Err(unusable(
            "the content is binary and would garble the terminal; save it with -O or -o FILE, or send it to a pipe",
        ));
    }
    out.write_all(octets).map_err(|error| output_failure(&error))?;
    *written += octets.len() as u64;
    Ok(())
}
