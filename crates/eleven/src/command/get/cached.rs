//! `eleven get --cache DIR`: a private cache (RFC 9111) between the user and the agent. What is stored and fresh comes
//! from the directory, what is stale is validated. For what is printed; files that are saved are resumed and verified
//! by other means. Nothing of a user's own (credentials, cookies) goes in, so that the directory holds no secrets.

use super::options::Get;
use super::print::{output_failure, write};
use super::setup::{Setup, unusable};
use super::show::{self, Show};
use bytes::Bytes;
use eleven_cache::disk::{self, Disk};
use eleven_cache::memory::{self, Memory};
use eleven_cache::store::Store;
use eleven_cache::tiered::Tiered;
use eleven_cache::{Answer, Ask as Onward, Body, Cache, Config, Failed, Inbound, Reply, Request};
use eleven_client::agent::{Agent, Ask, Response};
use eleven_client::{Cause, Failure, Phase};
use eleven_messaging::ResponseHead;
use eleven_net::pipe::{self, Next, PipeWriter, Reason};
use eleven_semantics::caching::Policy;
use eleven_semantics::caching::key::Site;
use eleven_semantics::redirect::{Chain, Downgrade};
use eleven_semantics::target::Authority;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Method};
use std::future::poll_fn;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Octets in the directory.
const DIRECTORY_BYTES_MAX: u64 = 1 << 30;
/// Octets in memory, for one run of a command.
const MEMORY_BYTES_MAX: u64 = 32 << 20;
/// How long the end of a run waits for the disk.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// Content between the agent and the store.
const PIPE_BYTES: usize = 256 * 1024;

/// Opens the directory of a private cache. It belongs to one process at a time: another one goes without.
///
/// # Errors
/// If it cannot be used.
pub fn open(directory: &Path, show: &Show) -> Result<Option<Arc<Cache>>, Failure> {
    let limits = disk::Limits { bytes_max: DIRECTORY_BYTES_MAX, ..disk::Limits::default() };
    let disk = match Disk::open(directory, limits) {
        Ok(disk) => disk,
        Err(disk::OpenError::InUse(_)) => {
            show.warn("another process uses the cache: this one goes without it");
            return Ok(None);
        }
        Err(error) => return Err(unusable(format!("the cache in {}: {error}", directory.display()))),
    };
    let limits = memory::Limits { bytes_max: MEMORY_BYTES_MAX, ..memory::Limits::default() };
    let store = Store::Tiered(Tiered::new(Memory::new(limits), disk));
    let config = Config { policy: Arc::new(Policy::private()), ..Config::default() };
    Ok(Some(Cache::new(Arc::new(store), config, Default::default())))
}

/// Whether what is asked for goes by way of the cache; in words, why it cannot.
///
/// # Errors
/// If `--cache` stands beside something that it cannot be combined with.
pub fn check(options: &Get) -> Result<(), Failure> {
    if options.cache.is_none() {
        return Ok(());
    }
    let own = options.user.is_some()
        || options.bearer_file.is_some()
        || options.netrc
        || options.netrc_file.is_some()
        || options.cookie.is_some()
        || options.cookie_jar.is_some();
    let sends = options.request.is_some()
        || !(options.data.is_empty() && options.data_binary.is_empty())
        || !(options.json.is_empty() && options.form.is_empty())
        || options.upload_file.is_some();
    let why = if options.saves() {
        "it is for what is printed: write `eleven get --cache DIR URL > FILE`"
    } else if own {
        "nothing that belongs to a user goes into it: leave out credentials and cookies"
    } else if sends || options.head || options.compressed || options.sha256.is_some() {
        "it is for plain GET requests"
    } else {
        return Ok(());
    };
    Err(unusable(format!("--cache: {why}")))
}

/// The agent as the cache's way inbound.
#[derive(Clone)]
struct Onwards {
    agent: Rc<Agent>,
    uri: Uri,
}

impl Inbound for Onwards {
    type Error = Failure;

    async fn send(&self, onward: Onward) -> Result<Answer, Failure> {
        let authority = self.uri.authority();
        let uri = Uri::from_parts(self.uri.scheme(), authority.as_bytes(), &onward.target)
            .map_err(|why| unusable(why.to_string()))?;
        let mut ask = Ask::get(uri);
        (ask.method, ask.fields) = (onward.method, onward.fields);
        let response = self.agent.send(ask).await?;
        let head = response.head();
        let (status, length) = (head.status, head.framing.content_length());
        let fields = head.fields.clone();
        let (writer, reader) = pipe::pipe::<Option<Box<Fields>>>(PIPE_BYTES);
        tokio::task::spawn_local(pump(response, writer));
        Ok(Answer { status, fields, length, body: Box::new(reader) })
    }
}

/// Moves content from the agent into a pipe.
async fn pump(mut response: Response, mut writer: PipeWriter<Option<Box<Fields>>>) {
    loop {
        let data = match response.data().await {
            Ok(Some(data)) => Bytes::copy_from_slice(data),
            Ok(None) => break,
            Err(_) => return writer.abort(Reason::Broken),
        };
        if writer.send(data).await.is_err() {
            return;
        }
    }
    response.finish().await;
    writer.complete(None);
}

/// Prints one URL to standard output, from the cache if it may.
///
/// # Errors
/// What went wrong; what was printed by then was right.
pub async fn print(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    cache: &Arc<Cache>,
    uri: Uri,
) -> Result<(), Failure> {
    let downgrade = if options.allow_downgrade { Downgrade::Allow } else { Downgrade::Refuse };
    let mut chain = Chain::new(options.max_redirs, downgrade);
    let mut uri = uri;
    let holders = Arc::strong_count(cache);
    loop {
        let reply = ask(setup, cache, &uri).await?;
        let (status, fields) = (reply.status(), reply.fields());
        let step = chain.follow(&Method::Get, &uri, status, &fields, (0, 0));
        match step {
            Ok(step) if !options.no_location => uri = step.uri,
            Err(why) if !why.is_final() && !options.no_location => {
                return Err(Failure::new(Phase::Head, Cause::Redirect(why)).at(uri.host_and_port(), None));
            }
            _ => {
                if options.verbose > 0 {
                    show.note(&format!("cache: {}", reply.report.word()));
                }
                let printed = content(options, reply, status, fields, &uri).await;
                settle(cache, holders).await;
                return printed;
            }
        }
    }
}

async fn ask(setup: &Setup, cache: &Arc<Cache>, uri: &Uri) -> Result<Reply, Failure> {
    let authority = uri.authority();
    let site = Authority::parse(authority.as_bytes()).map(|authority| Site::new(uri.scheme(), &authority));
    let site = site.map_err(|_| unusable(format!("{authority}: no host")))?;
    let fields = setup.ask(uri).fields;
    let target = uri.path_and_query();
    let request = Request {
        method: &Method::Get,
        site: &site,
        target: target.as_bytes(),
        fields: &fields,
        has_content: false,
    };
    let onwards = Onwards { agent: setup.agent.clone(), uri: uri.clone() };
    cache.respond(&request, &onwards).await.map_err(|failed| match failed {
        Failed::Inbound(failure) | Failed::MustRevalidate(failure) => failure,
        Failed::Shared(_) => Failure::new(Phase::Head, Cause::Closed).at(uri.host_and_port(), None),
    })
}

async fn content(
    options: &Get,
    reply: Reply,
    status: eleven_semantics::Status,
    fields: Fields,
    uri: &Uri,
) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let mut out: Box<dyn Write> = Box::new(std::io::stdout());
    if options.include {
        let head = show::response_head(&ResponseHead { status, fields, ..ResponseHead::default() });
        let text = if terminal { show::harmless(&head).into_bytes() } else { head };
        out.write_all(&text).map_err(|error| output_failure(&error))?;
    }
    let failed = status.code() >= 400;
    let mut written = 0;
    let mut put = |octets: &[u8]| match failed && !options.save_errors {
        true => Ok(()),
        false => write(&mut out, octets, terminal, &mut written),
    };
    let broken = |reason: Reason| {
        Failure::new(Phase::Content, Cause::Changed(format!("the content broke off: {reason}")))
            .at(uri.host_and_port(), None)
    };
    match reply.body {
        Body::Empty | Body::Described(_) => {}
        Body::Whole(octets) => put(&octets)?,
        Body::Pieces(pieces) => pieces.iter().try_for_each(|piece| put(piece))?,
        Body::Reader(mut reader) => loop {
            match poll_fn(|cx| reader.poll_next(cx)).await {
                Next::Data(data) => put(&data)?,
                Next::Complete(()) => break,
                Next::Aborted(reason) => return Err(broken(reason)),
            }
        },
        Body::Flowing(mut source, _) => loop {
            match poll_fn(|cx| source.poll_next(cx)).await {
                Next::Data(data) => put(&data)?,
                Next::Complete(()) => break,
                Next::Aborted(reason) => return Err(broken(reason)),
            }
        },
    }
    out.flush().map_err(|error| output_failure(&error))?;
    if failed {
        return Err(Failure::new(Phase::Head, Cause::Status(status.code())).at(uri.host_and_port(), None));
    }
    Ok(())
}

/// Waits until what is on its way to the disk is there: each task that stores holds the cache.
async fn settle(cache: &Arc<Cache>, holders: usize) {
    let began = eleven_net::clock::now();
    while Arc::strong_count(cache) > holders && began.elapsed() < SETTLE_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
