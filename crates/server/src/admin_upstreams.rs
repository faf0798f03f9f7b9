//! What the admin listener has beneath `/upstreams/`: the servers behind the gateways, and the switch by which an operator
//! takes one out for a while. Answers are JSON. Who may ask was decided before (`admin::Access`).
//!
//! - `GET /upstreams/`
//! - `POST /upstreams/drain?name=http://10.0.0.1:3000`, and `/upstreams/undrain?name=…`
//!
//! A server that drains gets no new requests; those it has are finished, and clients that a sticky cookie binds to it stay.
//! It is drained until it is told otherwise or the process ends, also over a reload that still names it.

use crate::admin::{Mounted, Mounts};
use crate::admin_cache::{answered, decoded, problem};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::response::Response;
use eleven_semantics::{Known, Method, Status};
use serde_json::json;
use std::sync::Arc;

/// Where it is mounted.
pub const PREFIX: &str = "/upstreams/";

/// Mounts it for the gateways that are in force.
pub fn mount(mounts: &mut Mounts, metrics: Arc<Metrics>) {
    let mounted: Mounted = Arc::new(move |request| answer(&metrics, request).into());
    mounts.add(PREFIX, mounted);
}

fn answer(metrics: &Metrics, request: &Request) -> Response {
    let place = request.head.target.path().strip_prefix(PREFIX.as_bytes()).unwrap_or_default();
    let (method, drain) = match place {
        b"" => (Method::Get, None),
        b"drain" => (Method::Post, Some(true)),
        b"undrain" => (Method::Post, Some(false)),
        _ => return problem(Status::NOT_FOUND, "there are drain and undrain here"),
    };
    if request.head.method != method {
        let mut response = problem(Status::METHOD_NOT_ALLOWED, &format!("this takes {method} only"));
        response.add(Known::Allow, method.as_str());
        return response;
    }
    let Some(drain) = drain else { return answered(&json!({ "upstreams": metrics.upstreams() })) };
    let name = request.head.target.query().and_then(|query| query.strip_prefix(b"name=")).and_then(decoded);
    let Some(name) = name else {
        return problem(Status::BAD_REQUEST, "say which: name=URL, as it stands in the configuration");
    };
    match metrics.set_draining(&name, drain) {
        0 => problem(Status::NOT_FOUND, "no gateway has a server of that name"),
        count => {
            tracing::info!(server = name, drain, "an operator's switch");
            answered(&json!({ "name": name, "draining": drain, "gateways": count }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sources;
    use crate::proxy::GatewayPlan;
    use crate::proxy::upstream::ServerPlan;
    use crate::request::Peer;
    use eleven_semantics::RequestTarget;
    use eleven_semantics::target::Scheme;
    use std::rc::Rc;
    use std::sync::atomic::Ordering;

    fn gateway(ports: &[u16]) -> Arc<GatewayPlan> {
        let servers = ports.iter().map(|port| ServerPlan::tcp("10.0.0.1", *port)).collect();
        Arc::new(GatewayPlan::new(servers, "me"))
    }

    fn ask(metrics: &Metrics, method: Method, target: &str) -> (u16, String) {
        let peer =
            Peer { address: None, scheme: Scheme::Http, local_port: 80, listener: None, server_name: None };
        let mut request = Request::new(Rc::new(peer));
        request.head.target = RequestTarget::parse(&method, target.as_bytes()).unwrap();
        request.head.method = method;
        let response = answer(metrics, &request);
        let crate::response::Content::Bytes(content) = response.content else { panic!("not from memory") };
        (response.status.code(), String::from_utf8(content.to_vec()).unwrap())
    }

    #[test]
    fn a_server_is_drained_until_told_otherwise_and_over_reloads() {
        let metrics = Metrics::default();
        let (one, other) = (gateway(&[1, 2]), gateway(&[2, 3]));
        metrics.set_sources(Sources { gateways: vec![one.clone(), other.clone()], ..Sources::default() });
        let state = |plan: &GatewayPlan| -> Vec<bool> {
            plan.shared.iter().map(|shared| shared.draining.load(Ordering::Relaxed)).collect()
        };
        let drain = "/upstreams/drain?name=http%3A%2F%2F10.0.0.1:2";
        let (status, text) = ask(&metrics, Method::Post, drain);
        assert_eq!((status, text.contains("\"gateways\":2")), (200, true), "{text}");
        assert_eq!((state(&one), state(&other)), (vec![false, true], vec![true, false]));
        let (status, text) = ask(&metrics, Method::Get, "/upstreams/");
        assert_eq!((status, text.matches("\"draining\":true").count()), (200, 1), "{text}");
        // A reload makes new plans; the server is in one of them, and in a third one that comes later.
        let after = gateway(&[3, 2]);
        metrics.set_sources(Sources { gateways: vec![after.clone()], ..Sources::default() });
        assert_eq!(state(&after), [false, true]);
        let text = metrics.exposition(crate::metrics::exposition::Dialect::Prometheus);
        assert!(text.contains("eleven_upstream_draining{upstream=\"http://10.0.0.1:2\"} 1\n"), "{text}");
        assert_eq!(ask(&metrics, Method::Post, &drain.replace("drain?", "undrain?")).0, 200);
        assert_eq!(state(&after), [false, false]);
        for (method, target, status) in [
            (Method::Get, drain, 405),
            (Method::Post, "/upstreams/", 405),
            (Method::Post, "/upstreams/drain", 400),
            (Method::Post, "/upstreams/drain?name=%zz", 400),
            (Method::Post, "/upstreams/drain?name=http://10.0.0.1:9", 404),
            (Method::Post, "/upstreams/stop?name=http://10.0.0.1:2", 404),
        ] {
            assert_eq!(ask(&metrics, method, target).0, status, "{target}");
        }
    }
}
