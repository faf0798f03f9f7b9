//! Dynamic content codings (RFC 9110 §8.4.1, §12.5.3): which responses are compressed and with what, the validators of
//! the coded representation (§8.8.3.3), and the results that are kept so that a hot file is compressed once.
//!
//! A coded representation has an entity tag of its own: the handler's with a suffix. The suffix is taken off the request's
//! conditions before the handler sees them, and put on again in a 304. Ranges are of the uncoded representation
//! only. Left alone: what is coded already, partial, short, of a type that does not shrink, marked `no-transform`, or (unless
//! the site says otherwise) an answer to somebody's credentials, whose length would tell secrets (BREACH).

mod encoder;

use crate::after::fields::TypeSet;
use crate::before::cors::add_vary;
use crate::request::Request;
use crate::response::{Content, Response};
use bytes::Bytes;
use eleven_net::pipe::{Next, PipeReader, PipeWriter, Reason, pipe};
use eleven_semantics::fields::Only;
use eleven_semantics::negotiation::{choose_coding, coding_quality};
use eleven_semantics::range::ContentRange;
use eleven_semantics::validator::{EntityTag, EntityTags};
use eleven_semantics::{Fields, Known, Method, Status};
pub use encoder::{Coding, Levels};
use encoder::{Encoder, STREAMS, StreamSlot};
use quick_cache::{Weighter, sync::Cache};
use std::cell::RefCell;
use std::os::unix::fs::FileExt;

/// Content up to this length is compressed at once on the worker; longer content in pieces, with a yield between.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;

/// Length of a piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Coded octets that wait for a slow reader.
const PIPE_BYTES: usize = 64 * 1024;

/// Content of a response on its way.
type Reader = PipeReader<Option<Box<Fields>>>;
type Writer = PipeWriter<Option<Box<Fields>>>;

/// What a route compresses, and how.
pub struct Compress {
    /// Codings offered, the preferred one first.
    pub codings: Box<[Coding]>,
    /// Content shorter than this is left alone.
    pub bytes_min: u64,
    /// Media types that are compressed.
    pub types: TypeSet,
    /// Effort.
    pub levels: Levels,
    /// Compress answers to credentials too.
    pub credentialed: bool,
    /// Results by resource, entity tag and coding.
    results: Cache<Box<[u8]>, Bytes, Weight>,
    result_bytes_max: usize,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<[u8]>, Bytes> for Weight {
    fn weight(&self, key: &Box<[u8]>, value: &Bytes) -> u64 {
        (key.len() + value.len() + 96) as u64
    }
}

impl std::fmt::Debug for Compress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compress({:?})", self.codings)
    }
}

/// What must be known of a request after the handler took it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    coding: Option<Coding>,
    head: bool,
    /// See [`resource`]; empty if the request is still at hand.
    resource: Box<[u8]>,
    /// Entity tags of If-None-Match that had the suffix of `coding`, without it.
    stripped: Vec<Box<[u8]>>,
}

thread_local! {
    static CHOICES: RefCell<Choices> = const { RefCell::new(Choices { made: Vec::new(), next: 0 }) };
}

/// Choices that are remembered: a handful of browsers say a handful of values of Accept-Encoding.
const CHOICES_MAX: usize = 8;

/// Longer values are read anew each time.
const CHOICE_VALUE_BYTES_MAX: usize = 64;

/// The last choices of this thread, by codings offered and value of Accept-Encoding.
struct Choices {
    made: Vec<(Box<[Coding]>, Box<[u8]>, Option<Coding>)>,
    next: usize,
}

impl Choices {
    fn choose(&mut self, offered: &[Coding], fields: &Fields) -> Option<Coding> {
        let value = match fields.only(Known::AcceptEncoding) {
            Only::One(value) if value.len() <= CHOICE_VALUE_BYTES_MAX => value,
            _ => return choose(offered, fields),
        };
        let known = self.made.iter().find(|(codings, text, _)| **text == *value && **codings == *offered);
        if let Some((_, _, choice)) = known {
            return *choice;
        }
        let choice = choose(offered, fields);
        let made = (offered.into(), value.into(), choice);
        match self.made.get_mut(self.next) {
            Some(oldest) => *oldest = made,
            None => self.made.push(made),
        }
        self.next = (self.next + 1) % CHOICES_MAX;
        choice
    }
}

/// The coding that a client likes best among those offered, if it likes any better than none.
fn choose(offered: &[Coding], fields: &Fields) -> Option<Coding> {
    // Identity comes last: it is sent only if it is liked better than every coding, or nothing else is.
    let mut names: [&[u8]; Coding::COUNT + 1] = [b""; Coding::COUNT + 1];
    for (name, coding) in names.iter_mut().zip(offered) {
        *name = coding.name().as_bytes();
    }
    names[offered.len()] = b"identity";
    let index = choose_coding(fields, &names[..=offered.len()]).ok()?;
    let coding = offered.get(index).copied();
    coding.filter(|coding| coding_quality(fields, coding.name().as_bytes()).is_acceptable())
}

impl Asked {
    /// The coding the client gets, if it can be had.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Keeps the name of the resource, for when the handler has taken the request.
    pub fn remember(&mut self, request: &Request) {
        if self.coding.is_some() {
            self.resource = resource(request).into();
        }
    }
}

/// Authority and target of a GET or HEAD: with an entity tag they name one representation. Empty for other methods.
fn resource(request: &Request) -> Vec<u8> {
    let head = &request.head;
    if !matches!(head.method, Method::Get | Method::Head) {
        return Vec::new();
    }
    let authority = head.target.authority().or_else(|| head.fields.get(Known::Host)).unwrap_or_default();
    [authority, b"\0", &head.target.path_and_query()].concat()
}

impl Compress {
    /// A route's compression, with nothing in memory yet.
    pub fn new(
        codings: &[Coding],
        bytes_min: u64,
        types: TypeSet,
        levels: Levels,
        credentialed: bool,
        memory_bytes_max: u64,
    ) -> Compress {
        Compress {
            codings: codings.into(),
            bytes_min,
            types,
            levels,
            credentialed,
            results: Cache::with_weighter(1024, memory_bytes_max, Weight),
            result_bytes_max: (memory_bytes_max / 8).min(8 << 20) as usize,
        }
    }

    /// Reads what the request accepts, and takes our suffix off the entity tags of its conditions.
    pub fn ask(&self, method: &Method, fields: &mut Fields) -> Asked {
        let head = *method == Method::Head;
        let mut asked = Asked { coding: self.choose(fields), head, ..Asked::default() };
        if fields.contains(Known::IfNoneMatch)
            && let Some(coding) = asked.coding
        {
            let suffix = self.suffix(coding);
            asked.stripped = strip(fields, Known::IfNoneMatch, &[&suffix]);
        }
        // Whoever changes a resource read it in whatever coding: its tag stands for the same state.
        if fields.contains(Known::IfMatch) {
            let suffixes: Vec<String> = self.codings.iter().map(|&coding| self.suffix(coding)).collect();
            let suffixes: Vec<&str> = suffixes.iter().map(|suffix| &**suffix).collect();
            strip(fields, Known::IfMatch, &suffixes);
        }
        asked
    }

    fn choose(&self, fields: &Fields) -> Option<Coding> {
        if !fields.contains(Known::AcceptEncoding) {
            return None;
        }
        if !self.credentialed && fields.contains_any(&[Known::Cookie, Known::Authorization]) {
            return None;
        }
        CHOICES.with_borrow_mut(|choices| choices.choose(&self.codings, fields))
    }

    /// Different efforts make different octets, so they have different tags.
    fn suffix(&self, coding: Coding) -> String {
        format!("-{}{}", coding.name(), self.levels.of(coding))
    }

    /// Compresses a response if it should be, and says in Vary that it depends on Accept-Encoding if it could be.
    /// `request` is needed unless it was [remembered](Asked::remember); `type_of_path` is the media type that the path suggests, for a 304.
    pub fn apply(
        &self,
        asked: &Asked,
        response: &mut Response,
        request: Option<&Request>,
        shared: &std::sync::Arc<Compress>,
        type_of_path: impl FnOnce() -> Option<&'static str>,
    ) {
        match response.status {
            Status::NOT_MODIFIED => return self.restore(asked, response, type_of_path),
            // 9110-15.3.7-02: it says of Vary what the 200 would.
            Status::PARTIAL_CONTENT if self.would(response, type_of_path) => {
                return add_vary(response.fields.to_mut(), "Accept-Encoding");
            }
            _ => {}
        }
        if !self.could(response) {
            return;
        }
        add_vary(response.fields.to_mut(), "Accept-Encoding");
        let Some(coding) = asked.coding else { return };
        let named;
        let resource = match request {
            Some(request) if asked.resource.is_empty() => {
                named = resource(request);
                &named[..]
            }
            _ => &asked.resource,
        };
        let key = key(resource, coding, response.fields.get(), response.content.length());
        let content = std::mem::replace(&mut response.content, Content::Empty);
        let (content, constant) = match self.encode(asked, coding, key, content, shared) {
            Ok(coded) => coded,
            Err(content) => {
                response.content = content;
                return;
            }
        };
        response.content = content;
        let fields = response.fields.to_mut();
        let _ = fields.set(Known::ContentEncoding, coding.name());
        if let Some(tag) = fields.get(Known::ETag).and_then(EntityTag::parse) {
            let opaque = [tag.opaque, self.suffix(coding).as_bytes()].concat();
            let mut value = Vec::with_capacity(opaque.len() + 4);
            // What is compressed as it flows is cut where the pauses were: never twice the same octets.
            EntityTag { weak: tag.weak || !constant, opaque: &opaque }.write(&mut value);
            let _ = fields.set(Known::ETag, value);
        }
        // They describe the octets before coding, or offer ranges that are not given of coded ones.
        for name in [Known::ContentDigest, Known::ReprDigest, Known::AcceptRanges] {
            fields.remove(name);
        }
        fields.remove("Content-MD5");
    }

    /// Whether a response would be compressed for a client that accepts it.
    fn could(&self, response: &Response) -> bool {
        let fields = response.fields.get();
        if response.status.never_has_content()
            || response.status == Status::PARTIAL_CONTENT
            || fields.contains_any(&[Known::ContentEncoding, Known::ContentRange])
            || fields.has_member(Known::CacheControl, "no-transform")
        {
            return false;
        }
        let length = match &response.content {
            Content::Empty | Content::Parts(_) | Content::Switch(_) => return false,
            content => content.length(),
        };
        length.is_none_or(|length| length >= self.bytes_min.max(1))
            && fields.get(Known::ContentType).is_some_and(|media| self.types.contains(media))
    }

    /// Whether the 200 in place of this 206 or 304 would have been compressed, as far as one can tell.
    fn would(&self, response: &Response, type_of_path: impl FnOnce() -> Option<&'static str>) -> bool {
        let fields = response.fields.get();
        if fields.contains(Known::ContentEncoding) || fields.has_member(Known::CacheControl, "no-transform") {
            return false;
        }
        // A compressed sibling is compressed already, and its 304 does not say so.
        let coded = |(fields, _): &(std::rc::Rc<Fields>, u64)| fields.contains(Known::ContentEncoding);
        if response.whole.as_ref().is_some_and(coded) {
            return false;
        }
        let whole = fields.get(Known::ContentRange).and_then(|value| ContentRange::parse(value).ok());
        if let Some(ContentRange::Part { complete: Some(length), .. }) = whole
            && length < self.bytes_min
        {
            return false;
        }
        let whole = response.whole.as_ref();
        if whole.is_some_and(|(_, length)| *length < self.bytes_min.max(1)) {
            return false;
        }
        // Several parts have a type of their own kind: that of the path says more.
        let stated = fields.get(Known::ContentType).filter(|media| !media.starts_with(b"multipart/"));
        match stated.or_else(|| whole.and_then(|(fields, _)| fields.get(Known::ContentType))) {
            Some(media) => self.types.contains(media),
            None => type_of_path().is_none_or(|media| self.types.contains(media.as_bytes())),
        }
    }

    /// A 304 for a tag that had our suffix says that tag again.
    fn restore(
        &self,
        asked: &Asked,
        response: &mut Response,
        type_of_path: impl FnOnce() -> Option<&'static str>,
    ) {
        if !self.would(response, type_of_path) {
            return;
        }
        let fields = response.fields.get();
        let restored = fields.get(Known::ETag).and_then(EntityTag::parse).and_then(|tag| {
            let coding = asked.coding?;
            asked.stripped.iter().find(|stripped| ***stripped == *tag.opaque)?;
            let opaque = [tag.opaque, self.suffix(coding).as_bytes()].concat();
            let mut value = Vec::with_capacity(opaque.len() + 4);
            EntityTag { weak: tag.weak, opaque: &opaque }.write(&mut value);
            Some(value)
        });
        let fields = response.fields.to_mut();
        if let Some(value) = restored {
            let _ = fields.set(Known::ETag, value);
        }
        add_vary(fields, "Accept-Encoding");
    }

    /// The coded content, and whether the same octets would come out again; the content back if it is not worth it now.
    fn encode(
        &self,
        asked: &Asked,
        coding: Coding,
        key: Option<Box<[u8]>>,
        content: Content,
        shared: &std::sync::Arc<Compress>,
    ) -> Result<(Content, bool), Content> {
        if let Some(key) = &key
            && let Some(result) = self.results.get(&key[..])
        {
            let length = Some(result.len() as u64);
            return Ok((if asked.head { Content::Described(length) } else { Content::Bytes(result) }, true));
        }
        let constant = matches!(content, Content::Bytes(_) | Content::File(_) | Content::Described(Some(_)));
        if asked.head {
            return Ok((Content::Described(None), constant));
        }
        let input = match content {
            Content::Bytes(bytes) if bytes.len() <= AT_ONCE_BYTES_MAX => Input::Whole(bytes),
            Content::File(range) if range.length <= AT_ONCE_BYTES_MAX as u64 => {
                let mut bytes = vec![0; range.length as usize];
                match range.file.read_exact_at(&mut bytes, range.offset) {
                    Ok(()) => Input::Whole(bytes.into()),
                    // It shrank: the session finds that out and ends the connection (fault P24).
                    Err(_) => return Err(Content::File(range)),
                }
            }
            Content::Bytes(bytes) => Input::Pieces(Source::Bytes(bytes)),
            Content::File(range) => Input::Pieces(Source::File(range.file, range.offset, range.length)),
            Content::Pipe(reader, _) => Input::Pieces(Source::Pipe(reader)),
            Content::Flow(flowing, _) => Input::Pieces(Source::Pipe(flowing.into_pipe())),
            other => return Err(other),
        };
        match input {
            Input::Whole(bytes) => {
                let coded = match Encoder::new(coding, &self.levels).and_then(|encoder| encoder.whole(&bytes))
                {
                    Ok(coded) if coded.len() < bytes.len() => Bytes::from(coded),
                    // It does not shrink: as it was. The next client is told the same, since Vary is set.
                    _ => return Err(Content::Bytes(bytes)),
                };
                self.keep(key, &coded);
                Ok((Content::Bytes(coded), true))
            }
            Input::Pieces(source) => {
                let (Some(slot), Ok(encoder)) = (STREAMS.take(), Encoder::new(coding, &self.levels)) else {
                    return Err(source.back());
                };
                let (writer, reader) = pipe(PIPE_BYTES);
                let keeper = key.map(|key| (shared.clone(), key));
                tokio::task::spawn_local(flow(source, encoder, writer, keeper, slot));
                Ok((Content::Pipe(reader, None), constant))
            }
        }
    }

    fn keep(&self, key: Option<Box<[u8]>>, result: &Bytes) {
        if let Some(key) = key
            && result.len() <= self.result_bytes_max
        {
            self.results.insert(key, result.clone());
        }
    }
}

/// Only what has a strong tag, of a request that named its resource, can be recognised again.
fn key(resource: &[u8], coding: Coding, fields: &Fields, length: Option<u64>) -> Option<Box<[u8]>> {
    let etag = fields.get(Known::ETag)?;
    if resource.is_empty() || EntityTag::parse(etag)?.weak {
        return None;
    }
    let mut key = Vec::with_capacity(resource.len() + etag.len() + 24);
    key.extend_from_slice(resource);
    key.push(0);
    key.extend_from_slice(etag);
    key.push(coding as u8);
    key.extend_from_slice(&length?.to_le_bytes());
    Some(key.into())
}

enum Input {
    Whole(Bytes),
    Pieces(Source),
}

enum Source {
    Bytes(Bytes),
    File(std::rc::Rc<std::fs::File>, u64, u64),
    Pipe(Reader),
}

impl Source {
    /// The content it came from.
    fn back(self) -> Content {
        match self {
            Source::Bytes(bytes) => Content::Bytes(bytes),
            Source::File(file, offset, length) => {
                Content::File(crate::response::FileRange { file, offset, length })
            }
            Source::Pipe(reader) => Content::Pipe(reader, None),
        }
    }

    /// The next piece. `None`: nothing is here now, so what was compressed must not be held back.
    fn try_next(&mut self) -> Option<Next<Option<Box<Fields>>>> {
        match self {
            Source::Bytes(bytes) if bytes.is_empty() => Some(Next::Complete(None)),
            Source::Bytes(bytes) => Some(Next::Data(bytes.split_to(bytes.len().min(PIECE_BYTES)))),
            Source::File(_, _, 0) => Some(Next::Complete(None)),
            Source::File(file, offset, length) => {
                let mut piece = vec![0; (*length).min(PIECE_BYTES as u64) as usize];
                if file.read_exact_at(&mut piece, *offset).is_err() {
                    return Some(Next::Aborted(Reason::Storage));
                }
                *offset += piece.len() as u64;
                *length -= piece.len() as u64;
                Some(Next::Data(piece.into()))
            }
            Source::Pipe(reader) => reader.try_next(),
        }
    }

    async fn next(&mut self) -> Next<Option<Box<Fields>>> {
        match self {
            Source::Pipe(reader) => reader.next().await,
            other => other.try_next().unwrap_or(Next::Complete(None)),
        }
    }
}

/// Compresses what comes in as it comes, and keeps the whole if it is small and somebody may ask again.
async fn flow(
    mut source: Source,
    mut encoder: Encoder,
    mut writer: Writer,
    keeper: Option<(std::sync::Arc<Compress>, Box<[u8]>)>,
    _slot: StreamSlot,
) {
    let mut kept = keeper.is_some().then(Vec::new);
    loop {
        let next = match source.try_next() {
            Some(next) => next,
            None => {
                // The sender pauses: whoever waits for this event must get it now.
                let Ok(ready) = encoder.flush() else { return writer.abort(Reason::Storage) };
                if send(&mut writer, ready, &mut kept, &keeper).await.is_err() {
                    return;
                }
                source.next().await
            }
        };
        match next {
            Next::Data(data) => {
                for piece in data.chunks(PIECE_BYTES) {
                    let Ok(ready) = encoder.write(piece) else { return writer.abort(Reason::Storage) };
                    if send(&mut writer, ready, &mut kept, &keeper).await.is_err() {
                        return;
                    }
                }
                // Other connections of this worker want their turn between two pieces.
                tokio::task::yield_now().await;
            }
            Next::Complete(trailers) => {
                let Ok(last) = encoder.finish() else { return writer.abort(Reason::Storage) };
                if send(&mut writer, last.into(), &mut kept, &keeper).await.is_err() {
                    return;
                }
                if let (Some(kept), Some((compress, key))) = (kept, keeper) {
                    compress.keep(Some(key), &kept.into());
                }
                return writer.complete(trailers);
            }
            // Invariant 9: what is not whole before coding is not whole after it.
            Next::Aborted(reason) => return writer.abort(reason),
        }
    }
}

async fn send(
    writer: &mut Writer,
    ready: Bytes,
    kept: &mut Option<Vec<u8>>,
    keeper: &Option<(std::sync::Arc<Compress>, Box<[u8]>)>,
) -> Result<(), eleven_net::pipe::ReaderGone> {
    if ready.is_empty() {
        return Ok(());
    }
    if let (Some(bytes), Some((compress, _))) = (kept.as_mut(), keeper) {
        if bytes.len() + ready.len() <= compress.result_bytes_max {
            bytes.extend_from_slice(&ready);
        } else {
            *kept = None;
        }
    }
    writer.send(ready).await
}

/// Takes a suffix off the entity tags of a condition; the opaque parts that had one. A list that cannot be read
/// stays as it is.
fn strip(fields: &mut Fields, name: Known, suffixes: &[&str]) -> Vec<Box<[u8]>> {
    let EntityTags::List(tags) = EntityTags::of(fields, name) else { return Vec::new() };
    let bare = |tag: &EntityTag<'_>| {
        suffixes.iter().find_map(|suffix| tag.opaque.strip_suffix(suffix.as_bytes()).map(Box::<[u8]>::from))
    };
    let stripped: Vec<Box<[u8]>> = tags.iter().filter_map(bare).collect();
    if stripped.is_empty() {
        return stripped;
    }
    let mut value = Vec::new();
    for tag in &tags {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        match bare(tag) {
            Some(opaque) => EntityTag { weak: tag.weak, opaque: &opaque }.write(&mut value),
            None => tag.write(&mut value),
        }
    }
    let _ = fields.set(name, value);
    stripped
}

#[cfg(test)]
mod tests;
