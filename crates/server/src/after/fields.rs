//! What a configuration changes in the fields of responses: removed, set, added, presets of security fields, and
//! Cache-Control with Expires by media type. Framing and the connection's fields are out of its reach (they are
//! written by messaging, and the configuration is refused if it names them).

use eleven_semantics::date::HttpDate;
use eleven_semantics::media_type::MediaType;
use eleven_semantics::target::Scheme;
use eleven_semantics::{Fields, Known, Status};

/// Names that no configuration may change: framing, the connection, and what is computed from content.
pub fn is_reserved(name: &str) -> bool {
    Known::lookup(name.as_bytes()).is_some_and(|known| {
        known.is_hop_by_hop()
            || matches!(known, Known::ContentLength | Known::Date | Known::ContentRange | Known::Trailer)
    })
}

/// A field line of the configuration. Both were checked to be valid there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Name.
    pub name: Box<str>,
    /// Value.
    pub value: Box<str>,
}

/// Changes to the fields of a route's responses, in the order they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldRules {
    /// Taken away.
    pub remove: Box<[Box<str>]>,
    /// Set in place of what is there.
    pub set: Box<[Line]>,
    /// Added to what is there.
    pub add: Box<[Line]>,
    /// Whether that is done for responses of 400 and above too.
    pub on_errors: bool,
    /// Set if not there (security presets); on errors too, for those are shown in a browser like any other.
    pub preset: Box<[Line]>,
    /// As `preset`, but on secured connections only: Strict-Transport-Security means nothing over plain http.
    pub preset_secured: Box<[Line]>,
    /// Cache-Control by media type; the first that fits.
    pub cache: Box<[CacheRule]>,
    /// Cache-Control where no rule fits.
    pub cache_fallback: Option<Box<str>>,
}

/// Cache-Control for some media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// Which.
    pub types: TypeSet,
    /// The value of Cache-Control.
    pub value: Box<str>,
    /// Send Expires this many seconds from now, for caches of HTTP/1.0.
    pub expires_s: Option<u32>,
}

impl FieldRules {
    /// Whether there is nothing to do at all.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
            && self.preset.is_empty()
            && self.preset_secured.is_empty()
            && self.cache.is_empty()
            && self.cache_fallback.is_none()
    }

    /// Whether the same is made of the same response whenever it is made.
    pub fn is_constant(&self) -> bool {
        self.cache.iter().all(|rule| rule.expires_s.is_none())
    }

    /// Makes the changes. `unstated` is the media type of the 200 in place of a 206 or 304 that does not say it
    /// (9110-15.3.7-02, 9110-15.4.5-01: they carry the Cache-Control that the 200 would).
    pub fn apply<'a>(
        &self,
        status: Status,
        fields: &mut Fields,
        scheme: Scheme,
        unstated: impl FnOnce() -> Option<&'a [u8]>,
        now: HttpDate,
    ) {
        let error = status.code() >= 400;
        if !error {
            self.cache(status, fields, unstated, now);
        }
        if !error || self.on_errors {
            for name in &self.remove {
                fields.remove(&**name);
            }
            for line in &self.set {
                let _ = fields.set(&*line.name, line.value.as_bytes());
            }
            for line in &self.add {
                let _ = fields.push(&*line.name, line.value.as_bytes());
            }
        }
        let secured = if scheme == Scheme::Https { &self.preset_secured[..] } else { &[] };
        for line in self.preset.iter().chain(secured) {
            if !fields.contains(&*line.name) {
                let _ = fields.push(&*line.name, line.value.as_bytes());
            }
        }
    }

    fn cache<'a>(
        &self,
        status: Status,
        fields: &mut Fields,
        unstated: impl FnOnce() -> Option<&'a [u8]>,
        now: HttpDate,
    ) {
        if (self.cache.is_empty() && self.cache_fallback.is_none())
            || fields.contains(Known::CacheControl)
            || fields.contains(Known::Expires)
        {
            return;
        }
        let is_partial = matches!(status, Status::PARTIAL_CONTENT | Status::NOT_MODIFIED);
        // Several parts have a type of their own kind.
        let stated = fields
            .get(Known::ContentType)
            .filter(|media| !(is_partial && media.starts_with(b"multipart/byteranges")));
        let media = stated.or_else(|| if is_partial { unstated() } else { None });
        let rule = media.and_then(|media| self.cache.iter().find(|rule| rule.types.contains(media)));
        let expires = rule.and_then(|rule| rule.expires_s);
        if let Some(value) = rule.map(|rule| &*rule.value).or(self.cache_fallback.as_deref()) {
            let _ = fields.push(Known::CacheControl, value.as_bytes());
        }
        if let Some(seconds) = expires {
            let _ = fields.push(Known::Expires, HttpDate(now.0.saturating_add(i64::from(seconds))).imf());
        }
    }
}

/// A set of media types: `text/html`, `text/*`, `application/*+json`, `*/*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeSet(Box<[TypePattern]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct TypePattern {
    /// Lower case; `None` for `*`.
    top: Option<Box<str>>,
    sub: SubPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SubPattern {
    Any,
    Is(Box<str>),
    /// `*+json`: everything that ends so.
    Ends(Box<str>),
}

impl TypeSet {
    /// Reads patterns; gives the first back that is none.
    ///
    /// # Errors
    /// With the index of the pattern.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<TypeSet, usize> {
        let read = |(index, pattern): (usize, &str)| {
            let (top, sub) = pattern.split_once('/').ok_or(index)?;
            let token =
                |text: &str| eleven_semantics::grammar::is_token(text.as_bytes()) && !text.contains('*');
            let top = match top {
                "*" => None,
                top if token(top) => Some(top.to_ascii_lowercase().into()),
                _ => return Err(index),
            };
            let sub = match sub {
                "*" => SubPattern::Any,
                sub if token(sub) => SubPattern::Is(sub.to_ascii_lowercase().into()),
                sub => match sub.strip_prefix('*') {
                    Some(end) if end.starts_with('+') && token(end) => {
                        SubPattern::Ends(end.to_ascii_lowercase().into())
                    }
                    _ => return Err(index),
                },
            };
            if top.is_none() && sub != SubPattern::Any { Err(index) } else { Ok(TypePattern { top, sub }) }
        };
        patterns.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(TypeSet)
    }

    /// Whether a value of Content-Type is one of them.
    pub fn contains(&self, content_type: &[u8]) -> bool {
        let Some(media) = MediaType::parse(content_type) else { return false };
        self.0.iter().any(|pattern| {
            pattern.top.as_ref().is_none_or(|top| media.top.eq_ignore_ascii_case(top.as_bytes()))
                && match &pattern.sub {
                    SubPattern::Any => true,
                    SubPattern::Is(sub) => media.sub.eq_ignore_ascii_case(sub.as_bytes()),
                    SubPattern::Ends(end) => {
                        let at = media.sub.len().checked_sub(end.len());
                        at.is_some_and(|at| at > 0 && media.sub[at..].eq_ignore_ascii_case(end.as_bytes()))
                    }
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> Line {
        Line { name: name.into(), value: value.into() }
    }

    fn text(fields: &Fields) -> String {
        String::from_utf8(fields.wire().to_vec()).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn removed_set_added_and_preset() {
        let rules = FieldRules {
            remove: ["X-Powered-By".into()].into(),
            set: [line("Server", "mine")].into(),
            add: [line("Link", "</a>; rel=preload")].into(),
            preset: [line("X-Content-Type-Options", "nosniff")].into(),
            preset_secured: [line("Strict-Transport-Security", "max-age=1")].into(),
            ..FieldRules::default()
        };
        let apply = |status, scheme, before: &[(&str, &str)]| {
            let mut fields = Fields::from_iter(before);
            rules.apply(status, &mut fields, scheme, || None, HttpDate(0));
            text(&fields)
        };
        assert_eq!(
            apply(Status::OK, Scheme::Http, &[("x-powered-by", "php"), ("SERVER", "x"), ("Link", "</b>")]),
            "Link: </b>\nServer: mine\nLink: </a>; rel=preload\nX-Content-Type-Options: nosniff\n"
        );
        assert_eq!(
            apply(Status::NOT_FOUND, Scheme::Https, &[("X-Content-Type-Options", "kept")]),
            "X-Content-Type-Options: kept\nStrict-Transport-Security: max-age=1\n"
        );
        for name in
            ["Content-Length", "transfer-encoding", "Connection", "Date", "Upgrade", "Content-Range", "TE"]
        {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["Server", "X-Any", "Cache-Control", "ETag"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    /// 9110-15.4.5-01: the 304 says what the 200 says.
    #[test]
    fn cache_control_by_media_type() {
        let rules = FieldRules {
            cache: [CacheRule {
                types: TypeSet::parse(["image/*", "text/css"]).unwrap(),
                value: "max-age=3600".into(),
                expires_s: Some(3600),
            }]
            .into(),
            cache_fallback: Some("no-cache".into()),
            ..FieldRules::default()
        };
        let apply = |status, before: &[(&str, &str)], path_type: Option<&'static str>| {
            let mut fields = Fields::from_iter(before);
            rules.apply(
                status,
                &mut fields,
                Scheme::Http,
                || path_type.map(str::as_bytes),
                HttpDate(784_108_177),
            );
            fields.remove("Content-Type");
            text(&fields)
        };
        let cached = "Cache-Control: max-age=3600\nExpires: Sun, 06 Nov 1994 08:49:37 GMT\n";
        assert_eq!(apply(Status::OK, &[("Content-Type", "image/png")], None), cached);
        assert_eq!(apply(Status::NOT_MODIFIED, &[], Some("text/css")), cached);
        assert_eq!(apply(Status::OK, &[("Content-Type", "text/html")], None), "Cache-Control: no-cache\n");
        assert_eq!(apply(Status::OK, &[], Some("text/css")), "Cache-Control: no-cache\n");
        assert_eq!(
            apply(Status::OK, &[("Content-Type", "image/png"), ("Cache-Control", "private")], None),
            "Cache-Control: private\n"
        );
        assert_eq!(apply(Status::NOT_FOUND, &[("Content-Type", "image/png")], None), "");
    }

    #[test]
    fn sets_of_media_types() {
        let set =
            TypeSet::parse(["text/*", "application/json", "application/*+json", "IMAGE/SVG+XML"]).unwrap();
        for yes in [
            "text/html",
            "TEXT/plain; charset=utf-8",
            "application/json",
            "application/ld+json",
            "image/svg+xml",
        ] {
            assert!(set.contains(yes.as_bytes()), "{yes}");
        }
        for no in
            ["image/png", "application/jsonx", "application/+json", "application/xml", "text", "", "text/"]
        {
            assert!(!set.contains(no.as_bytes()), "{no}");
        }
        assert!(TypeSet::parse(["*/*"]).unwrap().contains(b"a/b"));
        for bad in ["text", "text/", "/x", "*/html", "text/*x", "a b/c", "text/html; charset=x", "te*t/x"] {
            assert_eq!(TypeSet::parse(["text/*", bad]), Err(1), "{bad}");
        }
    }
}
