//! The content connection of one request: pieces from the worker, and request content to it. The kernel's socket
//! buffer is the back-pressure in both directions.

use super::protocol::{self, PIECE_BYTES, PIECE_BYTES_MAX, PieceKind};
use crate::request::ContentReader;
use crate::spool::Spool;
use bytes::{Buf, Bytes, BytesMut};
use eleven_net::packet::receive_with_file;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::Fields;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A piece from the worker.
#[derive(Debug)]
pub(super) struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Its octets.
    pub octets: Bytes,
    /// The open file of a FILE piece.
    pub file: Option<OwnedFd>,
}

impl Piece {
    fn abort() -> Piece {
        Piece { kind: PieceKind::Abort, octets: Bytes::new(), file: None }
    }
}

/// The reading end. It shares the socket with whoever writes.
#[derive(Debug)]
pub(super) struct Pieces {
    stream: Rc<UnixStream>,
    buffer: BytesMut,
    files: VecDeque<OwnedFd>,
    bytes_max: usize,
}

impl Pieces {
    /// Pieces of at most `bytes_max`.
    pub(super) fn new(stream: UnixStream, bytes_max: usize) -> Pieces {
        Pieces { stream: Rc::new(stream), buffer: BytesMut::new(), files: VecDeque::new(), bytes_max }
    }

    /// The socket, for writing.
    pub(super) fn stream(&self) -> Rc<UnixStream> {
        Rc::clone(&self.stream)
    }

    /// The next piece. A connection that breaks or ends is an ABORT.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        loop {
            match protocol::piece_head(&self.buffer, self.bytes_max) {
                Ok(Some((kind, length))) if self.buffer.len() >= PIECE_BYTES + length => {
                    self.buffer.advance(PIECE_BYTES);
                    let octets = self.buffer.split_to(length).freeze();
                    let file = if kind == PieceKind::File { self.files.pop_front() } else { None };
                    return Poll::Ready(Piece { kind, octets, file });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "a content connection of a worker broke");
                    return Poll::Ready(Piece::abort());
                }
            }
            if !matches!(ready!(self.poll_read(cx)), Ok(1..)) {
                return Poll::Ready(Piece::abort());
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let at = self.buffer.len();
            self.buffer.resize(at + PIECE_BYTES_MAX + PIECE_BYTES, 0);
            let mut file = None;
            let read = self.stream.try_io(Interest::READABLE, || {
                receive_with_file(self.stream.as_fd(), &mut self.buffer[at..], &mut file)
            });
            self.buffer.truncate(at + *read.as_ref().unwrap_or(&0));
            self.files.extend(file);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

/// Sends a whole piece.
pub(super) async fn send_piece(stream: &UnixStream, kind: PieceKind, octets: &[u8]) -> io::Result<()> {
    let head = protocol::piece(kind, octets.len());
    let (mut sent, total) = (0, head.len() + octets.len());
    while sent < total {
        stream.writable().await?;
        let slices = if sent < head.len() {
            [IoSlice::new(&head[sent..]), IoSlice::new(octets)]
        } else {
            [IoSlice::new(&octets[sent - head.len()..]), IoSlice::new(&[])]
        };
        match stream.try_write_vectored(&slices) {
            Ok(octets) => sent += octets,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Content of a request that does not go inline.
#[derive(Debug)]
pub(super) struct Source {
    /// What was collected.
    pub collected: Spool,
    /// What comes after it.
    pub rest: Rest,
}

/// How request content goes on after what was collected.
#[derive(Debug)]
pub(super) enum Rest {
    /// It ends.
    End(Option<Box<Fields>>),
    /// It is on its way.
    Pipe(ContentReader),
}

/// Sends request content to the worker that asked for it.
pub(super) async fn feed(stream: Rc<UnixStream>, source: Source) {
    if let Err(error) = feed_all(&stream, source).await {
        // The worker does not want it any more, or is gone, which others find out.
        tracing::debug!(%error, "request content was not wanted to its end");
    }
}

async fn feed_all(stream: &UnixStream, mut source: Source) -> io::Result<()> {
    while !source.collected.is_empty() {
        let octets = source.collected.pop()?;
        for part in octets.chunks(PIECE_BYTES_MAX) {
            send_piece(stream, PieceKind::Data, part).await?;
        }
    }
    let trailers = match source.rest {
        Rest::End(trailers) => trailers,
        Rest::Pipe(mut reader) => loop {
            match reader.next().await {
                Next::Data(octets) => {
                    for part in octets.chunks(PIECE_BYTES_MAX) {
                        send_piece(stream, PieceKind::Data, part).await?;
                    }
                }
                Next::Complete(trailers) => break trailers,
                Next::Aborted(_) => return send_piece(stream, PieceKind::Abort, &[]).await,
            }
        },
    };
    if let Some(trailers) = trailers {
        let mut octets = Vec::new();
        for field in trailers.iter() {
            if !octets.is_empty() {
                octets.push(0);
            }
            octets.extend_from_slice(field.name);
            octets.push(0);
            octets.extend_from_slice(field.value);
        }
        send_piece(stream, PieceKind::Trailers, &octets).await?;
    }
    send_piece(stream, PieceKind::End, &[]).await
}

/// Request content as far as it was collected.
pub(super) enum Gathered {
    /// All of it, short.
    Inline(Bytes),
    /// The rest is passed on when asked for; the length if it is known.
    Stream(Source, Option<u64>),
    /// It broke off.
    Aborted(Reason),
}

/// Collects request content up to `collect_bytes_max`.
pub(super) async fn gather(
    mut reader: ContentReader,
    length: Option<u64>,
    collect_bytes_max: u64,
    mut spool: Spool,
) -> Gathered {
    if reader.complete_bytes().is_none_or(|octets| octets > protocol::INLINE_BYTES_MAX)
        && collect_bytes_max == 0
    {
        return Gathered::Stream(Source { collected: spool, rest: Rest::Pipe(reader) }, length);
    }
    loop {
        match reader.next().await {
            Next::Data(octets) => {
                if let Err(error) = spool.push(octets) {
                    tracing::error!(%error, "request content cannot be kept on disk");
                    return Gathered::Aborted(Reason::Storage);
                }
                if spool.len() > collect_bytes_max.max(protocol::INLINE_BYTES_MAX as u64) {
                    return Gathered::Stream(Source { collected: spool, rest: Rest::Pipe(reader) }, length);
                }
            }
            Next::Complete(trailers) => return whole(spool, trailers),
            Next::Aborted(reason) => return Gathered::Aborted(reason),
        }
    }
}

/// Content that is all here.
pub(super) fn whole(mut spool: Spool, trailers: Option<Box<Fields>>) -> Gathered {
    let length = spool.len();
    if length > protocol::INLINE_BYTES_MAX as u64 || trailers.is_some() {
        return Gathered::Stream(Source { collected: spool, rest: Rest::End(trailers) }, Some(length));
    }
    let mut all = BytesMut::with_capacity(length as usize);
    while !spool.is_empty() {
        match spool.pop() {
            Ok(octets) => all.extend_from_slice(&octets),
            Err(error) => {
                tracing::error!(%error, "request content kept on disk cannot be read");
                return Gathered::Aborted(Reason::Storage);
            }
        }
    }
    Gathered::Inline(all.freeze())
}
