//! Buffering of request content: all of it is here, in memory or in a file, before a server is asked, so that a slow
//! client holds none of them. What was chunked has a length then, an expectation has been met, and content that is
//! here can be sent a second time. Says nothing about which attempts are safe.

use super::flow::Upload;
use crate::request::ContentReader;
use crate::spool::{DiskBudget, Spool, Stored};
use bytes::Bytes;
use eleven_net::pipe::{Next, PipeWriter, Reason, pipe};
use eleven_semantics::{Fields, Status};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Content between the file and the connection to a server.
const PIPE_BYTES: usize = 128 * 1024;

/// How requests are buffered.
#[derive(Debug, Clone)]
pub struct BufferPlan {
    /// Octets of one request's content in memory; what is beyond goes to a file.
    pub memory_bytes_max: usize,
    /// Octets of one request's content; 413 beyond.
    pub content_bytes_max: u64,
    /// Octets in all files together; 503 beyond.
    disk: Arc<DiskBudget>,
    /// Where files are made. They have no names.
    pub directory: PathBuf,
}

/// Octets in all files together, where nothing else is said.
pub const DISK_BYTES_MAX: u64 = 8 << 30;

/// Content up to this size is short.
pub const SHORT_BYTES_MAX: u64 = 16 << 10;

impl Default for BufferPlan {
    fn default() -> BufferPlan {
        BufferPlan {
            memory_bytes_max: 64 << 10,
            content_bytes_max: 1 << 30,
            disk: Arc::new(DiskBudget::new(DISK_BYTES_MAX)),
            directory: std::env::temp_dir(),
        }
    }
}

impl BufferPlan {
    /// For short content, which stays in memory.
    pub fn short() -> BufferPlan {
        BufferPlan {
            memory_bytes_max: usize::MAX,
            content_bytes_max: SHORT_BYTES_MAX,
            ..BufferPlan::default().with_disk(0)
        }
    }

    /// The same with so many octets in all files together.
    pub fn with_disk(self, disk_bytes_max: u64) -> BufferPlan {
        BufferPlan { disk: Arc::new(DiskBudget::new(disk_bytes_max)), ..self }
    }

    /// Octets in files now.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.used_bytes()
    }

    /// Takes all of the content. `length` is what the head announced.
    ///
    /// # Errors
    /// Why it is not here, as a status: 413, 503 where the budget is used up, 507 where the disk failed, 408 or 400
    /// where the client did.
    pub async fn take(&self, mut reader: ContentReader, length: Option<u64>) -> Result<Buffered, Status> {
        if length.is_some_and(|length| length > self.content_bytes_max) {
            return Err(Status::CONTENT_TOO_LARGE);
        }
        let mut spool = Spool::within(self.memory_bytes_max, &self.directory, Arc::clone(&self.disk));
        let trailers = loop {
            match reader.next().await {
                Next::Data(octets) => {
                    if spool.len() + octets.len() as u64 > self.content_bytes_max {
                        return Err(Status::CONTENT_TOO_LARGE);
                    }
                    spool.push(octets).map_err(|error| self.cannot_keep(&error))?;
                }
                Next::Complete(trailers) => break trailers,
                Next::Aborted(Reason::TimedOut) => return Err(Status::REQUEST_TIMEOUT),
                Next::Aborted(Reason::TooLarge) => return Err(Status::CONTENT_TOO_LARGE),
                Next::Aborted(_) => return Err(Status::BAD_REQUEST),
            }
        };
        let trailers = trailers.map(|trailers| Rc::new(*trailers));
        Ok(Buffered { stored: Rc::new(spool.store()), trailers })
    }

    fn cannot_keep(&self, error: &io::Error) -> Status {
        let directory = self.directory.display();
        if error.kind() == io::ErrorKind::QuotaExceeded {
            tracing::warn!(%directory, "no room for request content: all that may be on disk is");
            return Status::SERVICE_UNAVAILABLE;
        }
        tracing::error!(%directory, %error, "request content cannot be kept on disk");
        Status::INSUFFICIENT_STORAGE
    }
}

/// Content that is all here.
#[derive(Debug)]
pub struct Buffered {
    stored: Rc<Stored>,
    trailers: Option<Rc<Fields>>,
}

impl Buffered {
    /// Its length, if it can be told: trailers need the chunked coding.
    pub fn length(&self) -> Option<u64> {
        self.trailers.is_none().then(|| self.stored.len())
    }

    /// It, for one attempt.
    pub fn upload(&self) -> Upload {
        if let Some(bytes) = self.stored.in_memory() {
            return Upload::Whole(bytes, self.trailers.clone());
        }
        let (writer, reader) = pipe(PIPE_BYTES);
        tokio::task::spawn_local(read(Rc::clone(&self.stored), self.trailers.clone(), writer));
        Upload::Pipe(reader)
    }
}

/// Moves content from its file into a pipe, as fast as the other end takes it.
async fn read(stored: Rc<Stored>, trailers: Option<Rc<Fields>>, mut writer: PipeWriter<Option<Box<Fields>>>) {
    let mut at = 0;
    loop {
        let piece: Bytes = match stored.piece(at) {
            Ok(piece) => piece,
            Err(error) => {
                tracing::error!(%error, "request content kept on disk cannot be read");
                return writer.abort(Reason::Storage);
            }
        };
        if piece.is_empty() {
            return writer.complete(trailers.map(|trailers| Box::new((*trailers).clone())));
        }
        at += piece.len() as u64;
        if writer.send(piece).await.is_err() {
            return;
        }
    }
}
