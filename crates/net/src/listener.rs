//! Listening sockets: addresses as users write them, sockets bound with clear errors, and an accept loop that
//! survives running out of descriptors (fault D41).

use crate::clock;
use crate::descriptors::is_exhausted;
use crate::ledger::{Ledger, Refused, Slot};
use crate::stream::{PeerAddr, Stream};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

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
}

impl std::str::FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddr, String> {
        const FORMS: &str = "expected HOST:PORT, :PORT or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(format!("no path after \"unix:\"; {FORMS}"))
            } else {
                Ok(ListenAddr::Unix(path.into()))
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
        }
    }
}

/// A bound socket, not yet tied to a runtime.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file is removed when the last clone goes.
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
}

/// The file of a Unix socket, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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
            let file = Arc::new(SocketFile(path.clone()));
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
    }
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

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT first: with it, a port that another program of this user holds the same way would
    // be shared silently.
    let first = tcp_socket(address, false)?;
    if count == 1 {
        return Ok(vec![first]);
    }
    let address = first.local_addr()?;
    drop(first);
    (0..count).map(|_| tcp_socket(address, true)).collect()
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
    /// The address bound to, with the port that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Ties the socket to the current runtime.
    ///
    /// # Errors
    /// If it cannot be registered with the system's poller.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener, file) => Listener::Unix(UnixListener::from_std(listener)?, file),
        })
    }
}

/// A listening socket of a worker.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener, Arc<SocketFile>),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), PeerAddr::Ip(address)))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }

    /// Accepts for ever. `serve` gets each connection with its place in the ledger; `refuse` gets those for
    /// which there is none, to say so and close.
    pub async fn accept_all(
        &self,
        ledger: &Rc<Ledger>,
        serve: impl Fn(Stream, PeerAddr, Slot),
        refuse: impl Fn(Stream, Refused),
    ) {
        let mut said = None;
        loop {
            match self.accept().await {
                Ok((stream, peer)) => {
                    let address = match peer {
                        PeerAddr::Ip(address) => Some(address.ip()),
                        _ => None,
                    };
                    match ledger.enter(address) {
                        Ok(slot) => serve(stream, peer, slot),
                        Err(why) => refuse(stream, why),
                    }
                }
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
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), expected);
        }
        for text in
            ["", "8080", "host", "host:", "host:http", "host:-1", "host:+1", "host:65536", "::1:80", "unix:"]
        {
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
