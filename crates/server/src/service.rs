//! From a request to its handler: what is decided before any handler is asked, and the handler's answer. Waits
//! for nothing.

use crate::after::error_page::{ErrorPages, Reading};
use crate::handler::{Handled, Handler};
use crate::overload::gated::Gate;
use crate::refusal::refusal;
use crate::request::Request;
use crate::response::{Content, Response};
use crate::site_log::SiteLogs;
use crate::steps::Steps;
use crate::worker::Worker;
use eleven_messaging::Expectation;
use eleven_semantics::names::Known;
use eleven_semantics::target::Form;
use eleven_semantics::{Method, Status};
use std::rc::Rc;

/// What answers the requests of a listener.
#[derive(Debug)]
pub enum Service {
    /// One handler for everything.
    Single(Handler),
    /// Sites, routes and steps of a plan.
    Planned(Rc<Steps>),
}

impl Service {
    /// A service with one handler for everything.
    pub fn single(handler: Handler) -> Service {
        Service::Single(handler)
    }

    /// The kind of its handler, for logs; empty if it has several.
    pub fn name(&self) -> &'static str {
        match self {
            Service::Single(handler) => handler.name(),
            Service::Planned(_) => "",
        }
    }

    /// What logs of sites of their own it has.
    pub(crate) fn site_logs(&self) -> SiteLogs {
        match self {
            Service::Single(_) => SiteLogs::default(),
            Service::Planned(steps) => steps.site_logs(),
        }
    }

    /// The gates that some of its handlers have for themselves.
    pub(crate) fn gates(&self) -> &[Rc<Gate>] {
        match self {
            Service::Single(_) => &[],
            Service::Planned(steps) => steps.gates(),
        }
    }

    fn takes_connect(&self) -> bool {
        match self {
            Service::Single(handler) => handler.takes_connect(),
            Service::Planned(steps) => steps.takes_connect(),
        }
    }

    /// Answers a request.
    pub fn handle(&self, request: &mut Request, worker: &Rc<Worker>) -> Handled {
        if request.head.expectation == Expectation::Unknown {
            // 9110-10.1.1-04: an expectation that nobody here can meet.
            return refusal(Status::EXPECTATION_FAILED, "The only expectation known here is 100-continue.")
                .into();
        }
        if request.head.target.form() == Form::Asterisk {
            // OPTIONS * asks about the server as a whole (9110-9.3.7).
            let mut response = Response::new(Status::NO_CONTENT);
            response.add(Known::Allow, "GET, HEAD, OPTIONS");
            return response.into();
        }
        if request.head.method == Method::Connect && !self.takes_connect() {
            let mut response = refusal(Status::METHOD_NOT_ALLOWED, "This server is no proxy.");
            response.add(Known::Allow, "GET, HEAD, OPTIONS");
            return response.into();
        }
        if let Some(response) = crate::acme::answer(request) {
            return response.into();
        }
        if let Service::Single(handler) = self
            && request.is_short_of_tls()
            && !handler.takes_connect()
        {
            return refusal(Status::MISDIRECTED_REQUEST, "What is asked for by https is told over TLS only.")
                .into();
        }
        match self {
            Service::Single(handler) => match handler.handle(request, worker) {
                Handled::Ready(response) => {
                    Handled::Ready(worded(response, || Reading::of(&request.head.fields)))
                }
                // What is silent of an application is almost always said in its place: it died, took too long, is
                // busy. (The request has been taken along, and with it what the client likes to read.) What other
                // servers said stays as it is.
                Handled::Later(future)
                    if matches!(handler.inner(), Handler::Application(_) | Handler::FastCgi(_)) =>
                {
                    Handled::later(async move { worded(future.await, Reading::default) })
                }
                later => later,
            },
            Service::Planned(steps) => steps.handle(request, worker),
        }
    }
}

/// Gives an error without content the words of an error page.
fn worded(mut response: Response, reading: impl FnOnce() -> Reading) -> Response {
    let silent = matches!(&response.content, Content::Bytes(bytes) if bytes.is_empty());
    if silent && response.status.code() >= 400 {
        let (content, media_type) = ErrorPages::default().word(response.status, reading(), "", "");
        response.add(Known::ContentType, &*media_type);
        response.content = Content::Bytes(content);
    }
    response
}
