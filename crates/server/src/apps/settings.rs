//! What an application is run with. Checked values only: reading configuration text is the binary's business.

use super::pool::PoolLimits;
use std::path::PathBuf;

/// What the application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// Found out by looking at it: a coroutine function is ASGI.
    #[default]
    Auto,
    /// PEP 3333.
    Wsgi,
    /// ASGI 3.
    Asgi,
}

impl Interface {
    pub(super) fn name(self) -> &'static str {
        match self {
            Interface::Auto => "auto",
            Interface::Wsgi => "wsgi",
            Interface::Asgi => "asgi",
        }
    }
}

/// When content of a request is collected before a worker gets the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buffering {
    /// For WSGI: unless the client waits for `100 Continue`, so that it is told so only when the application
    /// reads. For ASGI: only if it is short.
    #[default]
    Auto,
    /// Always, so that no slow upload occupies a worker. `100 Continue` is sent before the application runs.
    Always,
    /// Only what is short and complete.
    Never,
}

/// Everything an application is run with.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// `MODULE:ATTRIBUTE`; the attribute may be dotted, and may be a call without arguments.
    pub application: String,
    /// What it speaks.
    pub interface: Interface,
    /// Call the attribute to get the application.
    pub factory: bool,
    /// The interpreter.
    pub python: PathBuf,
    /// The directory to run in, also the first place to import from.
    pub directory: Option<PathBuf>,
    /// More places to import from.
    pub python_path: Vec<PathBuf>,
    /// Variables of the process environment.
    pub environment: Vec<(String, String)>,
    /// Worker processes.
    pub workers: usize,
    /// Threads in each (WSGI).
    pub threads: usize,
    /// Requests at once in each (ASGI).
    pub tasks: usize,
    /// `auto`, `asyncio` or `uvloop`.
    pub event_loop: String,
    /// The path under which the application is mounted, without a slash at its end; empty for the root.
    pub mount: String,
    /// Tracebacks are shown to clients. Never in production.
    pub development: bool,
    /// Restart when a source file changes.
    pub watch: bool,
    /// Import the application once and fork the workers, which then share its memory. Not together with `watch`.
    pub preload: bool,
    /// A path that a new worker must answer with less than 500 before it gets requests.
    pub probe: Option<String>,
    /// Collecting of request content.
    pub buffering: Buffering,
    /// Octets of one request's content that are collected, in memory and on disk, before it is passed on as it
    /// comes.
    pub request_spool_bytes_max: u64,
    /// Octets of one response's content that are kept for a slow client, in memory and on disk, before the worker
    /// has to wait.
    pub response_spool_bytes_max: u64,
    /// Of those, octets in memory.
    pub spool_memory_bytes_max: usize,
    /// How long a worker may take to start.
    pub start_timeout_ms: u64,
    /// How long a retired worker may take to end.
    pub drain_timeout_ms: u64,
    /// A worker is replaced after this many requests; 0: never. Up to a tenth is added by chance.
    pub requests_max: u64,
    /// A worker is replaced at this age; 0: never. Up to a tenth is added by chance.
    pub age_max_s: u64,
    /// A worker is replaced when it holds more memory; 0: never.
    pub memory_bytes_max: u64,
    /// Where sockets and unpacked files go; a directory of its own is made there.
    pub runtime_directory: PathBuf,
    /// Limits of the queue and of requests.
    pub limits: PoolLimits,
}

impl AppSettings {
    /// One worker with one thread, with usual limits.
    pub fn new(application: impl Into<String>) -> AppSettings {
        let python = match std::env::var_os("VIRTUAL_ENV") {
            Some(root) => PathBuf::from(root).join("bin/python"),
            None => PathBuf::from("python3"),
        };
        AppSettings {
            application: application.into(),
            interface: Interface::Auto,
            factory: false,
            python,
            directory: None,
            python_path: Vec::new(),
            environment: Vec::new(),
            workers: 1,
            threads: 1,
            tasks: 256,
            event_loop: "auto".to_owned(),
            mount: String::new(),
            development: false,
            watch: false,
            preload: false,
            probe: None,
            buffering: Buffering::Auto,
            request_spool_bytes_max: 1 << 30,
            response_spool_bytes_max: 1 << 30,
            spool_memory_bytes_max: 256 << 10,
            start_timeout_ms: 60_000,
            drain_timeout_ms: 30_000,
            requests_max: 0,
            age_max_s: 0,
            memory_bytes_max: 0,
            runtime_directory: std::env::temp_dir(),
            limits: PoolLimits::default(),
        }
    }
}
