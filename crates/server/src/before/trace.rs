//! Who a request is, over all servers that it passes: its id, and the trace it belongs to. Strangers' ids are replaced, so
//! that nobody writes another one's id into the logs; what a trace is called is `eleven_semantics::trace_context`.

use crate::request::Request;
use eleven_semantics::Fields;
use eleven_semantics::fields::Only;
use eleven_semantics::trace_context::{TraceParent, is_request_id, is_trace_state};
use std::cell::Cell;

/// The field of request ids.
pub const REQUEST_ID: &str = "X-Request-Id";
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// What is done about the trace of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Context {
    /// Nothing: the fields go on as they came.
    #[default]
    Pass,
    /// A trace that came is continued, whoever sent it; a request without one begins one.
    Continue,
    /// The same, but only trusted proxies are believed; the traces of others end here and new ones begin.
    Restart,
}

/// What is done about the identity of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TracePlan {
    /// Give each request an id, tell it to the handler and to the client.
    pub request_id: bool,
    /// What is done about W3C Trace Context.
    pub context: Context,
}

/// Ids that do not come twice; no secrets. One for each worker.
#[derive(Debug)]
pub struct Ids(Cell<[u64; 2]>);

impl Ids {
    /// A source of ids, from a seed that nobody else has.
    pub fn new(seed: [u8; 16]) -> Ids {
        let seed = u128::from_ne_bytes(seed) | 1;
        Ids(Cell::new([seed as u64, (seed >> 64) as u64]))
    }

    /// Of 64 bits, never zero (xoroshiro128+).
    fn next(&self) -> u64 {
        loop {
            let [a, mut b] = self.0.get();
            let id = a.wrapping_add(b);
            b ^= a;
            self.0.set([a.rotate_left(24) ^ b ^ (b << 16), b.rotate_left(37)]);
            if id != 0 {
                return id;
            }
        }
    }

    fn next_pair(&self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

impl TracePlan {
    /// Sets the fields of a request by which it is known from here on; its id, if it has one.
    pub fn mark(&self, request: &mut Request, is_trusted: bool, ids: &Ids) -> Option<Box<[u8]>> {
        if self.context != Context::Pass {
            let believed = is_trusted || self.context == Context::Continue;
            self.trace(&mut request.head.fields, believed, ids);
        }
        if !self.request_id {
            return None;
        }
        let fields = &mut request.head.fields;
        let given = match fields.only(REQUEST_ID) {
            Only::One(id) if is_trusted && is_request_id(id) => Some(Box::from(id)),
            _ => None,
        };
        let id = given.unwrap_or_else(|| format!("{:032x}", ids.next_pair()).into_bytes().into());
        set(fields, REQUEST_ID, &id);
        Some(id)
    }

    /// The next hop's parent is this one; a state that cannot be carried on ends (§3.3, §4.3 of the Recommendation).
    fn trace(&self, fields: &mut Fields, believed: bool, ids: &Ids) {
        let came = match fields.only(TRACE_PARENT) {
            Only::One(text) if believed => TraceParent::parse(text),
            _ => None,
        };
        if came.is_none() || !is_trace_state(fields.all(TRACE_STATE)) {
            fields.remove(TRACE_STATE);
        }
        let (trace_id, flags) = came.map_or_else(|| (ids.next_pair(), 1), |came| (came.trace_id, came.flags));
        let ours = TraceParent { trace_id, parent_id: ids.next(), flags };
        set(fields, TRACE_PARENT, ours.to_string().as_bytes());
    }
}

fn set(fields: &mut Fields, name: &str, value: &[u8]) {
    if let Err(error) = fields.set(name, value) {
        // Both are letters and digits.
        tracing::error!(%error, name, "a field could not be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Peer;
    use eleven_semantics::target::Scheme;
    use std::rc::Rc;

    const CAME: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn marked(plan: TracePlan, trusted: bool, lines: &[(&str, &str)]) -> (Request, Option<Box<[u8]>>) {
        let peer =
            Peer { address: None, scheme: Scheme::Http, local_port: 80, listener: None, server_name: None };
        let mut request = Request::new(Rc::new(peer));
        for (name, value) in lines {
            request.head.fields.push(*name, value).unwrap();
        }
        let id = plan.mark(&mut request, trusted, &Ids::new([7; 16]));
        (request, id)
    }

    fn field<'a>(request: &'a Request, name: &str) -> Vec<&'a str> {
        request.head.fields.all(name).map(|value| std::str::from_utf8(value).unwrap()).collect()
    }

    /// Fault L15.
    #[test]
    fn ids_are_taken_from_trusted_ones_only() {
        let plan = TracePlan { request_id: true, context: Context::Pass };
        for (trusted, lines, kept) in [
            (true, &[("X-Request-Id", "abc-1")][..], Some("abc-1")),
            (true, &[("x-request-id", "abc-1")], Some("abc-1")),
            (false, &[("X-Request-Id", "abc-1")], None),
            (true, &[("X-Request-Id", "a b")], None),
            (true, &[("X-Request-Id", "a"), ("X-Request-Id", "b")], None),
            (true, &[], None),
        ] {
            let (request, id) = marked(plan, trusted, lines);
            let id = String::from_utf8(id.unwrap().into()).unwrap();
            // The handler is told the one that the log tells, and no other.
            assert_eq!(field(&request, "X-Request-Id"), [&id]);
            match kept {
                Some(kept) => assert_eq!(id, kept),
                None => assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}"),
            }
        }
        let (request, id) =
            marked(TracePlan::default(), false, &[("X-Request-Id", "abc-1"), ("traceparent", "x")]);
        assert_eq!(
            (id, field(&request, "X-Request-Id"), field(&request, "traceparent")),
            (None, vec!["abc-1"], vec!["x"])
        );
    }

    #[test]
    fn traces_are_continued_or_begun() {
        let all = [("traceparent", CAME), ("tracestate", "a=1,b=2")];
        for (context, trusted, lines, continues, state) in [
            (Context::Continue, false, &all[..], true, vec!["a=1,b=2"]),
            (Context::Restart, true, &all, true, vec!["a=1,b=2"]),
            (Context::Restart, false, &all, false, vec![]),
            (Context::Continue, false, &all[1..], false, vec![]),
            (Context::Continue, false, &[("traceparent", "00-0-0-0"), ("tracestate", "a=1")], false, vec![]),
            (Context::Continue, false, &[all[0], all[0]], false, vec![]),
            (Context::Continue, false, &[all[0], ("tracestate", "A=1")], true, vec![]),
            (
                Context::Continue,
                false,
                &[all[0], ("tracestate", "a=1"), ("tracestate", "b=1")],
                true,
                vec!["a=1", "b=1"],
            ),
            (Context::Continue, false, &[], false, vec![]),
        ] {
            let plan = TracePlan { request_id: false, context };
            let (request, id) = marked(plan, trusted, lines);
            assert_eq!(id, None);
            let [text] = field(&request, "traceparent")[..] else { panic!("one traceparent") };
            let ours = TraceParent::parse(text.as_bytes()).unwrap();
            let came = TraceParent::parse(CAME.as_bytes()).unwrap();
            assert_eq!(ours.trace_id == came.trace_id, continues, "{lines:?}");
            assert_ne!(ours.parent_id, came.parent_id);
            assert_eq!(field(&request, "tracestate"), state, "{lines:?}");
        }
    }

    #[test]
    fn ids_do_not_come_twice() {
        let ids = Ids::new([0; 16]);
        let seen: std::collections::HashSet<u128> = (0..10_000).map(|_| ids.next_pair()).collect();
        assert_eq!(seen.len(), 10_000);
    }
}
