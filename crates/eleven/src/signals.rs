//! Signals: TERM and INT stop the server once what runs has finished, a second one stops it at once; USR1 opens
//! log files anew; HUP is for the command to act upon.

use eleven_server::serve::Running;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Waits until the server is told to stop and has stopped. HUP ends the process, as without a handler: a terminal
/// that goes away takes the server along.
///
/// # Errors
/// If signals cannot be listened for.
pub fn until_stopped(running: Running) -> io::Result<()> {
    until_stopped_or_hung_up(running, || std::process::exit(129))
}

/// As [`until_stopped`]; HUP calls `hang_up`.
///
/// # Errors
/// If signals cannot be listened for.
pub fn until_stopped_or_hung_up(mut running: Running, mut hang_up: impl FnMut()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime
        .block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut reopen = signal(SignalKind::user_defined1())?;
            let mut hung_up = signal(SignalKind::hangup())?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = reopen.recv() => running.reopen_logs(),
                    _ = hung_up.recv() => hang_up(),
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
