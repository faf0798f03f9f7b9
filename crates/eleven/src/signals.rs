//! Signals: TERM and INT stop the server once what runs has finished, a second one stops it at once; USR1 opens
//! log files anew.

use eleven_server::serve::Running;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Waits until the server is told to stop and has stopped.
///
/// # Errors
/// If signals cannot be listened for.
pub fn until_stopped(mut running: Running) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime
        .block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut reopen = signal(SignalKind::user_defined1())?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = reopen.recv() => running.reopen_logs(),
                }
            }
            running.stop();
            io::Result::Ok((terminate, interrupt))
        })
        .map(|(mut terminate, mut interrupt)| {
            // A second signal ends everything at once.
            std::thread::spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                });
                std::process::exit(130);
            });
        })?;
    running.wait();
    Ok(())
}
