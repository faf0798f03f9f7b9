//! Listening sockets: addresses as users write them, sockets bound with clear errors, and an accept loop that
//! survives running out of descriptors (fault D41).

use crate::clock;
use crate::descriptors::is_exhausted;
use crate::handover::Inherited;
use crate::ledger::{Ledger, Refused, Slot};
use crate::stream::{PeerAddr, Stream};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections the kernel holds for us (fault D09).
const BACKLOG: i32 = 4096;
/// How often a lack of descriptors is said.
const SAID_EVERY: Duration = Duration::from_secs(10);
/// How long accepting pauses when descriptors ran out and no connection leaves.
const PAUSE: Duration = Duration::from_millis(100);

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `host:port`, or `:port` for every address of the machine.
    Tcp {
        /// A name or address; `None` for every address.
        host: Option<String>,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `fd:NAME`: the socket that the service manager calls so (`FileDescriptorName=`).
    Inherited(String),
}

impl std::str::FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddr, String> {
        const FORMS: &str = "expected HOST:PORT, :PORT, unix:PATH or fd:NAME";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(format!("no path after \"unix:\"; {FORMS}"))
            } else {
                Ok(ListenAddr::Unix(path.into()))
            };
        }
        if let Some(name) = text.strip_prefix("fd:") {
            return if name.is_empty() {
                Err(format!("no name after \"fd:\"; {FORMS}"))
            } else {
                Ok(ListenAddr::Inherited(name.into()))
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("no port in {text:?}; {FORMS}"));
        };
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{port:?} is not a port; {FORMS}"));
        }
        let port: u16 = port.parse().map_err(|_| format!("port {port} is above 65535"))?;
        let host = match host {
            "" | "*" => None,
            h if h.starts_with('[') && h.ends_with(']') => Some(h[1..h.len() - 1].to_owned()),
            h if h.contains(':') => return Err(format!("write an IPv6 address in brackets: [{h}]:{port}")),
            h => Some(h.to_owned()),
        };
        Ok(ListenAddr::Tcp { host, port })
    }
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddr::Tcp { host: None, port } => write!(f, ":{port}"),
            ListenAddr::Tcp { host: Some(host), port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ListenAddr::Tcp { host: Some(host), port } => write!(f, "{host}:{port}"),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddr::Inherited(name) => write!(f, "fd:{name}"),
        }
    }
}

/// A bound socket, not yet tied to a runtime.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file is removed when the last handle goes.
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
}

/// The file of a Unix socket, removed on drop if it is this process's own.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    owned: AtomicBool,
}

impl SocketFile {
    fn new(path: PathBuf, owned: bool) -> Arc<SocketFile> {
        Arc::new(SocketFile { path, owned: AtomicBool::new(owned) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if *self.owned.get_mut() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    /// The address asked for.
    pub address: String,
    /// What was wrong, and what to do.
    pub why: String,
}

/// The sockets of one address: a name may have several. With `workers > 1`, each worker gets a TCP socket of its
/// own on the same port (SO_REUSEPORT), and the kernel spreads connections over them.
///
/// # Errors
/// One that names the address and the remedy.
pub fn bind(address: &ListenAddr, workers: usize) -> Result<Vec<Vec<Bound>>, BindError> {
    let fail = |why: String| BindError { address: address.to_string(), why };
    match address {
        ListenAddr::Unix(path) => {
            let listener = bind_unix(path).map_err(fail)?;
            let file = SocketFile::new(path.clone(), true);
            let mut all = Vec::new();
            for _ in 1..workers {
                let clone = listener.try_clone().map_err(|e| fail(e.to_string()))?;
                all.push(vec![Bound::Unix(clone, file.clone())]);
            }
            all.push(vec![Bound::Unix(listener, file)]);
            Ok(all)
        }
        ListenAddr::Tcp { host, port } => {
            let mut addresses = resolve(host.as_deref(), *port).map_err(fail)?;
            let mut all: Vec<Vec<Bound>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
            for at in 0..addresses.len() {
                // A port that the system chose for the first address serves the others too.
                let address = addresses[at];
                let bound = bind_tcp(address, all.len()).map_err(|e| fail(explain(&e, address)))?;
                if let Some(port) = bound.first().and_then(|b| b.local_addr().ok()).map(|a| a.port()) {
                    addresses.iter_mut().filter(|a| a.port() == 0).for_each(|a| a.set_port(port));
                }
                for (of_worker, listener) in all.iter_mut().zip(bound) {
                    of_worker.push(Bound::Tcp(listener));
                }
            }
            Ok(all)
        }
        ListenAddr::Inherited(_) => {
            Err(fail("the service manager passed no socket of this name (FileDescriptorName=)".into()))
        }
    }
}

/// The sockets of one address: those that somebody else opened for it if there are any, else new ones.
///
/// # Errors
/// One that names the address and the remedy.
pub fn claim(
    address: &ListenAddr,
    workers: usize,
    inherited: &Inherited,
) -> Result<Vec<Vec<Bound>>, BindError> {
    let (sockets, ours) = inherited.take(address);
    if sockets.is_empty() { bind(address, workers) } else { adopt(address, sockets, ours, workers) }
}

/// Listening sockets that were opened by somebody else. Each goes to at least one worker, and each worker gets at
/// least one of each local address. `ours`: they were this program's before, and so is the file of a Unix socket.
///
/// # Errors
/// If there is none, or one is no listening stream socket.
pub fn adopt(
    address: &ListenAddr,
    sockets: Vec<OwnedFd>,
    ours: bool,
    workers: usize,
) -> Result<Vec<Vec<Bound>>, BindError> {
    let fail = |why: String| BindError { address: address.to_string(), why };
    if sockets.is_empty() {
        return bind(address, workers);
    }
    // By local address: a name may have several, and each worker wants them all.
    let mut groups: Vec<(Option<SocketAddr>, Vec<Bound>)> = Vec::new();
    for socket in sockets {
        let bound =
            Bound::adopt(socket, ours).map_err(|why| fail(format!("the socket passed for it: {why}")))?;
        let local = bound.local_addr();
        match groups.iter_mut().find(|(of, _)| *of == local) {
            Some((_, group)) => group.push(bound),
            None => groups.push((local, vec![bound])),
        }
    }
    let workers = workers.max(1);
    let mut all: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for (_, group) in &groups {
        for at in 0..group.len().max(workers) {
            let bound = group[at % group.len()].try_clone().map_err(|error| fail(error.to_string()))?;
            all[at % workers].push(bound);
        }
    }
    Ok(all)
}

fn resolve(host: Option<&str>, port: u16) -> Result<Vec<SocketAddr>, String> {
    match host {
        None => {
            // One socket for both families where the machine has IPv6.
            let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let has_ipv6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok()
                && std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
            Ok(vec![if has_ipv6 { any6 } else { any4 }])
        }
        Some(host) => {
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(ip, port)]);
            }
            let mut found: Vec<SocketAddr> = (host, port)
                .to_socket_addrs()
                .map_err(|e| format!("the name {host:?} does not resolve: {e}"))?
                .collect();
            found.sort();
            found.dedup();
            if found.is_empty() { Err(format!("the name {host:?} has no address")) } else { Ok(found) }
        }
    }
}

fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {} is in use by another program; choose another with --listen", address.port())
        }
        io::ErrorKind::PermissionDenied if address.port() < 1024 => format!(
            "port {} needs the privilege to bind low ports (CAP_NET_BIND_SERVICE); choose one above 1023, or grant it",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
        _ => error.to_string(),
    }
}

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit this, which saves a system call a connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT first: with it, a port that another program of this user holds the same way would
    // be shared silently.
    let first = tcp_socket(address, false)?;
    let listen = |socket: Socket| socket.listen(BACKLOG).map(|()| socket.into());
    if count == 1 {
        return Ok(vec![listen(first)?]);
    }
    // It never listened: whoever connected to it meanwhile would be reset now.
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    drop(first);
    (0..count).map(|_| tcp_socket(address, true).and_then(listen)).collect()
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, String> {
    use std::os::unix::fs::FileTypeExt;
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err("the path exists and is not a socket".into());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err("another program listens on this socket".into());
        }
        // Left behind by a program that is gone.
        std::fs::remove_file(path).map_err(|e| format!("cannot remove the stale socket: {e}"))?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(|e| e.to_string())?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(listener)
}

impl Bound {
    fn adopt(socket: OwnedFd, ours: bool) -> Result<Bound, String> {
        use rustix::net::sockopt;
        let listens = sockopt::socket_type(&socket).is_ok_and(|kind| kind == rustix::net::SocketType::STREAM)
            && sockopt::socket_acceptconn(&socket).unwrap_or(false);
        if !listens {
            return Err("it is no listening stream socket".into());
        }
        let socket = Socket::from(socket);
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        let local = socket.local_addr().map_err(|error| error.to_string())?;
        if local.is_unix() {
            let path = local.as_pathname().map(Path::to_owned);
            let file = SocketFile::new(path.clone().unwrap_or_default(), ours && path.is_some());
            return Ok(Bound::Unix(OwnedFd::from(socket).into(), file));
        }
        let _ = socket.set_tcp_nodelay(true);
        Ok(Bound::Tcp(socket.into()))
    }

    /// Another handle of the same socket, with the same queue.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Bound> {
        Ok(match self {
            Bound::Tcp(listener) => Bound::Tcp(listener.try_clone()?),
            Bound::Unix(listener, file) => Bound::Unix(listener.try_clone()?, file.clone()),
        })
    }

    /// Whether both are handles of one socket.
    pub fn is_same(&self, other: &Bound) -> bool {
        let inode =
            |bound: &Bound| bound.to_owned_fd().and_then(|fd| Ok(rustix::fs::fstat(&fd)?.st_ino)).ok();
        inode(self).is_some() && inode(self) == inode(other)
    }

    /// Its descriptor, to be handed to another process.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn to_owned_fd(&self) -> io::Result<OwnedFd> {
        match self {
            Bound::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Bound::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Removes the file of a Unix socket if it is this process's own: nobody shall connect any more.
    pub fn unlink(&self) {
        if let Bound::Unix(_, file) = self
            && file.owned.swap(false, Ordering::Relaxed)
        {
            let _ = std::fs::remove_file(&file.path);
        }
    }

    /// The file of a Unix socket stays when this process ends: it is another's now.
    pub fn disown(&self) {
        if let Bound::Unix(_, file) = self {
            file.owned.store(false, Ordering::Relaxed);
        }
    }

    /// The address bound to, with the port that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Ties the socket to the current runtime. The file of a Unix socket belongs to the handles that are kept of it:
    /// threads that serve may not be allowed to remove it.
    ///
    /// # Errors
    /// If it cannot be registered with the system's poller.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener, _) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// A listening socket of a worker.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), PeerAddr::Ip(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }

    /// Accepts until told to cease. `serve` gets each connection with its place in the ledger; `refuse` gets those
    /// for which there is none, to say so and close.
    ///
    /// A socket that nobody else has is given up with [`Cease::Close`]: whoever waits in its queue is served first,
    /// for closing it resets them. One that another process listens on is left to it.
    pub async fn accept_all(
        self,
        ledger: &Rc<Ledger>,
        serve: impl Fn(Stream, PeerAddr, Slot),
        refuse: impl Fn(Stream, Refused),
        cease: impl Future<Output = Cease>,
        is_counted: impl Fn() -> bool,
    ) {
        let enter = |stream: Stream, peer: PeerAddr| {
            let address = match peer {
                PeerAddr::Ip(address) if is_counted() => Some(address.ip()),
                _ => None,
            };
            match ledger.enter(address) {
                Ok(slot) => serve(stream, peer, slot),
                Err(why) => refuse(stream, why),
            }
        };
        let mut cease = std::pin::pin!(cease);
        let mut said = None;
        loop {
            let accepted = tokio::select! {
                biased;
                how = &mut cease => {
                    if how == Cease::Close {
                        self.accept_queue(enter);
                    }
                    return;
                }
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => enter(stream, peer),
                Err(error) if is_exhausted(&error) => {
                    // Said once in a while: this is when there is no time for writing logs (fault D38).
                    let now = clock::now();
                    if said.is_none_or(|at| now.duration_since(at) >= SAID_EVERY) {
                        said = Some(now);
                        tracing::warn!(%error, "cannot accept connections for now");
                    }
                    // Whoever is idle makes room; as soon as one has left, go on.
                    ledger.evict();
                    tokio::select! {
                        () = ledger.released() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                // The newcomer is gone already; nothing is wrong with the listener.
                Err(error) => tracing::debug!(%error, "a connection failed before it was accepted"),
            }
        }
    }

    /// Accepts those that wait in the queue, and closes the socket.
    fn accept_queue(self, enter: impl Fn(Stream, PeerAddr)) {
        // Asked of the system directly: the runtime may not know yet that somebody waits.
        match self {
            Listener::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                while let Ok((stream, address)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    if let Ok(stream) = stream {
                        enter(Stream::Tcp(stream), PeerAddr::Ip(address));
                    }
                }
            }
            Listener::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                while let Ok((stream, _)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                    if let Ok(stream) = stream {
                        enter(Stream::Unix(stream), PeerAddr::Unix);
                    }
                }
            }
        }
    }
}

/// What becomes of a listening socket that this worker gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cease {
    /// Nobody else has it: its queue is served, then it is closed.
    Close,
    /// Another process accepts from it.
    Leave,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_users_write_them() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:0", "localhost:0"),
            (":80", ":80"),
            ("*:80", ":80"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("fd:web", "fd:web"),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), expected);
        }
        for text in [
            "",
            "8080",
            "host",
            "host:",
            "host:http",
            "host:-1",
            "host:+1",
            "host:65536",
            "::1:80",
            "unix:",
            "fd:",
        ] {
            let error = text.parse::<ListenAddr>().unwrap_err();
            assert!(!error.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_used_port_says_so_whatever_the_number_of_workers() {
        let first = bind(&"127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let port = first[0][0].local_addr().unwrap().port();
        assert_eq!(first[1][0].local_addr().unwrap().port(), port);
        for workers in [1, 2] {
            let error = bind(&format!("127.0.0.1:{port}").parse().unwrap(), workers).unwrap_err();
            assert!(error.to_string().contains("in use"), "{error}");
        }
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("eleven-listener-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = ListenAddr::Unix(path.clone());
        let live = bind(&address, 2).unwrap();
        assert!(bind(&address, 1).unwrap_err().to_string().contains("another program"));
        drop(live);
        assert!(!path.exists(), "removed with the last listener");
        std::fs::write(&path, "x").unwrap();
        assert!(bind(&address, 1).unwrap_err().to_string().contains("not a socket"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
