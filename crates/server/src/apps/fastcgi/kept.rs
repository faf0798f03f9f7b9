//! Connections to a FastCGI server that lie idle between requests: how many, how long, and which is taken next. They
//! belong to one thread. Whether a request may be sent over one that the server may be closing at this very moment is
//! decided where requests are.
//!
//! A process of PHP-FPM belongs to a connection as long as that is open, so what lies idle here is missing there:
//! nothing is kept unless it was asked for.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to a FastCGI server.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}
pub(super) type Connection = Box<dyn Duplex>;

/// The idle connections of one thread.
#[derive(Default)]
pub(super) struct Kept {
    connections_max: usize,
    timeout_ms: u64,
    /// The one that was used last is at the end.
    idle: RefCell<Vec<(u64, Connection)>>,
    next: Cell<u64>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} of {})", self.len(), self.connections_max)
    }
}

impl Kept {
    /// Keeps so many connections at most, each so long at most.
    pub(super) fn new(connections_max: usize, timeout_ms: u64) -> Kept {
        Kept { connections_max, timeout_ms, ..Kept::default() }
    }

    /// Whether connections are kept at all.
    pub(super) fn is_on(&self) -> bool {
        self.connections_max > 0
    }

    /// How many lie here.
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// The connection that was used last, of those that still seem to be good.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let (_, mut connection) = self.idle.borrow_mut().pop()?;
            if is_silent(&mut connection) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last request is over. The one that lay idle longest goes for it.
    pub(super) fn keep(self: &Rc<Self>, connection: Connection) {
        if !self.is_on() {
            return;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.connections_max {
            idle.remove(0);
        }
        idle.push((number, connection));
        tokio::task::spawn_local(expire(Rc::downgrade(self), number, self.timeout_ms));
    }
}

/// Whether the other side has said nothing. A server that closed, or that says something nobody asked for, is done with
/// the connection.
fn is_silent(connection: &mut Connection) -> bool {
    let mut octet = [0];
    let mut buffer = ReadBuf::new(&mut octet);
    let mut cx = Context::from_waker(Waker::noop());
    matches!(Pin::new(connection).poll_read(&mut cx, &mut buffer), Poll::Pending)
}

async fn expire(kept: Weak<Kept>, number: u64, timeout_ms: u64) {
    tokio::time::sleep(Duration::from_millis(timeout_ms)).await;
    if let Some(kept) = kept.upgrade() {
        kept.idle.borrow_mut().retain(|(other, _)| *other != number);
    }
}
