//! PUT and DELETE in a directory tree, for routes that ask for them (RFC 9110 §9.3.4, §9.3.5). Everything that
//! can be refused is refused before any content is asked for, so a client that expects 100 is not invited in
//! vain. New content is written under a temporary name and takes its own when it is whole, checked and on the
//! disk; until then, and if anything fails, the old content stands.
//!
//! The disk is waited for beside the worker, not on it. What a client says of its content's type is not stored:
//! the name decides when it is read (9110-9.3.4-05).

use super::resolve::Unavailable;
use super::{Files, reply, unavailable_response};
use crate::request::{ContentReader, Request, RequestContent};
use crate::response::Response;
use eleven_messaging::RequestHead;
use eleven_net::file::{Durability, Existing, Kind, Meta, OpenError, Root, Temporary, reap};
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::conditional::{self, Condition, Verdict};
use eleven_semantics::date::HttpDate;
use eleven_semantics::digest_fields::{self, Digest, Hasher};
use eleven_semantics::validator::{EntityTag, Validators};
use eleven_semantics::{Fields, Known, Status};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Limits and choices of uploads.
#[derive(Debug, Clone)]
pub struct UploadOptions {
    /// Longest content of one upload; more is 413.
    pub content_bytes_max: u64,
    /// Directories that are missing on the way to a new file are created, instead of 409.
    pub create_directories: bool,
    /// DELETE removes files.
    pub delete: bool,
    /// Permission bits of new files, less the process's umask. A replaced file keeps its own.
    pub mode: u32,
    /// What changes or removes a file must say on which state of it that is based; 428 otherwise.
    pub conditional: bool,
}

impl Default for UploadOptions {
    fn default() -> Self {
        UploadOptions {
            content_bytes_max: 1 << 30,
            create_directories: false,
            delete: true,
            mode: 0o644,
            conditional: false,
        }
    }
}

impl UploadOptions {
    /// RFC 6585 §3: against lost updates.
    fn demand_condition(&self, head: &RequestHead) -> Result<(), Refused> {
        let conditions = [Known::IfMatch, Known::IfNoneMatch, Known::IfUnmodifiedSince];
        if !self.conditional || head.fields.contains_any(&conditions) {
            return Ok(());
        }
        let text = "say with If-Match or If-Unmodified-Since which state of the file is to be changed";
        Err(Refused::because(Status::PRECONDITION_REQUIRED, text))
    }
}

/// Content is gathered up to this before it is handed to the disk: large enough that the hand-over costs
/// little, small enough for very many uploads at a time.
const WRITE_BYTES: usize = 64 << 10;

/// An upload that nothing speaks against but its content.
#[derive(Debug)]
pub struct Upload {
    path: Vec<u8>,
    promised: Vec<Digest>,
    options: UploadOptions,
    /// Permission bits of the new file.
    mode: u32,
    now: HttpDate,
}

/// Judges a PUT by its head alone. `path` is canonical, beneath the root.
///
/// # Errors
/// The refusal.
pub fn admit(
    files: &Files,
    head: &RequestHead,
    content_length: Option<u64>,
    path: &[u8],
    options: &UploadOptions,
    now: HttpDate,
) -> Result<Upload, Refused> {
    // 9110-14.5-01: a partial PUT that is taken for a whole one destroys the rest.
    if head.fields.contains(Known::ContentRange) {
        return Err(Refused::because(Status::BAD_REQUEST, "PUT with Content-Range is not supported"));
    }
    // 9110-8.4-03
    if head.fields.list(Known::ContentEncoding).any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Refused::Coding);
    }
    if content_length.is_some_and(|length| length > options.content_bytes_max) {
        return Err(Refused::too_large(options));
    }
    let promised = promised_digests(&head.fields)?;
    let current = current_state(files, path)?;
    if let Some(condition) = failed_condition(head, current.as_ref(), now) {
        return Err(Refused::Condition(condition));
    }
    if current.is_some() {
        options.demand_condition(head)?;
    }
    let mode = current.map_or(options.mode, |meta| meta.mode & 0o777);
    Ok(Upload { path: path.to_vec(), promised, options: options.clone(), mode, now })
}

/// Takes in the content of an admitted upload.
pub async fn receive(files: &Files, mut request: Request, upload: Upload) -> Response {
    let content = std::mem::take(&mut request.content);
    match store(files, &request.head, content, upload).await {
        Ok(response) => response,
        Err(refused) => refused.response(&request.head),
    }
}

/// Answers DELETE. `path` is canonical, beneath the root.
pub async fn delete(files: Files, head: RequestHead, path: Vec<u8>, now: HttpDate) -> Response {
    let removal = head.clone();
    match beside(move || remove(&files, &removal, &path, now)).await {
        // 9110-9.3.5-01
        Ok(()) => Response::new(Status::NO_CONTENT),
        Err(refused) => refused.response(&head),
    }
}

fn remove(files: &Files, head: &RequestHead, path: &[u8], now: HttpDate) -> Result<(), Refused> {
    let Some(meta) = current_state(files, path)? else { return Err(OpenError::NotFound.into()) };
    if let Some(condition) = failed_condition(head, Some(&meta), now) {
        return Err(Refused::Condition(condition));
    }
    if let Some(options) = &files.0.options.upload {
        options.demand_condition(head)?;
    }
    files.root().remove_file(path)?;
    files.changed();
    Ok(())
}

/// Why an upload or removal came to nothing. Can cross threads.
#[derive(Debug)]
pub enum Refused {
    /// For a reason that is told in words.
    Because(Status, String),
    /// A content coding.
    Coding,
    /// A condition does not hold.
    Condition(Condition),
    /// The name.
    Open(OpenError),
    /// The disk.
    Disk(io::Error),
    /// The thread that did it panicked.
    Panicked,
}

impl From<OpenError> for Refused {
    fn from(error: OpenError) -> Refused {
        match error {
            OpenError::Io(error) => Refused::Disk(error),
            error => Refused::Open(error),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Disk(error)
    }
}

impl Refused {
    fn because(status: Status, text: impl Into<String>) -> Refused {
        Refused::Because(status, text.into())
    }

    fn too_large(options: &UploadOptions) -> Refused {
        let text = format!("uploads take up to {} bytes", options.content_bytes_max);
        Refused::Because(Status::CONTENT_TOO_LARGE, text)
    }

    /// The response that says so.
    pub fn response(self, head: &RequestHead) -> Response {
        match self {
            Refused::Because(status, text) => explained(status, &text),
            Refused::Coding => {
                let text = "content codings are not understood here";
                let mut response = explained(Status::UNSUPPORTED_MEDIA_TYPE, text);
                // RFC 9110 §12.5.3: what would do instead.
                response.add(Known::AcceptEncoding, "identity");
                response
            }
            Refused::Condition(condition) => {
                let text = format!("{} does not hold", condition.field().name());
                explained(Status::PRECONDITION_FAILED, &text)
            }
            Refused::Open(error) => match Unavailable::from(error) {
                // A name that may not be shown may not be written either; here that is said.
                Unavailable::Hidden(refusal) => explained(Status::FORBIDDEN, &refusal.to_string()),
                unavailable => unavailable_response(head, &unavailable),
            },
            Refused::Disk(error) => match disk_status(&error) {
                Some(status) => {
                    let target = head.target.as_bytes().escape_ascii();
                    tracing::warn!(%target, %error, %status, "an upload could not be stored");
                    Response::new(status)
                }
                None => unavailable_response(head, &error.into()),
            },
            Refused::Panicked => Response::new(Status::INTERNAL_SERVER_ERROR),
        }
    }
}

fn explained(status: Status, text: &str) -> Response {
    Response::text(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// The status of an error of the file system that has one of its own.
fn disk_status(error: &io::Error) -> Option<Status> {
    match error.raw_os_error()? {
        // ENOSPC, EDQUOT
        28 | 122 => Some(Status::INSUFFICIENT_STORAGE),
        // EFBIG
        27 => Some(Status::CONTENT_TOO_LARGE),
        // EACCES, EPERM, EROFS
        13 | 1 | 30 => Some(Status::FORBIDDEN),
        // EEXIST, ENOTDIR, EISDIR, ENOTEMPTY
        17 | 20 | 21 | 39 => Some(Status::CONFLICT),
        _ => None,
    }
}

/// The file that has the name now, if one has.
fn current_state(files: &Files, path: &[u8]) -> Result<Option<Meta>, Refused> {
    if path.ends_with(b"/") {
        return Err(Refused::because(Status::CONFLICT, "a directory cannot be written or removed"));
    }
    match files.root().open(path) {
        Ok(opened) if opened.meta.kind == Kind::File => Ok(Some(opened.meta)),
        Ok(_) => Err(Refused::because(Status::CONFLICT, "a directory has this name")),
        Err(OpenError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The condition that does not hold of the file that has the name now (9110-13.1.1-02, 9110-13.1.1-03,
/// 9110-13.1.2-03, 9110-13.1.4-06).
fn failed_condition(head: &RequestHead, current: Option<&Meta>, now: HttpDate) -> Option<Condition> {
    let tag = current.map(reply::entity_tag);
    let validators = match current {
        Some(meta) => Validators {
            etag: tag.as_deref().and_then(EntityTag::parse),
            last_modified: Some(HttpDate(meta.modified_seconds).min(now)),
            exists: true,
        },
        None => Validators::NONE,
    };
    match conditional::evaluate(&head.method, &head.fields, &validators, now) {
        Verdict::Proceed => None,
        Verdict::NotModified(condition) | Verdict::Failed(condition) => Some(condition),
    }
}

/// What Content-Digest and Repr-Digest promise: of content that is whole and without coding they say the same
/// (RFC 9530 §2, §3).
fn promised_digests(fields: &Fields) -> Result<Vec<Digest>, Refused> {
    let mut promised = Vec::new();
    for name in [Known::ContentDigest, Known::ReprDigest] {
        match digest_fields::promised(fields, name) {
            Ok(digests) => promised.extend(digests),
            Err(_) => {
                return Err(Refused::because(Status::BAD_REQUEST, format!("{} is malformed", name.name())));
            }
        }
    }
    Ok(promised)
}

async fn store(
    files: &Files,
    head: &RequestHead,
    content: RequestContent,
    mut upload: Upload,
) -> Result<Response, Refused> {
    let slash = upload.path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let (within, name) = (upload.path[..slash].to_vec(), upload.path[slash + 1..].to_vec());
    let temporary = {
        let (files, upload_mode, create) = (files.clone(), upload.mode, upload.options.create_directories);
        let name = name.clone();
        beside(move || open_temporary(&files, &within, &name, upload_mode, create)).await?
    };
    let (temporary, trailers) = match content {
        RequestContent::Empty => (temporary, None),
        RequestContent::Whole(bytes, trailers) => {
            if bytes.len() as u64 > upload.options.content_bytes_max {
                return Err(Refused::too_large(&upload.options));
            }
            (write(temporary, bytes.into()).await?.0, trailers)
        }
        RequestContent::Pipe(reader) => write_all(temporary, reader, &upload.options).await?,
    };
    if let Some(trailers) = trailers {
        upload.promised.extend(promised_digests(&trailers)?);
    }
    let (files, head) = (files.clone(), head.clone());
    let done = beside(move || commit(&files, &head, temporary, &name, &upload)).await?;
    Ok(done.response())
}

fn open_temporary(
    files: &Files,
    within: &[u8],
    name: &[u8],
    mode: u32,
    create_directories: bool,
) -> Result<Temporary, Refused> {
    if create_directories {
        for end in (1..=within.len()).filter(|&at| at == within.len() || within[at] == b'/') {
            match files.root().create_directory(&within[..end], 0o755) {
                Ok(()) => {}
                Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    match files.root().create_temporary(within, name, mode) {
        Ok(temporary) => Ok(temporary),
        Err(OpenError::NotFound) => Err(Refused::because(Status::CONFLICT, "the directory does not exist")),
        Err(error) => Err(error.into()),
    }
}

/// Writes what comes through the pipe, as it comes.
async fn write_all(
    mut temporary: Temporary,
    mut reader: ContentReader,
    options: &UploadOptions,
) -> Result<(Temporary, Option<Box<Fields>>), Refused> {
    let (mut buffer, mut received) = (Vec::new(), 0u64);
    loop {
        match reader.next().await {
            Next::Data(bytes) => {
                received = received.saturating_add(bytes.len() as u64);
                if received > options.content_bytes_max {
                    return Err(Refused::too_large(options));
                }
                buffer.extend_from_slice(&bytes);
                if buffer.len() >= WRITE_BYTES {
                    (temporary, buffer) = write(temporary, buffer).await?;
                    buffer.clear();
                }
            }
            Next::Complete(trailers) => return Ok((write(temporary, buffer).await?.0, trailers)),
            // Only what is whole is kept: the temporary file goes.
            Next::Aborted(reason) => {
                let status = match reason {
                    Reason::TooLarge => Status::CONTENT_TOO_LARGE,
                    Reason::TimedOut => Status::REQUEST_TIMEOUT,
                    _ => Status::BAD_REQUEST,
                };
                return Err(Refused::because(status, reason.to_string()));
            }
        }
    }
}

/// Writes beside the worker; the buffer comes back for reuse.
async fn write(temporary: Temporary, buffer: Vec<u8>) -> Result<(Temporary, Vec<u8>), Refused> {
    if buffer.is_empty() {
        return Ok((temporary, buffer));
    }
    beside(move || {
        let mut file = temporary.file();
        file.write_all(&buffer)?;
        Ok((temporary, buffer))
    })
    .await
}

/// Runs what waits for the disk on another thread.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Refused::Panicked))
}

/// Names looked at for what a crash left of uploads.
const REAPED_ENTRIES_MAX: usize = 1_000_000;

/// Removes what a crash left of uploads beneath a root, beside everything else.
pub fn reap(root: Root) {
    let work = move || match reap::reap(&root, REAPED_ENTRIES_MAX) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed what was left of uploads"),
        Err(error) => tracing::warn!(%error, "cannot look for what was left of uploads"),
    };
    if let Err(error) = std::thread::Builder::new().name("reaper".into()).spawn(work) {
        tracing::warn!(%error, "cannot look for what was left of uploads");
    }
}

/// A stored upload.
struct Stored {
    created: bool,
    meta: Meta,
}

impl Stored {
    /// 9110-9.3.4-01, 9110-9.3.4-02; the content was stored as it came, so its validators may be told
    /// (9110-9.3.4-06).
    fn response(&self) -> Response {
        let mut response = Response::new(if self.created { Status::CREATED } else { Status::NO_CONTENT });
        response.add(Known::ETag, reply::entity_tag(&self.meta));
        response.add(Known::LastModified, HttpDate(self.meta.modified_seconds).imf());
        response
    }
}

/// Checks what was written, checks the conditions once more against what is there by now, and gives the file
/// its name. Waits for the disk.
fn commit(
    files: &Files,
    head: &RequestHead,
    temporary: Temporary,
    name: &[u8],
    upload: &Upload,
) -> Result<Stored, Refused> {
    if !keeps_promises(temporary.file(), &upload.promised)? {
        return Err(Refused::because(Status::BAD_REQUEST, "the content does not match its digest"));
    }
    let current = current_state(files, &upload.path)?;
    // Another upload may have been faster: then its content is not lost unseen.
    if let Some(condition) = failed_condition(head, current.as_ref(), upload.now) {
        return Err(Refused::Condition(condition));
    }
    // With If-None-Match, and nothing there, the kernel sees to it that it stays so until the rename.
    let creates_only = head.fields.contains(Known::IfNoneMatch) && current.is_none();
    let existing = if creates_only { Existing::Keep } else { Existing::Replace };
    let file = match temporary.commit(name, existing, Durability::Synced) {
        Ok(file) => file,
        Err(error) if creates_only && error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Refused::Condition(Condition::IfNoneMatch));
        }
        Err(error) => return Err(error.into()),
    };
    files.changed();
    // Taken after the rename, which changes the file's state.
    let meta = Meta::of(&file)?;
    Ok(Stored { created: current.is_none(), meta })
}

fn keeps_promises(file: &File, promised: &[Digest]) -> io::Result<bool> {
    if promised.is_empty() {
        return Ok(true);
    }
    let mut hashers: Vec<Hasher> = promised.iter().map(|digest| Hasher::new(digest.algorithm)).collect();
    let (mut buffer, mut offset) = (vec![0u8; 64 << 10], 0u64);
    loop {
        let read = match file.read_at(&mut buffer, offset) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hashers.iter_mut().for_each(|hasher| hasher.update(&buffer[..read]));
        offset += read as u64;
    }
    Ok(hashers.into_iter().map(Hasher::finish).zip(promised).all(|(actual, promised)| actual == *promised))
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
