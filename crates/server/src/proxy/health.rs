//! Active checks: a server is asked for a path every so often, and is out of service after so many failures in a
//! row, back in after so many successes. One worker checks for all.

use super::Gateway;
use super::upstream::{Server, Shared};
use eleven_client::transfer::{Content, Deadlines, Exchange};
use eleven_messaging::client::Request;
use eleven_semantics::names::Known;
use eleven_semantics::{Fields, Method};
use std::ops::RangeInclusive;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How servers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPlan {
    /// Between two checks of a server.
    pub interval_ms: u64,
    /// For the whole check.
    pub timeout_ms: u64,
    /// The path asked for.
    pub path: Box<str>,
    /// Statuses of a healthy server.
    pub statuses: RangeInclusive<u16>,
    /// Successes in a row that bring it back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
}

impl Default for HealthPlan {
    fn default() -> HealthPlan {
        HealthPlan {
            interval_ms: 5_000,
            timeout_ms: 2_000,
            path: "/".into(),
            statuses: 200..=399,
            rise: 2,
            fall: 3,
        }
    }
}

/// Consecutive results, and what follows from them.
#[derive(Debug, Default)]
struct Streak {
    successes: u32,
    failures: u32,
}

impl Streak {
    /// The new state, if this result changes it.
    fn note(&mut self, success: bool, healthy: bool, plan: &HealthPlan) -> Option<bool> {
        if success {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
        } else {
            (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
        }
        match healthy {
            true if self.failures >= plan.fall => Some(false),
            false if self.successes >= plan.rise => Some(true),
            _ => None,
        }
    }
}

/// Begins checking, on the first worker that gets here.
pub(super) fn start(gateway: &Rc<Gateway>) {
    let Some(plan) = gateway.plan().health.clone() else { return };
    for (index, shared) in gateway.plan().shared.iter().enumerate() {
        if !shared.checked.swap(true, Ordering::Relaxed) {
            let checking = check_for_ever(Rc::downgrade(gateway), index, Arc::clone(shared), plan.clone());
            tokio::task::spawn_local(checking);
        }
    }
}

/// Ends with the gateway; the next one's worker may then take over.
async fn check_for_ever(gateway: Weak<Gateway>, index: usize, shared: Arc<Shared>, plan: HealthPlan) {
    let mut streak = Streak::default();
    while let Some(gateway) = gateway.upgrade() {
        let Some(server) = gateway.group.servers().get(index) else { break };
        let deadline = Duration::from_millis(plan.timeout_ms);
        let success = tokio::time::timeout(deadline, check(&gateway, server, &plan)).await.unwrap_or(false);
        let healthy = shared.healthy.load(Ordering::Relaxed);
        if let Some(healthy) = streak.note(success, healthy, &plan) {
            shared.set_healthy(healthy, eleven_net::clock::now());
            if healthy {
                tracing::info!(server = %server.plan, "a server is back in service");
            } else {
                tracing::warn!(server = %server.plan, "a server is out of service: its checks fail");
            }
        }
        drop(gateway);
        tokio::time::sleep(Duration::from_millis(plan.interval_ms)).await;
    }
    shared.checked.store(false, Ordering::Relaxed);
}

/// One check, on a connection of its own: what it tests is whether new ones are served.
async fn check(gateway: &Gateway, server: &Server, plan: &HealthPlan) -> bool {
    let header = server.plan.proxy_protocol.map(|version| {
        let mut out = Vec::new();
        let local = eleven_net::proxy_protocol::Header::Local;
        eleven_net::proxy_protocol::write(&mut out, version, &local);
        out
    });
    let Ok(mut connection) = gateway.open(server, header.as_deref()).await else { return false };
    let mut fields = Fields::new();
    let _ = fields.push(Known::UserAgent, "eleven-health-check");
    let request = Request {
        close: true,
        ..Request::new(&Method::Get, plan.path.as_bytes(), &server.authority, &fields)
    };
    let Ok(mut exchange) = Exchange::begin(&mut connection, &request, Content::None, Deadlines::default())
    else {
        return false;
    };
    exchange.head(|_| {}).await.is_ok() && plan.statuses.contains(&exchange.connection().head().status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall_take_their_number_in_a_row() {
        let plan = HealthPlan { rise: 2, fall: 3, ..HealthPlan::default() };
        let mut streak = Streak::default();
        let mut healthy = true;
        let states: String = "xx.xxx..x.xx..xxx"
            .chars()
            .map(|result| {
                if let Some(state) = streak.note(result == '.', healthy, &plan) {
                    healthy = state;
                }
                if healthy { '+' } else { '-' }
            })
            .collect();
        assert_eq!(states, "+++++--+++++++++-");
    }
}
