//! What the service manager is told (sd_notify(3)): that the server serves, reads its configuration, stops, lives, or
//! goes on as another process. Without a manager nothing is told. Nothing here can fail the server.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one.
pub struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// The manager that the environment names (`NOTIFY_SOCKET`).
    pub fn from_environment() -> Manager {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Manager(None) };
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
            _ => SocketAddr::from_pathname(&name),
        };
        Manager(address.and_then(|address| Ok((UnixDatagram::unbound()?, address))).ok())
    }

    fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, text, "the service manager was not told");
        }
    }

    /// It serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving");
    }

    /// It reads its configuration anew; [`Manager::ready`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Another process goes on in its place.
    pub fn replaced_by(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\nREADY=1\nSTATUS=Serving"));
    }

    /// It stops.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Finishing what runs");
    }

    /// It lives.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often the manager wants to hear that it lives: half of the time after which it would not believe it.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // Without a WATCHDOG_PID everybody is meant.
        if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
            return None;
        }
        number("WATCHDOG_USEC").filter(|micros| *micros >= 2).map(|micros| Duration::from_micros(micros / 2))
    }
}
