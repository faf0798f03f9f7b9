//! Handlers that need nothing but their configuration: a redirection (RFC 9110 §15.4), and a response that is always
//! the same (410 for what is gone, 503 for maintenance, a short text).

use crate::before::redirect::{Place, Template};
use crate::pattern::Pattern;
use crate::plan::FixedPlan;
use crate::request::Request;
use crate::response::{Content, Response};
use eleven_semantics::{Known, Method, Status};

/// A redirection.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: Status,
    /// Where to.
    pub to: Template,
    /// How much of the path is the route's prefix.
    pub prefix_len: usize,
    /// What its path had to fit.
    pub pattern: Option<Pattern>,
    /// Host and port of the site; empty to take those asked for.
    pub host: Box<str>,
}

impl Redirect {
    /// Answers a request.
    pub fn handle(&self, request: &mut Request) -> Response {
        let path = match request.path() {
            Ok(path) => path.to_vec(),
            Err(why) => return Response::new(why.status()),
        };
        let target = &request.head.target;
        // Checked when the head was read: it holds nothing but a host and a port.
        let asked = target.authority().or_else(|| request.head.fields.get(Known::Host)).unwrap_or_default();
        let place = Place {
            path: &path,
            prefix_len: self.prefix_len,
            query: target.query(),
            host: if self.host.is_empty() { asked } else { self.host.as_bytes() },
            scheme: request.scheme(),
            caught: self.pattern.as_ref().map(|pattern| pattern.catch(&path)).unwrap_or_default(),
        };
        let location = self.to.expand(&place);
        // HTTP/1.0 without Host, and a site without a name: there is nothing to name.
        if location.windows(4).any(|octets| octets == b":///") {
            return Response::new(Status::BAD_REQUEST);
        }
        let mut response =
            Response::text(self.status, "text/plain; charset=utf-8", format!("{}\n", self.status));
        response.add(Known::Location, location);
        response
    }
}

/// Always the same response.
#[derive(Debug, Clone)]
pub struct Fixed(pub FixedPlan);

impl Fixed {
    /// Answers a request.
    pub fn handle(&self, request: &mut Request) -> Response {
        let plan = &self.0;
        // An error is the answer to every method; a text can only be read.
        if plan.status.code() < 400 && !matches!(request.head.method, Method::Get | Method::Head) {
            let status = match &request.head.method {
                Method::Options => Status::NO_CONTENT,
                method if method.is_known() => Status::METHOD_NOT_ALLOWED,
                _ => return Response::new(Status::NOT_IMPLEMENTED),
            };
            let mut response = Response::new(status);
            response.add(Known::Allow, "GET, HEAD, OPTIONS");
            return response;
        }
        let mut response = Response::new(plan.status);
        if !plan.content.is_empty() {
            response.add(Known::ContentType, plan.media_type.as_bytes());
            response.content = Content::Bytes(plan.content.clone());
        }
        if let Some(seconds) = plan.retry_after_s {
            response.add(Known::RetryAfter, seconds.to_string());
        }
        // 9110-7.8-07, 9110-15.5.22-01: the connection option comes with it.
        if !plan.upgrade.is_empty() {
            response.add(Known::Upgrade, plan.upgrade.as_bytes());
        }
        response
    }
}
