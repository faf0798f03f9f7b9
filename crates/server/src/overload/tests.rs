//! Overload in simulated time: first the decisions alone, with so many requests a second and so much that can be done;
//! then the tasks, in front of a service that takes its time.

use super::gated::{Gate, Gated};
use super::*;
use crate::apps::service::{Body, InProcess};
use crate::handler::{Handled, Handler};
use crate::metrics::Metrics;
use crate::request::{Peer, Request};
use crate::response::Response;
use crate::service::Service;
use crate::worker::{Settings, Worker};
use eleven_net::ledger::{Caps, Ledger};
use eleven_semantics::target::Scheme;
use eleven_semantics::{Known, Method, RequestTarget, Status};
use eleven_testkit::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

fn limits(working_max: usize, waiting_max: usize) -> Limits {
    Limits { working_max, waiting_max, ..Limits::default() }
}

/// What became of the requests of a simulation, each with when it came.
#[derive(Default)]
struct Fates {
    /// How long they waited.
    admitted: Vec<(u64, u64)>,
    at_once: Vec<u64>,
    in_vain: Vec<u64>,
}

impl Fates {
    fn longest_wait(&self, from: u64) -> u64 {
        self.admitted.iter().filter(|(came, _)| *came >= from).map(|(_, wait)| *wait).max().unwrap_or(0)
    }

    fn admitted_between(&self, from: u64, to: u64) -> usize {
        self.admitted.iter().filter(|(came, wait)| (from..to).contains(&(came + wait))).count()
    }

    fn refused_from(&self, from: u64) -> usize {
        self.at_once.iter().chain(&self.in_vain).filter(|came| **came >= from).count()
    }
}

/// Lets requests come at random, `rate(now)` a second, each of which takes `work_us` on average once it is let in.
fn simulate(limits: Limits, end: u64, seed: u64, rate: impl Fn(u64) -> u64, work_us: u64) -> Fates {
    let mut rng = Rng::new(seed);
    let mut queue: Queue<u64> = Queue::new(limits);
    let mut fates = Fates::default();
    let mut done: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    let mut places: Vec<(Place, u64)> = Vec::new();
    let mut spread = move |mean: u64| 1 + rng.below(mean * 2);
    let mut comes = 0;
    while comes < end {
        let over = places.iter().map(|(place, _)| place.until_us).min();
        let next = [Some(comes), over, done.peek().map(|at| at.0)].into_iter().flatten().min().unwrap();
        if over == Some(next) {
            let at = places.iter().position(|(place, _)| place.until_us == next).unwrap();
            let (place, came) = places.remove(at);
            queue.withdraw(place.number, next);
            fates.in_vain.push(came);
        } else if done.peek().is_some_and(|at| at.0 == next) {
            done.pop();
            if let Some(came) = queue.leave(|| next) {
                places.retain(|(_, other)| *other != came);
                fates.admitted.push((came, next - came));
                done.push(Reverse(next + spread(work_us)));
            }
        } else {
            if queue.enter() {
                fates.admitted.push((next, 0));
                done.push(Reverse(next + spread(work_us)));
            } else {
                match queue.wait(next, next) {
                    Ok(place) => places.push((place, next)),
                    Err(_) => fates.at_once.push(next),
                }
            }
            comes += spread(SECOND / rate(next));
        }
        assert!(queue.working() <= limits.working_max && queue.waiting() <= limits.waiting_max);
        assert_eq!(queue.waiting(), places.len());
    }
    fates
}

/// Ten times what can be done, for twenty seconds (faults D41 and F45): who is let in is let in soon, nearly all others
/// are refused when they come, and as much is done as can be.
#[test]
fn ten_times_the_capacity() {
    for seed in 0..8 {
        // 20 at once, 50 ms each: 400 a second.
        let fates = simulate(limits(20, 1024), 20 * SECOND, seed, |_| 4000, 50 * MS);
        assert!(fates.longest_wait(0) <= SECOND, "{}", fates.longest_wait(0));
        let longest = fates.longest_wait(3 * SECOND);
        assert!(longest <= 100 * MS, "{longest}");
        let done = fates.admitted_between(0, 20 * SECOND);
        assert!((7_600..8_600).contains(&done), "{done}");
        let (at_once, in_vain) = (fates.at_once.len(), fates.in_vain.len());
        assert!(in_vain * 20 < at_once, "{in_vain} waited in vain, {at_once} were refused at once");
    }
}

/// The same where few are worked on at once, and the queue is empty by chance now and then.
#[test]
fn ten_times_a_small_capacity() {
    for seed in 0..8 {
        let fates = simulate(limits(4, 512), 20 * SECOND, seed, |_| 400, 100 * MS);
        let longest = fates.longest_wait(4 * SECOND);
        assert!(longest <= 100 * MS, "{longest}");
        let done = fates.admitted_between(0, 20 * SECOND);
        assert!((700..900).contains(&done), "{done}");
    }
}

/// What can be done is all let in, bursts wait, and after overload everything is as before.
#[test]
fn nobody_is_refused_without_need() {
    for seed in 0..8 {
        let usual = simulate(limits(20, 1024), 20 * SECOND, seed, |_| 300, 50 * MS);
        assert_eq!(usual.refused_from(0), 0);
        let burst = |now: u64| if now % (4 * SECOND) < SECOND / 10 { 2500 } else { 100 };
        let bursts = simulate(limits(20, 1024), 20 * SECOND, seed, burst, 50 * MS);
        assert_eq!(bursts.refused_from(0), 0);
        assert!(bursts.longest_wait(0) > 200 * MS);
        let over = |now: u64| if now < 5 * SECOND { 4000 } else { 200 };
        let after = simulate(limits(20, 1024), 20 * SECOND, seed, over, 50 * MS);
        assert!(after.refused_from(0) > 10_000);
        assert_eq!(after.refused_from(6 * SECOND), 0);
        assert_eq!(after.longest_wait(7 * SECOND), 0);
    }
}

/// Where nothing is done any more, waiting ends in time all the same, and what becomes free later is used.
#[test]
fn nothing_is_done_any_more() {
    let mut queue = Queue::new(limits(1, 2));
    assert!(queue.enter());
    assert!(!queue.enter());
    let first = queue.wait(0, 'a').unwrap();
    assert_eq!(first.until_us, SECOND);
    let second = queue.wait(SECOND / 2, 'b').unwrap();
    assert_eq!(queue.wait(SECOND / 2, 'c'), Err(Refused::QueueFull));
    queue.withdraw(first.number, SECOND);
    // It has stood for a second.
    let third = queue.wait(SECOND, 'd').unwrap();
    assert_eq!((second.until_us, third.until_us), (SECOND * 3 / 2, SECOND * 11 / 10));
    queue.withdraw(third.number, SECOND);
    queue.withdraw(third.number, SECOND);
    assert_eq!(queue.leave(|| SECOND), Some('b'));
    assert!(!queue.enter());
    assert_eq!(queue.leave(|| SECOND), None);
    assert!(queue.enter());
    // Nobody waits: patience is back.
    assert_eq!(queue.wait(9 * SECOND, 'e').unwrap().until_us, 10 * SECOND);
}

/// Limits may change while requests are worked on, and 0 stands for the usual number.
#[test]
fn limits_change_and_are_shared() {
    let mut queue = Queue::new(limits(2, 8));
    assert!(queue.enter() && queue.enter());
    queue.wait(0, ()).unwrap();
    queue.set_limits(limits(1, 8));
    assert_eq!(queue.leave(|| 1), None);
    assert_eq!(queue.leave(|| 2), Some(()));
    queue.set_limits(limits(0, 8));
    assert_eq!((1..WORKING_PER_WORKER).filter(|_| queue.enter()).count(), WORKING_PER_WORKER - 1);
    assert!(!queue.enter());
    assert_eq!(limits(0, 10).share(4), Limits { waiting_max: 3, ..limits(WORKING_PER_WORKER, 0) });
    assert_eq!(limits(10, 10).share(4), limits(3, 3));
    assert_eq!(limits(1, 0).share(0), limits(1, 0));
}

fn worker(limits: Limits) -> Rc<Worker> {
    let settings = Settings { overload: limits, ..Settings::default() };
    let service = Rc::new(Service::single(Handler::Echo(crate::echo::Echo)));
    let caps = Caps { connections_max: 1, connections_per_address_max: 0 };
    Worker::new(service, settings, Ledger::new(caps), None, Metrics::default().recorder())
}

/// A service that takes 50 ms for each request.
#[derive(Clone)]
struct Slow;

impl tower_service::Service<http::Request<Body>> for Slow {
    type Response = http::Response<String>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<String>, Self::Error>>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(http::Response::new("done".to_owned()))
        })
    }
}

fn request() -> Request {
    let peer =
        Peer { address: None, scheme: Scheme::Http, local_port: 80, listener: None, server_name: None };
    let mut request = Request::new(Rc::new(peer));
    request.head.target = RequestTarget::parse(&Method::Get, b"/").unwrap();
    request
}

fn gated(own: Option<Rc<Gate>>) -> Rc<Gated> {
    match Handler::InProcess(InProcess::new(Slow)).gated(own) {
        Handler::Gated(gated) => gated,
        other => panic!("{other:?}"),
    }
}

async fn answer(gated: Rc<Gated>, worker: Rc<Worker>) -> (Response, Duration) {
    let began = Instant::now();
    let response = match gated.handle(&mut request(), &worker) {
        Handled::Ready(response) => response,
        Handled::Soon(soon) => soon.into_later(0).1.await,
        Handled::Later(future) => future.await,
    };
    (response, began.elapsed())
}

/// Tests run on a paused clock: waiting costs nothing, and times are exact.
fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// 9110-15.6.4-01: who is not let in gets 503 at once, with the time to come back; the others are answered in time.
#[test]
fn the_gate_lets_in_as_many_as_may() {
    run(async {
        let worker = worker(limits(4, 8));
        let gated = gated(None);
        let asked: Vec<_> = (0..40)
            .map(|_| tokio::task::spawn_local(answer(Rc::clone(&gated), Rc::clone(&worker))))
            .collect();
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.unwrap());
        }
        let ok: Vec<_> = answers.iter().filter(|(response, _)| response.status == Status::OK).collect();
        assert_eq!(ok.len(), 12);
        assert!(ok.iter().all(|(_, took)| *took <= Duration::from_millis(160)), "{ok:?}");
        for (response, took) in answers.iter().filter(|(response, _)| response.status != Status::OK) {
            assert_eq!(response.status, Status::SERVICE_UNAVAILABLE);
            assert_eq!(*took, Duration::ZERO);
            assert_eq!(response.notes.as_ref().unwrap().refused, Some("overload-queue-full"));
            let after = response.fields.get().get(Known::RetryAfter).unwrap();
            assert!(matches!(after, b"1" | b"2" | b"3"));
        }
        assert_eq!(worker.gate().counts(), (0, 0));
    });
}

/// A client that leaves gives up its place, whether it waits, was just let in, or is worked on.
#[test]
fn who_leaves_makes_room() {
    run(async {
        let worker = worker(limits(1, 8));
        let gated = gated(None);
        let ask = || tokio::task::spawn_local(answer(Rc::clone(&gated), Rc::clone(&worker)));
        let [works, waits, leaves, stays] = [ask(), ask(), ask(), ask()];
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(worker.gate().counts(), (1, 3));
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        assert_eq!(worker.gate().counts(), (1, 2));
        works.abort();
        assert!(works.await.unwrap_err().is_cancelled());
        assert_eq!(worker.gate().counts(), (1, 1));
        // It was let in and has not noticed.
        waits.abort();
        assert!(waits.await.unwrap_err().is_cancelled());
        let (response, took) = stays.await.unwrap();
        assert_eq!((response.status, took), (Status::OK, Duration::from_millis(60)));
        assert_eq!(worker.gate().counts(), (0, 0));
    });
}

/// A route with a gate of its own leaves the others alone, and waiting has an end.
#[test]
fn a_gate_of_its_own() {
    run(async {
        let worker = worker(limits(1, 8));
        let own = Gate::new(Limits { patience_ms: 20, ..limits(1, 8) });
        let (one, other) = (gated(None), gated(Some(Rc::clone(&own))));
        let ask = |gated: &Rc<Gated>| tokio::task::spawn_local(answer(Rc::clone(gated), Rc::clone(&worker)));
        let asked = [ask(&one), ask(&other), ask(&other)];
        let mut answers = Vec::new();
        for asked in asked {
            let (response, took) = asked.await.unwrap();
            answers.push((response.status, took.as_millis()));
        }
        let expected = [(Status::OK, 50), (Status::OK, 50), (Status::SERVICE_UNAVAILABLE, 20)];
        assert_eq!(answers, expected);
        assert_eq!(own.counts(), (0, 0));
    });
}

/// What costs less than a refusal has no gate: health checks that are files or fixed responses, and the admin listener.
#[test]
fn what_is_answered_at_once_has_no_gate() {
    let echo = Handler::Echo(crate::echo::Echo).gated(None);
    assert!(matches!(echo, Handler::Echo(_)));
}
