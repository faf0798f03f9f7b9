//! Closing in stages (9112-9.6-R1): our direction first, then reading what still comes, so that the last response
//! is not lost to a reset while the client is still sending.

use super::Session;
use eleven_messaging::CloseReason;
use eleven_net::ledger::Phase;
use std::future::poll_fn;
use std::task::{Poll, ready};

/// How long a connection is read from that lay idle when its worker was stopped: longer than most round trips.
const STOP_IDLE_MS: u64 = 500;

/// Whether a connection that ends for this reason is closed in stages. Octets that came after the last request
/// (`nothing_unread` is false) are a sign that more may come.
pub(super) fn is_staged(reason: CloseReason, nothing_unread: bool) -> bool {
    reason.needs_lingering() || (reason == CloseReason::ClientAsked && !nothing_unread)
}

/// Whether everything that was begun has been said, so that TLS may call this an end (9112-9.8-06).
pub(super) fn is_orderly(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::Broken | CloseReason::ResponseCut | CloseReason::SendTimeout | CloseReason::Internal
    )
}

/// Closes in stages; ends when the client has closed, or patience or the allowance of octets has run out.
pub(super) async fn in_stages(session: &mut Session, reason: CloseReason) {
    let settings = session.worker.settings();
    let timeouts = &settings.timeouts;
    // A request may be on its way to a connection that lay idle when the worker was stopped: its client must see the end
    // and not a reset. That takes a round trip, whereas a response that was just sent may take a while to be read.
    let was_idle = session.slot.phase() == Phase::Idle;
    let idle_ms = if was_idle && reason == CloseReason::Stopping { STOP_IDLE_MS } else { u64::MAX };
    let idle_ms = idle_ms.min(timeouts.linger_idle_timeout_ms);
    session.slot.begin(Phase::Lingering, idle_ms);
    if session.stream.shutdown_write().await.is_err() {
        return;
    }
    tracing::trace!(reason = reason.name(), "closing in stages");
    let mut left = timeouts.linger_bytes_max;
    poll_fn(|cx| {
        let mut scratch = session.worker.take_scratch();
        let done = loop {
            match session.stream.poll_read(cx, &mut scratch.input) {
                Poll::Ready(Ok(n)) if n > 0 && (n as u64) < left => {
                    left -= n as u64;
                    let patience = timeouts.linger_timeout_ms.saturating_sub(session.slot.phase_ms());
                    session.slot.extend(patience.min(idle_ms));
                }
                Poll::Ready(_) => break Poll::Ready(()),
                Poll::Pending => break Poll::Pending,
            }
        };
        session.worker.return_scratch(scratch);
        if done.is_ready() {
            return Poll::Ready(());
        }
        // Any verdict ends the waiting, except that of a stop: the others are soon enough.
        loop {
            match ready!(session.slot.poll_verdict(cx)) {
                eleven_net::ledger::Verdict::Stopping => {}
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}
