//! The tasks of [`overload`](super): a handler that waits for somebody else, behind a gate that lets as many requests
//! through as may be worked on at once. Decides nothing.

use super::{Limits, Place, Queue, Refused};
use crate::handler::{Handled, Handler};
use crate::refusal::refusal;
use crate::request::Request;
use crate::response::Response;
use crate::worker::Worker;
use eleven_net::clock;
use eleven_semantics::Status;
use eleven_semantics::names::Known;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Clients that were refused together are asked to come back after this many different seconds, so that they do not come
/// back together.
const RETRY_AFTER_SECONDS: u32 = 3;

/// Who works and who waits, of one worker.
#[derive(Debug)]
pub struct Gate {
    queue: RefCell<Queue<oneshot::Sender<Permit>>>,
    began: Instant,
    refused: Cell<u32>,
}

/// Somebody is let in until this is dropped.
#[derive(Debug)]
pub struct Permit(Rc<Gate>);

impl Gate {
    /// A gate that nobody has gone through.
    pub fn new(limits: Limits) -> Rc<Gate> {
        Rc::new(Gate { queue: RefCell::new(Queue::new(limits)), began: clock::now(), refused: Cell::new(0) })
    }

    /// Other limits, from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.queue.borrow_mut().set_limits(limits);
    }

    /// Requests that are worked on, and that wait.
    pub fn counts(&self) -> (usize, usize) {
        let queue = self.queue.borrow();
        (queue.working(), queue.waiting())
    }

    #[inline]
    fn enter(self: &Rc<Self>) -> Option<Permit> {
        self.queue.borrow_mut().enter().then(|| Permit(Rc::clone(self)))
    }

    fn now_us(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits for a place.
    async fn wait(self: &Rc<Self>) -> Result<Permit, Refused> {
        let (sender, receiver) = oneshot::channel();
        let Place { number, until_us } = self.queue.borrow_mut().wait(self.now_us(), sender)?;
        let _waiting = Waiting { gate: self, number };
        let until = self.began + Duration::from_micros(until_us);
        match tokio::time::timeout_at(until, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refused::Waited),
        }
    }

    fn leave(self: &Rc<Self>) {
        let next = self.queue.borrow_mut().leave(|| self.now_us());
        if let Some(next) = next {
            // Whoever waits no more has taken himself out; a permit that nobody takes leaves again.
            let _ = next.send(Permit(Rc::clone(self)));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A place in the queue that is given up when this is dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now_us = self.gate.now_us();
        self.gate.queue.borrow_mut().withdraw(self.number, now_us);
    }
}

/// A handler behind a gate.
#[derive(Debug)]
pub struct Gated {
    handler: Handler,
    /// Its own; that of the worker, if it has none.
    own: Option<Rc<Gate>>,
}

impl Gated {
    /// This handler, behind a gate of its own or that of the worker.
    pub fn new(handler: Handler, own: Option<Rc<Gate>>) -> Rc<Gated> {
        Rc::new(Gated { handler, own })
    }

    /// What stands behind the gate.
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    /// Its own gate.
    pub fn own(&self) -> Option<&Rc<Gate>> {
        self.own.as_ref()
    }

    fn gate<'a>(&'a self, worker: &'a Worker) -> &'a Rc<Gate> {
        self.own.as_ref().unwrap_or_else(|| worker.gate())
    }

    /// Lets a request through, now or when it is its turn. The request is worked on until the permit is dropped.
    ///
    /// # Errors
    /// The response to one that is not let in.
    pub async fn admit(&self, worker: &Worker) -> Result<Permit, Box<Response>> {
        let gate = self.gate(worker);
        match gate.enter() {
            Some(permit) => Ok(permit),
            None => self.admit_later(worker).await,
        }
    }

    async fn admit_later(&self, worker: &Worker) -> Result<Permit, Box<Response>> {
        let gate = self.gate(worker);
        let since = clock::now();
        let result = gate.wait().await;
        if !matches!(result, Err(Refused::QueueFull | Refused::NoHope)) {
            worker.recorder().queued(since.elapsed());
        }
        result.map_err(|why| Box::new(gate.refusal(why)))
    }

    /// Answers a request once it is let in.
    pub fn handle(self: &Rc<Self>, request: &mut Request, worker: &Rc<Worker>) -> Handled {
        match self.gate(worker).enter() {
            Some(permit) => match self.handler.handle(request, worker) {
                Handled::Ready(response) => Handled::Ready(response),
                Handled::Soon(soon) => Handled::Soon(soon.holding(permit)),
                Handled::Later(future) => Handled::later(async move {
                    let _permit = permit;
                    future.await
                }),
            },
            None => {
                let (gated, worker, mut request) = (Rc::clone(self), Rc::clone(worker), request.take());
                Handled::later(async move {
                    let _permit = match gated.admit_later(&worker).await {
                        Ok(permit) => permit,
                        Err(response) => return *response,
                    };
                    match gated.handler.handle(&mut request, &worker) {
                        Handled::Ready(response) => response,
                        Handled::Soon(soon) => soon.into_later(0).1.await,
                        Handled::Later(future) => future.await,
                    }
                })
            }
        }
    }
}

impl Gate {
    /// 503, and when to come back.
    fn refusal(&self, why: Refused) -> Response {
        let count = self.refused.get();
        self.refused.set(count.wrapping_add(1));
        let mut response = refusal(
            Status::SERVICE_UNAVAILABLE,
            "There is more to do than can be done. Please try again in a moment.",
        );
        response.add(Known::RetryAfter, (count % RETRY_AFTER_SECONDS + 1).to_string());
        response.notes().refused = Some(why.name());
        response
    }
}
