//! Cross-origin resource sharing (the Fetch standard): which origins' scripts may read responses. A preflight is answered
//! here and never reaches the handler; for other requests this adds fields to the response. `Vary: Origin` is sent
//! whenever the answer depends on Origin, so that a cache does not give one origin what was granted to another.

use eleven_semantics::{Fields, Known, Method};

/// The policy of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may read, as browsers send them; `None` for all.
    pub origins: Option<Box<[Box<str>]>>,
    /// Methods that a preflight grants.
    pub methods: Box<str>,
    /// Request fields that a preflight grants.
    pub request_fields: Box<str>,
    /// Response fields that scripts may read.
    pub expose: Box<str>,
    /// Whether cookies and credentials may be sent along.
    pub credentials: bool,
    /// How long a preflight holds, in seconds.
    pub max_age_s: u64,
}

impl Cors {
    /// Whether a request is a preflight: OPTIONS with Origin and Access-Control-Request-Method.
    pub fn is_preflight(method: &Method, fields: &Fields) -> bool {
        *method == Method::Options
            && fields.contains(Known::Origin)
            && fields.contains(Known::AccessControlRequestMethod)
    }

    /// The method that a preflight asks about: routes are chosen by it.
    pub fn preflight_method(method: &Method, fields: &Fields) -> Option<Method> {
        if !Cors::is_preflight(method, fields) {
            return None;
        }
        fields.only(Known::AccessControlRequestMethod).one().and_then(Method::from_bytes)
    }

    /// Whether the origin of a request may read the response. Only an exact match counts: no suffixes, no `null`.
    fn grants<'a>(&self, fields: &'a Fields) -> Option<&'a [u8]> {
        let origin = fields.only(Known::Origin).one()?;
        match &self.origins {
            None => Some(origin),
            Some(list) => list.iter().any(|allowed| allowed.as_bytes() == origin).then_some(origin),
        }
    }

    /// Adds to a response what lets the scripts of the request's origin read it.
    pub fn decorate(&self, request: &Fields, response: &mut Fields) {
        self.grant(request, response);
        if !self.expose.is_empty() && self.grants(request).is_some() {
            let _ = response.set("Access-Control-Expose-Headers", self.expose.as_bytes());
        }
    }

    fn grant(&self, request: &Fields, response: &mut Fields) {
        // The field is the policy's alone: an application behind must not widen it by a second line.
        response.remove(Known::AccessControlAllowOrigin);
        response.remove("Access-Control-Allow-Credentials");
        let any = self.origins.is_none() && !self.credentials;
        if !any {
            add_vary(response, "Origin");
        }
        let Some(origin) = self.grants(request) else { return };
        let value: &[u8] = if any { b"*" } else { origin };
        let _ = response.set(Known::AccessControlAllowOrigin, value);
        if self.credentials {
            let _ = response.set("Access-Control-Allow-Credentials", "true");
        }
    }

    /// The fields that answer a preflight, with 204. What is not granted is simply not there.
    pub fn answer_preflight(&self, request: &Fields) -> Fields {
        let mut response = Fields::new();
        self.grant(request, &mut response);
        if self.grants(request).is_some() {
            let _ = response.set("Access-Control-Allow-Methods", self.methods.as_bytes());
            if !self.request_fields.is_empty() {
                let _ = response.set("Access-Control-Allow-Headers", self.request_fields.as_bytes());
            }
            let _ = response.set("Access-Control-Max-Age", self.max_age_s.to_string());
        }
        response
    }
}

/// Adds a member to Vary, unless it is there or Vary is `*`.
pub(crate) fn add_vary(fields: &mut Fields, name: &str) {
    if !fields.has_member(Known::Vary, name) && !fields.has_member(Known::Vary, "*") {
        let _ = fields.push(Known::Vary, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: Option<&[&str]>, credentials: bool) -> Cors {
        Cors {
            origins: origins.map(|list| list.iter().map(|&origin| origin.into()).collect()),
            methods: "GET, PUT".into(),
            request_fields: "X-Token".into(),
            expose: "ETag".into(),
            credentials,
            max_age_s: 600,
        }
    }

    fn text(fields: &Fields) -> String {
        String::from_utf8(fields.wire().to_vec()).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn only_named_origins_may_read() {
        let named = cors(Some(&["https://app.test"]), true);
        for (origin, granted) in [
            ("https://app.test", true),
            ("https://app.test.evil", false),
            ("https://evil/https://app.test", false),
            ("http://app.test", false),
            ("null", false),
            ("https://APP.test", false),
        ] {
            let mut response = Fields::from_iter(&[("Access-Control-Allow-Origin", "*")]);
            named.decorate(&Fields::from_iter(&[("Origin", origin)]), &mut response);
            let expected = if granted {
                format!(
                    "Vary: Origin\nAccess-Control-Allow-Origin: {origin}\nAccess-Control-Allow-Credentials: true\nAccess-Control-Expose-Headers: ETag\n"
                )
            } else {
                "Vary: Origin\n".to_owned()
            };
            assert_eq!(text(&response), expected, "{origin}");
        }
        // Without Origin too: a cache must learn that the answer depends on it.
        let mut response = Fields::from_iter(&[("Vary", "Accept-Encoding")]);
        named.decorate(&Fields::new(), &mut response);
        assert_eq!(text(&response), "Vary: Accept-Encoding\nVary: Origin\n");
        let mut response = Fields::new();
        cors(None, false).decorate(&Fields::from_iter(&[("Origin", "https://a")]), &mut response);
        assert_eq!(text(&response), "Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: ETag\n");
    }

    #[test]
    fn preflights() {
        let ask =
            Fields::from_iter(&[("Origin", "https://app.test"), ("Access-Control-Request-Method", "PUT")]);
        assert_eq!(Cors::preflight_method(&Method::Options, &ask), Some(Method::Put));
        assert_eq!(Cors::preflight_method(&Method::Get, &ask), None);
        assert!(!Cors::is_preflight(&Method::Options, &Fields::from_iter(&[("Origin", "https://app.test")])));
        assert_eq!(
            text(&cors(Some(&["https://app.test"]), false).answer_preflight(&ask)),
            "Vary: Origin\nAccess-Control-Allow-Origin: https://app.test\nAccess-Control-Allow-Methods: GET, PUT\nAccess-Control-Allow-Headers: X-Token\nAccess-Control-Max-Age: 600\n"
        );
        assert_eq!(
            text(&cors(Some(&["https://other.test"]), false).answer_preflight(&ask)),
            "Vary: Origin\n"
        );
    }
}
