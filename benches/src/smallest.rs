//! The smallest programs that could answer: what the kernel alone costs, so that everything above it is the
//! price of being a server. One thread, level-triggered epoll, one read and one write a request; they look for
//! the ends of heads and answer each with the same octets. They know nothing else of HTTP, and keep no limits:
//! never put one on a network.

use memchr::memmem::Finder;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

const READ_BYTES: usize = 64 * 1024;
const LISTENER: u64 = 0;

/// What a small program does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers every head and goes on.
    Keep,
    /// Answers the first head and closes.
    Close,
}

/// Answers every request on `port` with `body_bytes` octets; never returns unless something fails.
pub fn answer(port: u16, manner: Manner, body_bytes: usize) -> rustix::io::Result<()> {
    let listener = listen(port)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let answer = constant_response(manner, body_bytes);
    let end_of_head = Finder::new(b"\r\n\r\n");
    let mut buffer = vec![0; READ_BYTES];
    let mut out = Vec::new();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(512);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                accept_all(&epoll, &listener, &mut connections)?;
                continue;
            }
            let at = event.data.u64() as usize;
            let Some(connection) = connections[at].as_mut() else { continue };
            let held = connection.partial.len();
            buffer[..held].copy_from_slice(&connection.partial);
            let len = match rustix::net::recv(&connection.socket, &mut buffer[held..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => continue,
                Ok((len, _)) if len > 0 => held + len,
                _ => {
                    connections[at] = None;
                    continue;
                }
            };
            let (mut heads, mut used) = (0, 0);
            for end in end_of_head.find_iter(&buffer[..len]) {
                heads += 1;
                used = end + 4;
            }
            connection.partial.clear();
            connection.partial.extend_from_slice(&buffer[used..len]);
            let written = match heads {
                0 => continue,
                1 => send_all(&connection.socket, &answer),
                _ => {
                    out.clear();
                    (0..heads).for_each(|_| out.extend_from_slice(&answer));
                    send_all(&connection.socket, &out)
                }
            };
            if written.is_err() || manner == Manner::Close {
                connections[at] = None;
            }
        }
    }
}

/// Relays octets between each connection on `port` and one of its own to `origin`, both on loopback.
pub fn relay(port: u16, origin: u16) -> rustix::io::Result<()> {
    let listener = listen(port)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut sockets: Vec<Option<OwnedFd>> = Vec::new();
    let mut partner: Vec<usize> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(512);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                while let Ok(client) =
                    rustix::net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
                {
                    let server = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
                    rustix::net::connect(&server, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, origin))?;
                    rustix::io::ioctl_fionbio(&server, true)?;
                    let ends = (client.as_raw_fd() as usize, server.as_raw_fd() as usize);
                    for (socket, at, other) in [(client, ends.0, ends.1), (server, ends.1, ends.0)] {
                        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
                        epoll::add(&epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
                        if sockets.len() <= at {
                            sockets.resize_with(at + 1, || None);
                            partner.resize(at + 1, 0);
                        }
                        sockets[at] = Some(socket);
                        partner[at] = other;
                    }
                }
                continue;
            }
            let at = event.data.u64() as usize;
            let (Some(from), Some(to)) = (&sockets[at], &sockets[partner[at]]) else { continue };
            let moved = match rustix::net::recv(from, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => continue,
                Ok((len, _)) if len > 0 => send_all(to, &buffer[..len]).is_ok(),
                _ => false,
            };
            if !moved {
                sockets[partner[at]] = None;
                sockets[at] = None;
            }
        }
    }
}

/// Answers every request on `port` with `body_bytes` octets, as fast as each client takes them: a thread for each.
pub fn stream(port: u16, body_bytes: u64) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || stream_to(socket, body_bytes))?;
    }
    Ok(())
}

fn stream_to(mut socket: TcpStream, body_bytes: u64) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\r\n");
    let block = vec![b'x'; READ_BYTES];
    let mut request = Vec::new();
    let mut octet = [0];
    while socket.read(&mut octet)? > 0 {
        request.push(octet[0]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        socket.write_all(head.as_bytes())?;
        let mut left = body_bytes;
        while left > 0 {
            let step = left.min(block.len() as u64);
            socket.write_all(&block[..step as usize])?;
            left -= step;
        }
    }
    Ok(())
}

/// Switches every connection on `port` to another protocol with the first request, and then sends back what comes.
pub fn echo(port: u16) -> rustix::io::Result<()> {
    let listener = listen(port)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(512);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                accept_all(&epoll, &listener, &mut connections)?;
                continue;
            }
            let at = event.data.u64() as usize;
            let Some(connection) = connections[at].as_mut() else { continue };
            let len = match rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => continue,
                Ok((len, _)) if len > 0 => len,
                _ => {
                    connections[at] = None;
                    continue;
                }
            };
            let answer = if buffer[..len].ends_with(b"\r\n\r\n") { SWITCHED } else { &buffer[..len] };
            if send_all(&connection.socket, answer).is_err() {
                connections[at] = None;
            }
        }
    }
}

/// The answer to the key of the example in RFC 6455 §1.3, which is the one the load sends.
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct Connection {
    socket: OwnedFd,
    /// The beginning of a head whose end has not come.
    partial: Vec<u8>,
}

fn listen(port: u16) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&listener, 4096)?;
    Ok(listener)
}

fn accept_all(
    epoll: &OwnedFd,
    listener: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
) -> rustix::io::Result<()> {
    loop {
        let socket = match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::CONNABORTED) => return Ok(()),
            Err(e) => return Err(e),
        };
        // Without this the second of two small writes would wait for the first one's acknowledgement.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        let at = socket.as_raw_fd() as usize;
        epoll::add(epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
        if connections.len() <= at {
            connections.resize_with(at + 1, || None);
        }
        connections[at] = Some(Connection { socket, partial: Vec::new() });
    }
}

/// Writes everything; with a full socket it tries again at once, which the small answers here never need.
fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// As many octets of head as a careful server writes about a small file.
fn constant_response(manner: Manner, body_bytes: usize) -> Vec<u8> {
    let close = if manner == Manner::Close { "Connection: close\r\n" } else { "" };
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {body_bytes}\r\nLast-Modified: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
         ETag: \"0123456789abcdef0123\"\r\nAccept-Ranges: bytes\r\n{close}\r\n"
    )
    .into_bytes();
    response.resize(response.len() + body_bytes, b'x');
    response
}
