//! The origin server of a directory tree (RFC 9110 §9.3.1, §9.3.2, §9.3.7): from a request to a response, step
//! by step: memory, file system, negotiation, conditions, ranges. Opens files beneath one root only, and writes
//! nothing to the peer.

pub mod hot;
pub mod listing;
pub mod media;
pub mod reply;
pub mod resolve;
pub mod upload;

use crate::handler::Handled;
use crate::request::Request;
use crate::response::Response;
use bytes::Bytes;
use eleven_messaging::RequestHead;
use eleven_net::file::{Meta, Root};
use eleven_semantics::RequestTarget;
use eleven_semantics::date::HttpDate;
use eleven_semantics::negotiation::{self, Reason, Variant};
use eleven_semantics::range::RangeLimits;
use eleven_semantics::target::{InvalidPath, canonical_path, push_encoded_path};
use eleven_semantics::{Fields, Known, Method, Status};
use hot::{Entry, Hot, HotFile, Lookup};
use listing::ListingOptions;
use media::MediaTypes;
use reply::{Labels, Representation, Source};
use resolve::{Coding, Found, Lookups, Offer, Unavailable};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;
use upload::UploadOptions;

/// How a tree is served.
#[derive(Debug, Clone, Default)]
pub struct FilesOptions {
    /// Index files and variants by name.
    pub lookups: Lookups,
    /// Media types.
    pub types: MediaTypes,
    /// Limits on Range.
    pub ranges: RangeLimits,
    /// Listings of directories without index file; `None` answers 404.
    pub listing: Option<ListingOptions>,
    /// PUT and DELETE; `None` answers 405 (fault P27).
    pub upload: Option<UploadOptions>,
    /// 406 where no variant is acceptable, instead of the one a server would choose unasked (RFC 9110 §15.5.7).
    pub strict_negotiation: bool,
}

/// What a worker lends to the handler: memory, time and randomness.
#[derive(Clone, Copy)]
pub struct Worker<'a> {
    /// Small files in memory.
    pub hot: &'a RefCell<Hot>,
    /// Wall time.
    pub now: HttpDate,
    /// Monotonic time in milliseconds, from any beginning.
    pub now_ms: u64,
    /// Draws 128 random bits: boundaries between parts. Without them, several ranges are not sent.
    pub random: fn() -> std::io::Result<[u8; 16]>,
}

/// A directory tree on the web. Cheap to clone, shared by all workers.
#[derive(Debug, Clone)]
pub struct Files(Arc<Tree>);

#[derive(Debug)]
struct Tree {
    /// Tells trees apart in the memory of workers, also across a reload.
    id: u64,
    root: Root,
    mount: Box<[u8]>,
    options: FilesOptions,
    /// Counts uploads and removals, so that the memory of every worker looks at the disk after one.
    epoch: AtomicU64,
    /// How many listings may be made at a time.
    listings: Semaphore,
}

/// Listings of one tree that are made at a time; others wait their turn. Each may take a processor for some
/// milliseconds.
const LISTINGS_AT_A_TIME_MAX: usize = 4;

static TREES: AtomicU64 = AtomicU64::new(0);

impl Files {
    /// Serves `root` at the canonical path `mount`, without a slash at its end: empty for a whole site.
    pub fn new(root: Root, mount: &[u8], options: FilesOptions) -> Files {
        let id = TREES.fetch_add(1, Ordering::Relaxed);
        let (epoch, listings) = (AtomicU64::new(0), Semaphore::new(LISTINGS_AT_A_TIME_MAX));
        Files(Arc::new(Tree { id, root, mount: mount.into(), options, epoch, listings }))
    }

    /// Answers a request.
    pub fn handle(&self, request: &mut Request, worker: &Worker<'_>) -> Handled {
        match request.head.method {
            Method::Get | Method::Head => self.get(request, worker),
            Method::Options => self.options().into(),
            Method::Put | Method::Delete if self.allows(&request.head.method) => self.change(request, worker),
            // 9110-9.1-03, 9110-9.1-04
            ref method if method.is_known() => self.method_not_allowed().into(),
            _ => Response::new(Status::NOT_IMPLEMENTED).into(),
        }
    }

    /// 9110-9.3.7-01.
    fn options(&self) -> Response {
        let mut response = Response::new(Status::NO_CONTENT);
        response.add(Known::Allow, self.allow());
        response
    }

    /// 9110-15.5.6-01; fault P27.
    fn method_not_allowed(&self) -> Response {
        let mut response = Response::new(Status::METHOD_NOT_ALLOWED);
        response.add(Known::Allow, self.allow());
        response
    }

    fn allow(&self) -> &'static str {
        match &self.0.options.upload {
            None => "GET, HEAD, OPTIONS",
            Some(upload) if upload.delete => "GET, HEAD, OPTIONS, PUT, DELETE",
            Some(_) => "GET, HEAD, OPTIONS, PUT",
        }
    }

    /// Whether uploads are on, and this method is among theirs.
    fn allows(&self, method: &Method) -> bool {
        let upload = self.0.options.upload.as_ref();
        upload.is_some_and(|upload| upload.delete || *method == Method::Put)
    }

    /// PUT and DELETE.
    fn change(&self, request: &mut Request, worker: &Worker<'_>) -> Handled {
        let Some(options) = &self.0.options.upload else { return self.method_not_allowed().into() };
        let beneath = match request.path() {
            Ok(path) => self.beneath(path).filter(|beneath| !beneath.is_empty()).map(<[u8]>::to_vec),
            // Nothing can be put there; whether anything is there is not the question.
            Err(_) => return Response::new(Status::BAD_REQUEST).into(),
        };
        let Some(path) = beneath else { return Response::new(Status::NOT_FOUND).into() };
        if request.head.method == Method::Delete {
            let (files, head) = (self.clone(), request.head.clone());
            return Handled::later(upload::delete(files, head, path, worker.now));
        }
        match upload::admit(self, &request.head, request.content_length, &path, options, worker.now) {
            Ok(upload) => {
                let (files, request) = (self.clone(), request.take());
                Handled::later(async move { upload::receive(&files, request, upload).await })
            }
            Err(refused) => refused.response(&request.head).into(),
        }
    }

    fn root(&self) -> &Root {
        &self.0.root
    }

    /// This server changed the tree.
    fn changed(&self) {
        self.0.epoch.fetch_add(1, Ordering::Release);
    }

    /// How often this server changed the tree.
    fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    fn get(&self, request: &mut Request, worker: &Worker<'_>) -> Handled {
        let handled = self.look_up(request, worker);
        handled.unwrap_or_else(|unavailable| unavailable_response(&request.head, &unavailable).into())
    }

    /// From memory, or from the disk.
    fn look_up(&self, request: &mut Request, worker: &Worker<'_>) -> Result<Handled, Unavailable> {
        let epoch = self.epoch();
        let known = {
            let hot = worker.hot.borrow();
            let (tree, key) = self.hot_key(request);
            match hot.get(tree, key, worker.now_ms, epoch) {
                Lookup::Fresh(entry) => {
                    let entry = entry.clone();
                    return Ok(self.answer_from_memory(&entry, request, worker).into());
                }
                Lookup::Unchecked(entry) => Some(entry.clone()),
                Lookup::Absent => None,
            }
        };
        let handled = self.answer_from_disk(request, worker, known.as_ref(), epoch);
        if handled.is_err() && known.is_some() {
            self.forget(request, worker);
        }
        handled
    }

    fn forget(&self, request: &Request, worker: &Worker<'_>) {
        let (tree, key) = self.hot_key(request);
        worker.hot.borrow_mut().remove(tree, key);
    }

    /// What the memory is asked by: the path as received, which needs no decoding; or the canonical path that
    /// it was rewritten to, which the same octets would not mean and which therefore counts as another tree.
    fn hot_key<'r>(&self, request: &'r Request) -> (u64, &'r [u8]) {
        match request.rewritten_path() {
            Some(path) => (self.0.id * 4 + 2, path),
            None if request.has_other_target() => (self.0.id * 4 + 1, request.head.target.path()),
            None => (self.0.id * 4, request.head.target.path()),
        }
    }

    fn answer_from_memory(&self, entry: &Entry, request: &Request, worker: &Worker<'_>) -> Response {
        let fields = &request.head.fields;
        let file = match &*entry.files {
            [only] => only,
            several => {
                let variants: Vec<_> = several.iter().map(HotFile::variant).collect();
                match self.choose(fields, &variants) {
                    Some(index) => &several[index],
                    None => return self.not_acceptable(&variants),
                }
            }
        };
        let source = Source::Memory(file.content.clone());
        self.respond(request, &file.representation, source, worker)
    }

    fn answer_from_disk(
        &self,
        request: &mut Request,
        worker: &Worker<'_>,
        known: Option<&Rc<Entry>>,
        epoch: u64,
    ) -> Result<Handled, Unavailable> {
        let options = &self.0.options;
        let path = match request.path() {
            Ok(path) => path.to_vec(),
            // Fault P02: no file has such a name.
            Err(InvalidPath::EncodedSlash) => return Err(Unavailable::NotFound),
            Err(why) => return Ok(Response::new(why.status()).into()),
        };
        // Fault P20: of this path another handler may know something.
        let Some(beneath) = self.beneath(&path) else { return Ok(Response::new(Status::NOT_FOUND).into()) };
        if beneath.is_empty() {
            return Ok(self.redirect_to_slash(request).into());
        }
        let (offers, path) = match resolve::resolve(&self.0.root, beneath, &options.lookups)? {
            Found::Files { offers, path } => (offers, path),
            // The path was rewritten to a directory, and asked for with its slash.
            Found::RedirectToSlash if public_target(request).path().ends_with(b"/") => {
                let path = [&*path, b"/"].concat();
                request.set_path(&path);
                return self.answer_from_disk(request, worker, known, epoch);
            }
            Found::RedirectToSlash => return Ok(self.redirect_to_slash(request).into()),
            Found::Directory(directory) => {
                let beneath = beneath.to_vec();
                return self.list(request, beneath, directory.file, worker);
            }
        };

        if let Some(entry) = known
            && is_current(entry, &offers)
        {
            entry.confirm(worker.now_ms, epoch);
            return Ok(self.answer_from_memory(entry, request, worker).into());
        }
        if let Some(entry) = self.read_into_memory(&offers, &path, request, worker, epoch)? {
            return Ok(self.answer_from_memory(&entry, request, worker).into());
        }
        if known.is_some() {
            self.forget(request, worker);
        }

        let variants: Vec<_> = offers.iter().map(Offer::variant).collect();
        let Some(index) = self.choose(&request.head.fields, &variants) else {
            return Ok(self.not_acceptable(&variants).into());
        };
        let representation = self.representation(&offers, index, &path, request, worker.now)?;
        let file = offers.into_iter().nth(index).map(|offer| offer.opened.file);
        // The index is one of the offers.
        let Some(file) = file else { return Err(Unavailable::NotFound) };
        Ok(self.respond(request, &representation, Source::File(Rc::new(file)), worker).into())
    }

    /// The path beneath the mount, with its slash; empty if it is the mount itself, `None` if it is elsewhere
    /// (fault P20).
    fn beneath<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        path.strip_prefix(&*self.0.mount).filter(|rest| matches!(rest, [] | [b'/', ..]))
    }

    fn respond(
        &self,
        request: &Request,
        representation: &Representation,
        source: Source,
        worker: &Worker<'_>,
    ) -> Response {
        let head = &request.head;
        let limits = &self.0.options.ranges;
        reply::respond(&head.method, &head.fields, representation, source, worker.now, limits, worker.random)
    }

    /// 301 to the same path with its slash. The canonical path begins with one slash, so Location names no
    /// other host (fault P21).
    fn redirect_to_slash(&self, request: &Request) -> Response {
        let mut location = Vec::new();
        push_encoded_path(&mut location, &public_path(request));
        location.push(b'/');
        if let Some(query) = public_target(request).query() {
            location.push(b'?');
            location.extend_from_slice(query);
        }
        let mut response = Response::new(Status::MOVED_PERMANENTLY);
        response.add(Known::Location, location);
        response
    }

    /// A listing, made beside the worker: reading a large directory takes long.
    fn list(
        &self,
        request: &mut Request,
        beneath: Vec<u8>,
        directory: File,
        worker: &Worker<'_>,
    ) -> Result<Handled, Unavailable> {
        let Some(options) = self.0.options.listing.clone() else { return Err(Unavailable::NotFound) };
        let shown = public_path(request);
        let (files, head, now, random) = (self.clone(), request.head.clone(), worker.now, worker.random);
        Ok(Handled::later(async move {
            let order = listing::Order::parse(head.target.query().unwrap_or_default());
            let form = listing::Form::of(&head.fields);
            let ranges = files.0.options.ranges;
            // Closed never: the permit is there, now or soon.
            let tree = files.clone();
            let _permit = tree.0.listings.acquire().await;
            let made = tokio::task::spawn_blocking(move || {
                let listing = listing::read(&files.0.root, &beneath, &directory, order, &options);
                listing.map(|listing| listing.write(form, &shown, order))
            });
            match made.await {
                Ok(Ok(content)) => listing::respond(&head, form, content, now, &ranges, random),
                Ok(Err(error)) => unavailable_response(&head, &Unavailable::from(error)),
                Err(_) => Response::new(Status::INTERNAL_SERVER_ERROR),
            }
        }))
    }

    /// Takes files into memory if they are small and settled; `None` if not.
    fn read_into_memory(
        &self,
        offers: &[Offer],
        path: &[u8],
        request: &Request,
        worker: &Worker<'_>,
        epoch: u64,
    ) -> Result<Option<Rc<Entry>>, Unavailable> {
        let metas = offers.iter().map(|offer| &offer.opened.meta);
        if !worker.hot.borrow().admits(metas, worker.now.0) {
            return Ok(None);
        }
        let mut files = Vec::with_capacity(offers.len());
        for (index, offer) in offers.iter().enumerate() {
            // A file that changes meanwhile is sent from its descriptor, as any large one.
            let Some(content) = read_whole(&offer.opened.file, &offer.opened.meta)? else { return Ok(None) };
            files.push(HotFile {
                representation: self.representation(offers, index, path, request, worker.now)?,
                content,
                meta: offer.opened.meta,
                language: offer.language.clone(),
                coding: offer.coding,
            });
        }
        let (tree, key) = self.hot_key(request);
        let entry = Rc::new(Entry::new(tree, key, files.into(), worker.now_ms, epoch));
        worker.hot.borrow_mut().insert(entry.clone());
        Ok(Some(entry))
    }

    /// The representation that an offer is, among the others that negotiation could have chosen.
    fn representation(
        &self,
        offers: &[Offer],
        index: usize,
        path: &[u8],
        request: &Request,
        now: HttpDate,
    ) -> Result<Representation, Unavailable> {
        let offer = &offers[index];
        let by_language = offers.iter().any(|other| other.language != offer.language);
        let by_coding =
            offers.iter().any(|other| other.language == offer.language && other.coding != offer.coding);
        let vary = match (by_language, by_coding) {
            (true, true) => Some("Accept-Encoding, Accept-Language"),
            (true, false) => Some("Accept-Language"),
            (false, true) => Some("Accept-Encoding"),
            (false, false) => None,
        };
        let language = offer.language.as_deref();
        // The extension that says the type stands before that of the language.
        let own_name = language.is_some_and(|language| resolve::has_suffix(path, language));
        let (stem, location) = match language {
            Some(language) if own_name => (&path[..path.len() - language.len() - 1], None),
            // A rewritten path is no name that a client could ask for.
            Some(_) if request.is_rewritten() || request.has_other_target() => (path, None),
            Some(language) => {
                let mut location = Vec::new();
                push_encoded_path(&mut location, &self.0.mount);
                push_encoded_path(&mut location, path);
                push_encoded_path(&mut location, format!(".{language}").as_bytes());
                (path, Some(location))
            }
            None => (path, None),
        };
        let content_type = self.0.options.types.content_type(stem);
        let labels = Labels {
            content_type: &content_type,
            coding: offer.coding.map(Coding::name),
            language,
            content_location: location.as_deref(),
            vary,
        };
        Representation::of_file(&offer.opened.meta, &labels, now)
            .map_err(|why| Unavailable::Failed(std::io::Error::other(format!("media type: {why}"))))
    }

    /// Which of several variants is sent; those with a language come first. `None` for 406.
    fn choose(&self, fields: &Fields, variants: &[Variant<'_>]) -> Option<usize> {
        if let [_] = variants {
            return Some(0);
        }
        let with_language = variants.iter().take_while(|variant| variant.language.is_some()).count();
        let (by_language, plain) = variants.split_at(with_language);
        if !by_language.is_empty()
            && (plain.is_empty() || fields.contains(Known::AcceptLanguage))
            && let Ok(choice) = negotiation::choose(fields, by_language)
            && (plain.is_empty() || choice.reason == Reason::Preferred)
        {
            return Some(choice.index);
        }
        if let Ok(choice) = negotiation::choose(fields, plain) {
            return Some(with_language + choice.index);
        }
        if self.0.options.strict_negotiation {
            return None;
        }
        // What is not acceptable is better than nothing (RFC 9110 §12.1): uncoded, without language if there
        // is one.
        let uncoded = |variant: &Variant<'_>| variant.coding.is_none_or(negotiation::is_identity);
        let plain = plain.iter().position(uncoded).map(|index| with_language + index);
        plain.or_else(|| by_language.iter().position(uncoded))
    }

    /// 406 with a list of what there is (9110-15.5.7-01).
    fn not_acceptable(&self, variants: &[Variant<'_>]) -> Response {
        let mut text = b"Not acceptable. Available:\n".to_vec();
        for variant in variants {
            let language = variant.language.unwrap_or(b"any language");
            text.extend_from_slice(language);
            text.extend_from_slice(b", ");
            text.extend_from_slice(variant.coding.unwrap_or(b"identity"));
            text.push(b'\n');
        }
        let mut response = Response::text(Status::NOT_ACCEPTABLE, "text/plain; charset=utf-8", text);
        response.add(Known::Vary, "Accept-Encoding, Accept-Language");
        response
    }
}

impl HotFile {
    fn variant(&self) -> Variant<'_> {
        variant(self.language.as_deref(), self.coding)
    }
}

impl Offer {
    fn variant(&self) -> Variant<'_> {
        variant(self.language.as_deref(), self.coding)
    }
}

/// The media type takes no part: all variants of a file have the same.
fn variant(language: Option<&str>, coding: Option<Coding>) -> Variant<'_> {
    Variant {
        language: language.map(str::as_bytes),
        coding: Some(coding.map_or("identity", Coding::name).as_bytes()),
        ..Variant::default()
    }
}

/// Whether what is in memory is what the file system has.
fn is_current(entry: &Entry, offers: &[Offer]) -> bool {
    entry.files.len() == offers.len()
        && entry.files.iter().zip(offers).all(|(file, offer)| {
            file.meta == offer.opened.meta && file.language == offer.language && file.coding == offer.coding
        })
}

/// All of a file, if it did not change while it was read.
fn read_whole(file: &File, meta: &Meta) -> Result<Option<Bytes>, Unavailable> {
    // Admitted files are small (`HotLimits::file_bytes_max`).
    let mut content = vec![0u8; meta.size as usize];
    match file.read_exact_at(&mut content, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok((Meta::of(file)? == *meta).then(|| content.into()))
}

/// The path of the target that the client sent, whatever it was rewritten to: what relative references in the
/// answer are relative to.
fn public_target(request: &Request) -> RequestTarget {
    let received = RequestTarget::parse(&request.head.method, request.received_target());
    received.unwrap_or_else(|_| request.head.target.clone())
}

/// Its canonical path.
fn public_path(request: &Request) -> Vec<u8> {
    // It was canonical before anything could be rewritten.
    canonical_path(public_target(request).path()).unwrap_or_else(|_| b"/".to_vec())
}

fn unavailable_response(head: &RequestHead, unavailable: &Unavailable) -> Response {
    let status = unavailable.status();
    if matches!(unavailable, Unavailable::Forbidden(_) | Unavailable::Exhausted(_) | Unavailable::Failed(_)) {
        let target = head.target.as_bytes().escape_ascii();
        tracing::warn!(%target, why = %unavailable, %status, "a file could not be served");
    }
    let mut response = Response::new(status);
    if status == Status::SERVICE_UNAVAILABLE {
        response.add(Known::RetryAfter, "1");
    }
    response
}

#[cfg(test)]
#[path = "files/cross_tests.rs"]
mod cross_tests;
#[cfg(test)]
#[path = "files/download_tests.rs"]
mod download_tests;
#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
