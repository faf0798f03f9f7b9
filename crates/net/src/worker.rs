//! Workers: one operating-system thread each, with a current-thread runtime of its own. A connection lives and
//! dies on the worker that accepted it.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

/// Runs a future on a thread of its own. The future is made there, so it need not be `Send`; tasks it spawns with
/// `tokio::task::spawn_local` run there too, and end when it does.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub fn spawn<F>(name: String, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<F::Output>>
where
    F: Future,
    F::Output: Send + 'static,
{
    std::thread::Builder::new().name(name).spawn(move || {
        run(make()).unwrap_or_else(|error| {
            // Nothing can go on without a runtime; the thread's panic is seen by whoever joins it.
            panic!("no runtime for a worker: {error}")
        })
    })
}

/// Runs a future on this thread, in a current-thread runtime that allows `spawn_local`.
///
/// # Errors
/// If the runtime cannot be made.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let output = runtime.block_on(future);
    // Blocking work that hangs (a name look-up, a slow disk) must not keep the process from stopping.
    runtime.shutdown_background();
    Ok(output)
}

/// Processors this process may use: the default number of workers.
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
