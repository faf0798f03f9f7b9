//! Content on its way into the store: one task that reads what comes from inbound, hands it to all readers,
//! and stores it if it ends whole. Decides where it is gathered (memory, disk, nowhere) as it grows.
//!
//! Nothing that broke off is stored (C29), nothing that does not match its digest (C30), and nothing that was
//! made invalid while it arrived. A store that fails costs the copy, never the response.

use crate::collapse::{Landing, Ticket};
use crate::content::{Content, Fill, Keeping, Parts};
use crate::disk::Unfinished;
use crate::engine::Cache;
use crate::reply::Source;
use crate::stored::Stored;
use bytes::{Bytes, BytesMut};
use eleven_net::clock;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::caching::NotStored;
use eleven_semantics::caching::partial::{self, Held};
use eleven_semantics::date::HttpDate;
use eleven_semantics::digest_fields::{Digest, Hasher};
use eleven_semantics::range::Span;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the content is.
pub(crate) enum Gathering {
    /// All of a representation, to match this digest.
    Whole {
        /// The digest that came with it.
        digest: Option<Digest>,
    },
    /// A part of one.
    Part {
        /// Which.
        span: Span,
        /// The complete length, if known.
        complete: Option<u64>,
    },
}

/// One fill.
pub(crate) struct Filling {
    pub(crate) cache: Arc<Cache>,
    /// The response as it will be stored, its content still this fill.
    pub(crate) stored: Arc<Stored>,
    pub(crate) fill: Arc<Fill>,
    /// Blocks that were full before the task began.
    pub(crate) full: Vec<Bytes>,
    pub(crate) body: Box<dyn Source>,
    pub(crate) gathering: Gathering,
    /// A stored partial response of the same key, to be combined with.
    pub(crate) combine: Option<Arc<Stored>>,
}

/// Where the octets go, as far as the task knows.
enum Place {
    Memory,
    Disk { file: Arc<Unfinished>, blocks: u64 },
    Nowhere,
}

impl Filling {
    /// Runs to the end of the content. The ticket keeps later requests waiting for this fill until it is
    /// stored.
    pub(crate) async fn run(mut self, ticket: Option<Ticket>) {
        let mut charged = 0;
        let stored = self.flow(&mut charged, ticket).await;
        self.cache.filling_bytes.fetch_sub(charged, Ordering::Relaxed);
        if let Err(why) = stored {
            tracing::debug!(reason = why.token(), "a response was not stored");
        }
    }

    async fn flow(&mut self, charged: &mut u64, mut ticket: Option<Ticket>) -> Result<(), NotStored> {
        let mut place = Place::Memory;
        let mut hasher = match &self.gathering {
            Gathering::Whole { digest: Some(digest) } => Some(Hasher::new(digest.algorithm)),
            _ => None,
        };
        let mut full = std::mem::take(&mut self.full);
        loop {
            self.grow(&mut place, &mut full, charged, &mut ticket).await;
            poll_fn(|cx| self.fill.poll_room(cx)).await;
            if matches!(place, Place::Nowhere) && self.fill.readers() == 0 {
                self.fill.abort(Reason::Cancelled);
                return Err(NotStored::TooLarge);
            }
            match poll_fn(|cx| self.body.poll_next(cx)).await {
                Next::Data(data) => {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&data);
                    }
                    full = self.fill.push(&data);
                    if self.fill.expected().is_some_and(|expected| self.fill.length() > expected) {
                        self.fill.abort(Reason::Malformed);
                        return Err(NotStored::Incomplete);
                    }
                }
                Next::Complete(()) => break,
                Next::Aborted(reason) => {
                    self.fill.abort(reason);
                    return Err(NotStored::Incomplete);
                }
            }
        }
        if !self.fill.complete() {
            return Err(NotStored::Incomplete);
        }
        if let (Some(hasher), Gathering::Whole { digest: Some(digest) }) = (hasher, &self.gathering)
            && hasher.finish() != *digest
        {
            return Err(NotStored::Digest);
        }
        if self.cache.was_invalidated(&self.stored) {
            return Err(NotStored::Rule);
        }
        self.commit(place).await
    }

    /// Sees to it that what has arrived is where it belongs.
    async fn grow(
        &self,
        place: &mut Place,
        full: &mut Vec<Bytes>,
        charged: &mut u64,
        ticket: &mut Option<Ticket>,
    ) {
        let length = self.fill.length();
        if matches!(place, Place::Memory) {
            let total = &self.cache.filling_bytes;
            total.fetch_add(length - *charged, Ordering::Relaxed);
            *charged = length;
            let expected = self.fill.expected().unwrap_or(length).max(length);
            let too_large = expected > self.cache.store.memory().object_bytes_max();
            if too_large || total.load(Ordering::Relaxed) > self.cache.config.filling_bytes_max {
                *full = self.leave_memory(place, length).await;
                total.fetch_sub(*charged, Ordering::Relaxed);
                *charged = 0;
            }
        }
        if let Place::Disk { file, blocks } = place {
            let limit = self.cache.store.disk().map_or(0, |disk| disk.limits().object_bytes_max);
            let written = length <= limit && self.write_blocks(file, blocks, std::mem::take(full)).await;
            if !written {
                self.fill.change_keeping(Keeping::Pass, None);
                *place = Place::Nowhere;
            }
        }
        full.clear();
        if matches!(place, Place::Nowhere)
            && let Some(mut ticket) = ticket.take()
        {
            ticket.land(Landing::Refused(NotStored::TooLarge), clock::now());
        }
    }

    /// From memory to disk if there is one, else to nowhere. Gives back the blocks to be written.
    async fn leave_memory(&self, place: &mut Place, length: u64) -> Vec<Bytes> {
        let whole = matches!(self.gathering, Gathering::Whole { .. });
        if let Some(disk) =
            self.cache.store.disk().filter(|disk| whole && length <= disk.limits().object_bytes_max)
        {
            let (disk, id) = (disk.clone(), self.stored.id);
            if let Ok(Ok(file)) = tokio::task::spawn_blocking(move || disk.begin(id)).await {
                *place = Place::Disk { file: file.clone(), blocks: 0 };
                return self.fill.change_keeping(Keeping::Disk, Some(file));
            }
        }
        *place = Place::Nowhere;
        self.fill.change_keeping(Keeping::Pass, None)
    }

    /// Writes full blocks. `false` if the disk failed.
    async fn write_blocks(&self, file: &Arc<Unfinished>, written: &mut u64, full: Vec<Bytes>) -> bool {
        if full.is_empty() {
            return true;
        }
        let (file, first, count) = (file.clone(), *written, full.len() as u64);
        let work = move || {
            full.iter().enumerate().try_for_each(|(i, block)| file.write_block(first + i as u64, block))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => {
                *written += count;
                self.fill.written(*written);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the response goes on without being stored on disk");
                false
            }
            Err(_) => false,
        }
    }

    async fn commit(&self, place: Place) -> Result<(), NotStored> {
        let kept = match place {
            Place::Nowhere => return Err(NotStored::TooLarge),
            Place::Disk { file, blocks } => {
                let last = self.fill.open_block();
                let length = self.fill.length();
                if !last.is_empty() {
                    let file = file.clone();
                    let written = tokio::task::spawn_blocking(move || file.write_block(blocks, &last)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        return Err(NotStored::Store);
                    }
                }
                let mut stored = self.stored.copy();
                // Its content is the file; until that is known, nothing.
                stored.content = Content::empty();
                self.cache.store.insert(stored, Some((file, length))).await
            }
            Place::Memory => {
                let content = self.fill.gathered().ok_or(NotStored::Store)?;
                let stored = match self.gathering {
                    Gathering::Whole { .. } => {
                        let mut stored = self.stored.copy();
                        stored.content = content;
                        stored
                    }
                    Gathering::Part { span, complete } => self.with_part(&content, span, complete)?,
                };
                self.cache.store.insert(stored, None).await
            }
        };
        kept.map(drop).ok_or(NotStored::Store)
    }

    /// The stored response with this part, combined with what was held before (RFC 9111 §3.4).
    fn with_part(&self, content: &Content, span: Span, complete: Option<u64>) -> Result<Stored, NotStored> {
        let bytes = whole_bytes(content).ok_or(NotStored::Store)?;
        let mut stored = self.stored.copy();
        let now = HttpDate(clock::unix_seconds());
        let old = self.combine.as_ref().filter(|old| {
            old.variant == stored.variant && partial::may_combine(&old.fields, &stored.fields, now)
        });
        let (mut held, mut parts) = match old.map(|old| (&old.held, &old.content)) {
            Some((Some(held), Content::Parts(parts))) => (held.clone(), parts.0.clone()),
            _ => (Held::default(), Vec::new()),
        };
        if !held.add(span, complete) {
            // The representation changed its length: only the new part counts.
            held = Held::new(span, complete);
            parts.clear();
        }
        parts.push((span, bytes));
        let joined: Vec<(Span, Bytes)> =
            held.spans().iter().filter_map(|span| Some((*span, join(&parts, *span)?))).collect();
        if joined.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
            > self.cache.store.memory().object_bytes_max()
        {
            return Err(NotStored::TooLarge);
        }
        match (held.is_whole(), &joined[..]) {
            (true, [(_, bytes)]) => {
                stored.content = Content::Whole(bytes.clone());
                stored.held = None;
            }
            _ => {
                stored.content = Content::Parts(Arc::new(Parts(joined)));
                stored.held = Some(held);
            }
        }
        Ok(stored)
    }
}

fn whole_bytes(content: &Content) -> Option<Bytes> {
    match content {
        Content::Whole(bytes) => Some(bytes.clone()),
        Content::Blocks(blocks, _) => Some(Bytes::from(blocks.concat())),
        _ => None,
    }
}

/// The octets of `span` from parts that cover it together; later parts count where two overlap.
fn join(parts: &[(Span, Bytes)], span: Span) -> Option<Bytes> {
    if let Some((_, bytes)) = parts.iter().find(|(part, _)| *part == span) {
        return Some(bytes.clone());
    }
    let length = usize::try_from(span.len()).ok()?;
    let mut joined = BytesMut::zeroed(length);
    let mut covered = 0;
    for (part, bytes) in parts.iter().filter(|(part, _)| span.first <= part.first && part.last <= span.last) {
        let at = (part.first - span.first) as usize;
        joined[at..at + bytes.len()].copy_from_slice(bytes);
        covered += bytes.len();
    }
    (covered >= length).then(|| joined.freeze())
}
