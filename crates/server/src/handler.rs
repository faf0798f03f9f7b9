//! Handlers: what answers a request. A closed set with one match, so that adding one is a variant and a folder,
//! and the compiler finds every place.

use crate::admin::Admin;
use crate::apps::Application;
use crate::apps::fastcgi::FastCgi;
use crate::apps::service::InProcess;
use crate::echo::Echo;
use crate::files::Files;
use crate::fixed::{Fixed, Redirect};
use crate::overload::gated::{Gate, Gated};
use crate::proxy::Gateway;
use crate::proxy::asking::Soon;
use crate::proxy::caching::Caching;
use crate::proxy::open::OpenProxy;
use crate::request::Request;
use crate::response::Response;
use crate::worker::Worker;
use eleven_semantics::Method;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// A handler's answer.
pub enum Handled {
    /// At once, without waiting: the fast path.
    Ready(Response),
    /// Probably in a moment: whoever has the answer written polls it.
    Soon(Soon),
    /// When the future is done. The request was taken along.
    Later(Pin<Box<dyn Future<Output = Response>>>),
}

impl Handled {
    /// Boxes a future of a response.
    pub fn later(future: impl Future<Output = Response> + 'static) -> Handled {
        Handled::Later(Box::pin(future))
    }
}

impl From<Response> for Handled {
    fn from(response: Response) -> Self {
        Handled::Ready(response)
    }
}

/// What answers a request.
#[derive(Debug)]
pub enum Handler {
    /// The diagnostic origin server.
    Echo(Echo),
    /// The origin server of a directory tree.
    Files(Files),
    /// The gateway to other servers.
    Gateway(Rc<Gateway>),
    /// Another one, with a cache in front.
    Caching(Rc<Caching>),
    /// Another one, which so many requests may keep busy at once.
    Gated(Rc<Gated>),
    /// The forward proxy.
    Forward(Rc<OpenProxy>),
    /// A redirection.
    Redirect(Redirect),
    /// Always the same response.
    Fixed(Fixed),
    /// A Python application in worker processes.
    Application(Arc<Application>),
    /// Scripts behind a FastCGI server.
    FastCgi(Rc<FastCgi>),
    /// A service of this process.
    InProcess(InProcess),
    /// What the server tells of itself.
    Admin(Rc<Admin>),
}

impl Handler {
    /// This handler behind a gate, its own or that of the worker, if it waits for somebody else; others cost less than
    /// a refusal.
    #[must_use]
    pub fn gated(self, own: Option<Rc<Gate>>) -> Handler {
        match self {
            Handler::Gateway(_)
            | Handler::Forward(_)
            | Handler::Application(_)
            | Handler::FastCgi(_)
            | Handler::InProcess(_) => Handler::Gated(Gated::new(self, own)),
            other => other,
        }
    }

    /// The handler itself, without a gate before it.
    pub fn inner(&self) -> &Handler {
        match self {
            Handler::Gated(gated) => gated.handler(),
            other => other,
        }
    }

    /// Answers a request. A handler that answers later takes it with [`Request::take`].
    pub fn handle(&self, request: &mut Request, worker: &Rc<Worker>) -> Handled {
        match self {
            Handler::Echo(echo) => echo.handle(request),
            Handler::Files(files) => files.handle(request, &worker.lend_to_files()),
            Handler::Gateway(gateway) => gateway.handle(request),
            Handler::Caching(caching) => caching.handle(request, worker),
            Handler::Gated(gated) => gated.handle(request, worker),
            Handler::Forward(proxy) => proxy.handle(request),
            Handler::Redirect(redirect) => redirect.handle(request).into(),
            Handler::Fixed(fixed) => fixed.handle(request).into(),
            Handler::Application(application) => application.handle(request),
            Handler::FastCgi(fastcgi) => fastcgi.handle(request, worker),
            Handler::InProcess(service) => service.handle(request),
            Handler::Admin(admin) => admin.handle(request, worker),
        }
    }

    /// Whether CONNECT may reach it.
    pub fn takes_connect(&self) -> bool {
        match self {
            Handler::Caching(caching) => caching.behind().takes_connect(),
            other => matches!(other.inner(), Handler::Forward(_)),
        }
    }

    /// Whether it answers a request of this method without taking it along.
    pub fn answers_at_once(&self, method: &Method) -> bool {
        match self {
            Handler::Redirect(_) | Handler::Fixed(_) => true,
            Handler::Files(_) => matches!(method, Method::Get | Method::Head),
            Handler::Echo(_)
            | Handler::InProcess(_)
            | Handler::Gateway(_)
            | Handler::Caching(_)
            | Handler::Gated(_)
            | Handler::Forward(_)
            | Handler::Application(_)
            | Handler::FastCgi(_)
            | Handler::Admin(_) => false,
        }
    }

    /// Its kind, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Handler::Echo(_) => "echo",
            Handler::Files(_) => "files",
            Handler::Gateway(_) => "proxy",
            Handler::Caching(caching) => caching.behind().name(),
            Handler::Gated(gated) => gated.handler().name(),
            Handler::Forward(_) => "forward",
            Handler::Redirect(_) => "redirect",
            Handler::Fixed(_) => "fixed",
            Handler::Application(_) => "application",
            Handler::FastCgi(_) => "fastcgi",
            Handler::InProcess(_) => "service",
            Handler::Admin(_) => "admin",
        }
    }
}
