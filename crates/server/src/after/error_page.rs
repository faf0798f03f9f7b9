//! How errors are worded: a plain page for people, `application/problem+json` (RFC 9457) for programs, one line for
//! everybody else, chosen by Accept (9110-15.5-01); or the site's own pages. Nothing of the request is echoed (faults L11 to
//! L13), and the content never depends on credentials.

use bytes::Bytes;
use eleven_semantics::media_type::MediaType;
use eleven_semantics::negotiation::media_quality;
use eleven_semantics::{Fields, Status};
use std::sync::Arc;

/// What the client wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// One line of text.
    #[default]
    Text,
    /// A page.
    Html,
    /// A problem document.
    Json,
}

impl Reading {
    /// By Accept. Those who take anything get one line: they are command-line tools.
    pub fn of(fields: &Fields) -> Reading {
        let quality =
            |text: &str| MediaType::parse(text.as_bytes()).map_or(0, |media| media_quality(fields, &media));
        let html = quality("text/html");
        let json = quality("application/problem+json").max(quality("application/json"));
        let text = quality("text/plain");
        if html > text && html >= json {
            Reading::Html
        } else if json > text || (json > 0 && text == 0) {
            Reading::Json
        } else if text == 0 && html > 0 {
            Reading::Html
        } else {
            Reading::Text
        }
    }
}

/// The site's own pages.
#[derive(Debug, Clone, Default)]
pub struct ErrorPages {
    pages: Vec<(StatusSet, Page)>,
}

/// Which statuses a page is for: one, or a whole class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusSet {
    /// This one.
    One(u16),
    /// 400 to 499, or 500 to 599: the first digit.
    Class(u16),
}

impl StatusSet {
    /// Reads `404` or `5xx`.
    pub fn parse(text: &str) -> Option<StatusSet> {
        match text.as_bytes() {
            [class @ (b'4' | b'5'), b'x' | b'X', b'x' | b'X'] => {
                Some(StatusSet::Class(u16::from(class - b'0')))
            }
            [b'4' | b'5', _, _] => {
                eleven_semantics::grammar::decimal(text.as_bytes()).map(|code| StatusSet::One(code as u16))
            }
            _ => None,
        }
    }

    fn contains(self, code: u16) -> bool {
        match self {
            StatusSet::One(one) => one == code,
            StatusSet::Class(class) => code / 100 == class,
        }
    }
}

/// A page of the site.
#[derive(Debug, Clone)]
pub enum Page {
    /// Sent as it is, with this media type.
    Fixed(Bytes, Box<str>),
    /// Filled in.
    Template(Arc<minijinja::Environment<'static>>),
}

impl Page {
    /// Reads a template.
    ///
    /// # Errors
    /// If minijinja does not understand it; the message says where.
    pub fn template(source: String) -> Result<Page, minijinja::Error> {
        let mut environment = minijinja::Environment::new();
        // A template that loops must not hold a worker.
        environment.set_recursion_limit(32);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
        environment.add_template_owned("page", source)?;
        Ok(Page::Template(Arc::new(environment)))
    }
}

impl ErrorPages {
    /// Adds a page; the first that fits is taken, one status before a class.
    pub fn push(&mut self, statuses: StatusSet, page: Page) {
        self.pages.push((statuses, page));
    }

    fn find(&self, code: u16) -> Option<&Page> {
        let one = self.pages.iter().find(|(statuses, _)| *statuses == StatusSet::One(code));
        one.or_else(|| self.pages.iter().find(|(statuses, _)| statuses.contains(code))).map(|(_, page)| page)
    }

    /// Whether the site has a page for this status.
    pub fn has(&self, status: Status) -> bool {
        self.find(status.code()).is_some()
    }

    /// Content and its media type for an error. `detail` is our own sentence, never the client's words.
    pub fn word(
        &self,
        status: Status,
        reading: Reading,
        detail: &str,
        request_id: &str,
    ) -> (Bytes, Box<str>) {
        match reading {
            Reading::Json => (problem(status, detail, request_id), "application/problem+json".into()),
            Reading::Text if self.find(status.code()).is_none() => {
                (text(status, detail), "text/plain; charset=utf-8".into())
            }
            _ => match self.find(status.code()) {
                Some(Page::Fixed(content, media_type)) => (content.clone(), media_type.clone()),
                Some(Page::Template(environment)) => fill_in(environment, status, detail, request_id)
                    .unwrap_or_else(|error| {
                        tracing::error!(%error, "error page: the template failed");
                        html(status, detail)
                    }),
                None => html(status, detail),
            },
        }
    }
}

const HTML: &str = "text/html; charset=utf-8";

fn fill_in(
    environment: &minijinja::Environment<'static>,
    status: Status,
    detail: &str,
    request_id: &str,
) -> Result<(Bytes, Box<str>), minijinja::Error> {
    let context =
        minijinja::context! { status => status.code(), phrase => phrase(status), detail, request_id };
    let page = environment.get_template("page")?.render(context)?;
    Ok((page.into(), HTML.into()))
}

fn phrase(status: Status) -> &'static str {
    match status.phrase() {
        "" => "Error",
        phrase => phrase,
    }
}

/// What a status means, for a person who did not write the program.
fn meaning(status: Status) -> &'static str {
    match status.code() {
        400 => "The request could not be understood.",
        401 => "A user name and a password are needed here.",
        403 => "This may not be seen from here.",
        404 => "There is nothing at this address.",
        405 => "This cannot be done here.",
        406 => "This is not to be had in a form that was asked for.",
        408 => "The request took too long to arrive.",
        409 => "This is in the way of something that is already there.",
        410 => "What was here is gone for good.",
        411 => "The request must say how long its content is.",
        412 => "This has changed in the meantime.",
        413 => "What was sent is too large.",
        414 => "The address is too long.",
        415 => "What was sent is of a kind that is not taken here.",
        416 => "This part does not exist.",
        417 => "What the request expects cannot be given.",
        421 => "This server does not answer for that name.",
        426 => "Another protocol is needed here.",
        429 => "Too many requests came from there. Wait a little.",
        431 => "The head of the request is too large.",
        500 => "Something went wrong here.",
        501 => "This server cannot do that.",
        502 => "The server behind this one gave no proper answer.",
        503 => "This is not available at the moment. Try again later.",
        504 => "The server behind this one did not answer in time.",
        505 => "This version of HTTP is not spoken here.",
        507 => "There is no room left for this.",
        code if code < 500 => "The request cannot be answered.",
        _ => "The server cannot answer.",
    }
}

fn text(status: Status, detail: &str) -> Bytes {
    let detail = if detail.is_empty() { meaning(status) } else { detail };
    format!("{} {}: {detail}\n", status.code(), phrase(status)).into()
}

fn problem(status: Status, detail: &str, request_id: &str) -> Bytes {
    let mut object = serde_json::json!({
        "type": "about:blank",
        "title": phrase(status),
        "status": status.code(),
        "detail": if detail.is_empty() { meaning(status) } else { detail },
    });
    if !request_id.is_empty() {
        object["instance"] = format!("urn:request:{request_id}").into();
    }
    format!("{object}\n").into()
}

fn html(status: Status, detail: &str) -> (Bytes, Box<str>) {
    let (code, phrase, meaning) = (status.code(), phrase(status), meaning(status));
    let detail = if detail.is_empty() { String::new() } else { format!("<p>{}</p>\n", escape(detail)) };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{code} {phrase}</title>\n\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}}\
         h1{{font-size:1.6rem}}</style>\n<h1>{code} {phrase}</h1>\n<p>{meaning}</p>\n{detail}"
    );
    (page.into(), HTML.into())
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9110-15.5-01: browsers get a page, programs a problem document, tools one line.
    #[test]
    fn who_reads_what() {
        for (accept, expected) in [
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
                Reading::Html,
            ),
            (Some("application/json"), Reading::Json),
            (Some("application/json, text/plain, */*"), Reading::Text),
            (Some("application/problem+json, */*;q=0.1"), Reading::Json),
            (Some("application/vnd.api+json"), Reading::Text),
            (Some("*/*"), Reading::Text),
            (Some("text/*"), Reading::Text),
            (Some("text/html"), Reading::Html),
            (Some("text/plain;q=0, */*"), Reading::Html),
            (Some("image/png"), Reading::Text),
            (None, Reading::Text),
        ] {
            let mut fields = Fields::new();
            if let Some(accept) = accept {
                fields.push("Accept", accept).unwrap();
            }
            assert_eq!(Reading::of(&fields), expected, "{accept:?}");
        }
    }

    fn word(pages: &ErrorPages, status: u16, reading: Reading, detail: &str) -> (String, String) {
        let (content, media) = pages.word(Status::new(status).unwrap(), reading, detail, "id-1");
        (String::from_utf8(content.to_vec()).unwrap(), media.into())
    }

    /// Fault L11: whatever a detail holds stays text.
    #[test]
    fn built_in_wording() {
        let none = ErrorPages::default();
        let (page, media) = word(&none, 404, Reading::Html, "<script>&\"");
        assert!(page.contains("<h1>404 Not Found</h1>") && media.starts_with("text/html"), "{page}");
        assert!(page.contains("&lt;script&gt;&amp;&quot;") && !page.contains("<script>"), "{page}");
        let (json, media) = word(&none, 503, Reading::Json, "a \"quote\"\n");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((media.as_str(), value["status"].as_u64()), ("application/problem+json", Some(503)));
        assert_eq!(value["detail"], "a \"quote\"\n");
        let (line, _) = word(&none, 429, Reading::Text, "");
        assert_eq!(line, "429 Too Many Requests: Too many requests came from there. Wait a little.\n");
        for code in 400..=599 {
            let (page, _) = word(&none, code, Reading::Html, "");
            assert!(page.contains(&code.to_string()) && !page.contains("<h1>  "), "{page}");
        }
    }

    #[test]
    fn own_pages() {
        let mut pages = ErrorPages::default();
        pages.push(StatusSet::parse("4xx").unwrap(), Page::Fixed("other".into(), "text/html".into()));
        pages.push(
            StatusSet::parse("404").unwrap(),
            Page::template("{{ status }} {{ phrase }} {{ detail }} {{ request_id }}".into()).unwrap(),
        );
        pages.push(StatusSet::parse("500").unwrap(), Page::template("{{ status / 0 }}".into()).unwrap());
        assert_eq!(word(&pages, 404, Reading::Html, "<b>").0, "404 Not Found &lt;b&gt; id-1");
        assert_eq!(word(&pages, 403, Reading::Html, "").0, "other");
        assert_eq!(word(&pages, 403, Reading::Text, "").0, "other");
        assert!(word(&pages, 403, Reading::Json, "").0.contains("\"status\":403"));
        assert!(word(&pages, 503, Reading::Html, "").0.contains("503"), "no page: the built-in one");
        assert!(word(&pages, 500, Reading::Html, "").0.contains("<h1>500"), "a template that fails");
        assert!(Page::template("{{ unclosed".into()).is_err());
        for bad in ["", "200", "3xx", "4x", "40", "4xxx", "abc", "4+1", "600"] {
            assert_eq!(StatusSet::parse(bad), None, "{bad}");
        }
    }
}
