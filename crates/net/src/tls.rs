//! TLS (RFC 8446, and RFC 5246 for TLS 1.2) over any [`Stream`], by rustls with aws-lc-rs, with the same
//! non-blocking primitives. Knows no HTTP beyond the name `http/1.1` in ALPN (RFC 7301).
//!
//! An end the peer has not announced by close_notify is an error, never an end: otherwise anyone on the way
//! could cut a message short (fault R19). Bytes counted as written have left our hands: a record that the
//! transport did not take is owed, and the caller asked to come back with the same bytes.

use crate::stream::Stream;
pub use crate::tls_config::CertificateProblem;
use rustls::server::{Acceptor, ClientHello};
use rustls::{Connection, ServerConfig};
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// About what one session holds in rustls (measured: keys, transcript, empty buffers), for accounting.
pub const SESSION_BYTES: usize = 12_288;

/// Content encrypted at a time: two full records. More would only wait in memory for a slow peer.
const PLAINTEXT_BYTES_MAX: usize = 32_768;

/// A stream under TLS.
pub struct TlsStream {
    transport: Stream,
    connection: Connection,
    /// Decrypted bytes that wait in rustls.
    plaintext_bytes: usize,
    /// Bytes of content that are encrypted but not yet counted as written.
    owed_bytes: usize,
    transport_ended: bool,
    close_announced: bool,
    /// The connection ends by a reset: nothing may look like an end before it.
    resets: bool,
}

/// Bytes read at first, to see whether this is TLS at all.
const FIRST_READ_BYTES: usize = 512;
/// Type of a TLS record that carries the handshake; every connection begins with one.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Why a client was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It does not speak TLS. The stream and what was read of it are handed back, so that whoever speaks the
    /// protocol can say so in its own words (fault A19).
    #[error("the client does not speak TLS")]
    NotTls(Box<(Stream, Vec<u8>)>),
    /// No settings for the name it asks for.
    #[error("no certificate for the name the client asks for")]
    NoSettings,
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The transport failed, or the client went away.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The transport as rustls wants it: never waiting.
struct Transport<'a>(&'a mut Stream);

impl Read for Transport<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Transport<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl TlsStream {
    /// Shakes hands over `transport`. The caller sets the deadline, by dropping the future.
    ///
    /// # Errors
    /// `InvalidData` with rustls' error inside if the peer's TLS or certificate is refused,
    /// `UnexpectedEof` if it went away, and any error of the transport.
    pub async fn handshake(transport: Stream, connection: impl Into<Connection>) -> io::Result<TlsStream> {
        let mut tls = TlsStream {
            transport,
            connection: connection.into(),
            plaintext_bytes: 0,
            owed_bytes: 0,
            transport_ended: false,
            close_announced: false,
            resets: false,
        };
        tls.connection.set_buffer_limit(Some(PLAINTEXT_BYTES_MAX));
        poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(tls)
    }

    /// Accepts a client: reads its first message, asks `choose` for the settings that fit the name in it, and
    /// shakes hands. The caller sets the deadline, by dropping the future.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub async fn accept(
        mut transport: Stream,
        choose: impl FnOnce(&ClientHello<'_>) -> Option<Arc<ServerConfig>>,
    ) -> Result<TlsStream, AcceptError> {
        let mut acceptor = Acceptor::default();
        let mut first = [0; FIRST_READ_BYTES];
        let mut count = transport.read(&mut first).await?;
        if count > 0 && first[0] != HANDSHAKE_RECORD {
            return Err(AcceptError::NotTls(Box::new((transport, first[..count].to_vec()))));
        }
        let accepted = loop {
            if count == 0 {
                return Err(AcceptError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut unread = &first[..count];
            while !unread.is_empty() {
                acceptor.read_tls(&mut unread)?;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => count = transport.read(&mut first).await?,
                Err((error, mut alert)) => {
                    let _ = alert.write_all(&mut Transport(&mut transport));
                    return Err(AcceptError::Tls(error));
                }
            }
        };
        let config = choose(&accepted.client_hello()).ok_or(AcceptError::NoSettings)?;
        match accepted.into_connection(config) {
            Ok(connection) => {
                Ok(TlsStream::handshake(transport, connection).await.map_err(|error| match error
                    .downcast::<rustls::Error>()
                {
                    Ok(error) => AcceptError::Tls(error),
                    Err(error) => AcceptError::Io(error),
                })?)
            }
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut Transport(&mut transport));
                Err(AcceptError::Tls(error))
            }
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match self.receive() {
                Ok(()) if self.transport_ended && self.connection.is_handshaking() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                result if is_would_block(&result) => ready!(self.transport.poll_read_ready(cx))?,
                result => result?,
            }
        }
    }

    /// Reads records from the transport and decrypts them.
    fn receive(&mut self) -> io::Result<()> {
        if self.connection.read_tls(&mut Transport(&mut self.transport))? == 0 {
            self.transport_ended = true;
        }
        match self.connection.process_new_packets() {
            Ok(state) => self.plaintext_bytes = state.plaintext_bytes_to_read(),
            Err(error) => {
                // The alert that says why; the peer may or may not get it.
                let _ = self.try_flush();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(())
    }

    /// Hands encrypted bytes to the transport until none is left or it takes no more.
    fn try_flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Transport(&mut self.transport))?;
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.try_flush();
            if !is_would_block(&flushed) {
                return Poll::Ready(flushed);
            }
            ready!(self.transport.poll_write_ready(cx))?;
        }
    }

    /// As [`Stream::poll_read_ready`].
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plaintext_bytes > 0 || self.transport_ended {
            return Poll::Ready(Ok(()));
        }
        self.transport.poll_read_ready(cx)
    }

    /// As [`Stream::poll_write_ready`].
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_write_ready(cx)
    }

    /// As [`Stream::try_read`].
    pub(crate) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            // `Ok(0)` is close_notify; an end without it is `UnexpectedEof`; `WouldBlock` wants records.
            let result = self.connection.reader().read(into);
            if let Ok(count) = &result {
                self.plaintext_bytes = self.plaintext_bytes.saturating_sub(*count);
            }
            if !is_would_block(&result) || self.transport_ended {
                return result;
            }
            self.receive()?;
            // Answers of the protocol itself (key updates); content that is owed is flushed by its writer.
            if self.owed_bytes == 0 && self.connection.wants_write() {
                let flushed = self.try_flush();
                if !is_would_block(&flushed) {
                    flushed?;
                }
            }
        }
    }

    /// As [`Stream::try_write_vectored`].
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.owes() {
            return self.try_pay(offered);
        }
        self.try_flush()?;
        let mut writer = self.connection.writer();
        let mut taken = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let room = PLAINTEXT_BYTES_MAX - taken;
            let part = &slice[..slice.len().min(room)];
            if part.is_empty() {
                break;
            }
            taken += writer.write(part)?;
        }
        self.owed_bytes = taken;
        self.try_pay(offered)
    }

    /// Whether content was encrypted that is not yet counted as written.
    pub(crate) fn owes(&self) -> bool {
        self.owed_bytes > 0
    }

    /// Sends what was encrypted, and counts up to `offered` octets of it as written. On `WouldBlock` the debt stays, and
    /// the next call pays it.
    pub(crate) fn try_pay(&mut self, offered: usize) -> io::Result<usize> {
        self.try_flush()?;
        let paid = self.owed_bytes.min(offered);
        self.owed_bytes -= paid;
        Ok(paid)
    }

    /// As [`Stream::poll_shutdown_write`].
    pub(crate) fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_announced {
            self.connection.send_close_notify();
            self.close_announced = true;
        }
        ready!(self.poll_flush(cx))?;
        self.transport.poll_shutdown_write(cx)
    }

    /// Says close_notify if the transport takes it at once: for a connection that is about to be dropped, where nobody
    /// waits any more. Not before a reset.
    pub(crate) fn announce_close(&mut self) {
        if self.close_announced || self.resets || self.connection.is_handshaking() {
            return;
        }
        self.close_announced = true;
        self.connection.send_close_notify();
        // Whoever is gone already needs no word.
        let _ = self.try_flush();
    }

    /// As [`Stream::set_linger_reset`].
    pub(crate) fn set_linger_reset(&mut self) -> io::Result<()> {
        self.resets = true;
        self.transport.set_linger_reset()
    }

    /// The stream underneath.
    pub fn transport(&self) -> &Stream {
        &self.transport
    }

    /// The stream underneath, for tests of what a peer may do to it.
    #[cfg(test)]
    pub(crate) fn transport_mut(&mut self) -> &mut Stream {
        &mut self.transport
    }

    /// What rustls knows of the connection: version, suite, ALPN, the peer's certificates.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The name the client asked for (SNI), on the server side.
    pub fn server_name(&self) -> Option<&str> {
        match &self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }
}

/// A client announces its close however it ends (9112-9.8-03): requests say themselves how long they are, so that no
/// request that was cut looks whole by it. A server has to know that its last response was whole, and says so itself.
impl Drop for TlsStream {
    fn drop(&mut self) {
        if let Connection::Client(_) = self.connection {
            self.announce_close();
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsStream(over {:?})", self.transport)
    }
}
