//! Signals: TERM and INT stop the server once what runs has finished, a second one stops it at once; USR1 opens
//! log files anew; HUP reads certificates anew (which also happens by itself when their files change) and is for the
//! command to act upon.

use crate::certificates::Certificates;
use eleven_server::serve::Running;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the files of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);

/// Waits until the server is told to stop and has stopped. HUP reads the certificates anew; without any it ends the
/// process, as without a handler: a terminal that goes away takes the server along.
///
/// # Errors
/// If signals cannot be listened for.
pub fn until_stopped(running: Running, certificates: Option<Certificates>) -> io::Result<()> {
    let alone = certificates.is_none();
    until_stopped_or_hung_up(running, certificates, |_| {
        if alone {
            std::process::exit(129);
        }
    })
}

/// As [`until_stopped`]; HUP also calls `hang_up`.
///
/// # Errors
/// If signals cannot be listened for.
pub fn until_stopped_or_hung_up(
    mut running: Running,
    mut certificates: Option<Certificates>,
    mut hang_up: impl FnMut(&Running),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime
        .block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut reopen = signal(SignalKind::user_defined1())?;
            let mut hung_up = signal(SignalKind::hangup())?;
            let mut look = tokio::time::interval(CERTIFICATES_EVERY);
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = reopen.recv() => running.reopen_logs(),
                    _ = hung_up.recv() => {
                        refresh(&mut certificates, true);
                        hang_up(&running);
                    }
                    _ = look.tick(), if certificates.is_some() => refresh(&mut certificates, false),
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

fn refresh(certificates: &mut Option<Certificates>, asked: bool) {
    if let Some(certificates) = certificates {
        certificates.refresh(asked);
    }
}
