//! Who a request is, over all servers that it passes: its id, and the trace it belongs to. Strangers' ids are replaced, so
//! that nobody writes another one's id into the logs; what a trace is called is `eleven_semantics::trace_context`.

use crate::request::Request;
use crate::spans::SpanId;
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
    /// Of so many traces that begin here one is sampled; 0 and 1 for all. What others began, they have decided.
    pub sampled_one_in: u64,
}

/// What a request is called.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Its id, if it has one.
    pub request_id: Option<Box<[u8]>>,
    /// Its place in a trace, if that is sampled.
    pub span: Option<SpanId>,
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
    /// Sets the fields of a request by which it is known from here on.
    pub fn mark(&self, request: &mut Request, is_trusted: bool, ids: &Ids) -> Marked {
        let mut marked = Marked::default();
        if self.context != Context::Pass {
            let believed = is_trusted || self.context == Context::Continue;
            marked.span = self.trace(&mut request.head.fields, believed, ids);
        }
        if !self.request_id {
            return marked;
        }
        let fields = &mut request.head.fields;
        let given = match fields.only(REQUEST_ID) {
            Only::One(id) if is_trusted && is_request_id(id) => Some(Box::from(id)),
            _ => None,
        };
        let id = given.unwrap_or_else(|| format!("{:032x}", ids.next_pair()).into_bytes().into());
        set(fields, REQUEST_ID, &id);
        marked.request_id = Some(id);
        marked
    }

    /// The next hop's parent is this one; a state that cannot be carried on ends (§3.3, §4.3 of the Recommendation).
    fn trace(&self, fields: &mut Fields, believed: bool, ids: &Ids) -> Option<SpanId> {
        let came = match fields.only(TRACE_PARENT) {
            Only::One(text) if believed => TraceParent::parse(text),
            _ => None,
        };
        if came.is_none() || !is_trace_state(fields.all(TRACE_STATE)) {
            fields.remove(TRACE_STATE);
        }
        let begun = || {
            let trace_id = ids.next_pair();
            (trace_id, u8::from((trace_id as u64).is_multiple_of(self.sampled_one_in.max(1))))
        };
        let (trace_id, flags) = came.map_or_else(begun, |came| (came.trace_id, came.flags));
        let ours = TraceParent { trace_id, parent_id: ids.next(), flags };
        set(fields, TRACE_PARENT, ours.to_string().as_bytes());
        let span = SpanId { trace_id, span_id: ours.parent_id, parent_id: came.map(|came| came.parent_id) };
        (flags & 1 == 1).then_some(span)
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
        let (request, marked) = marked_in_full(plan, trusted, lines);
        (request, marked.request_id)
    }

    fn marked_in_full(plan: TracePlan, trusted: bool, lines: &[(&str, &str)]) -> (Request, Marked) {
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
        let plan = TracePlan { request_id: true, ..TracePlan::default() };
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
            let plan = TracePlan { context, ..TracePlan::default() };
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

    /// Traces that others began keep their choice; of those that begin here one in so many is sampled.
    #[test]
    fn what_is_sampled() {
        const NOT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let span = |one_in, lines: &[(&str, &str)]| {
            let plan =
                TracePlan { context: Context::Continue, sampled_one_in: one_in, ..TracePlan::default() };
            marked_in_full(plan, false, lines).1.span
        };
        let continued = span(u64::MAX, &[("traceparent", CAME)]).unwrap();
        assert_eq!(continued.parent_id, Some(0xb7ad_6b71_6920_3331));
        assert_eq!(continued.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(span(1, &[("traceparent", NOT)]), None);
        assert_eq!(span(1, &[]).unwrap().parent_id, None);
        assert!(span(0, &[]).is_some() && span(u64::MAX, &[]).is_none());
        assert_eq!(marked_in_full(TracePlan::default(), true, &[("traceparent", CAME)]).1.span, None);
        let plan = TracePlan { context: Context::Continue, sampled_one_in: 4, ..TracePlan::default() };
        let ids = Ids::new([9; 16]);
        let sampled = (0..4000).filter(|_| plan.trace(&mut Fields::new(), false, &ids).is_some()).count();
        assert!((800..1200).contains(&sampled), "{sampled} of 4000");
        // What was not sampled says so to the next hop.
        let mut fields = Fields::new();
        while plan.trace(&mut fields, false, &ids).is_some() {}
        assert!(fields.get(TRACE_PARENT).is_some_and(|text| text.ends_with(b"-00")));
    }
}
