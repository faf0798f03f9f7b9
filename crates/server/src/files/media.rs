//! The media type of a file by the extension of its name (RFC 9110 §8.3). The content is never sniffed: what a
//! name says is what is sent. Text of the web is labelled with its charset, which for files is configured once
//! per tree and not guessed.

use std::collections::HashMap;

/// Types of the web that must be right, before a general table is asked. Lower case, sorted by extension.
const WEB: &[(&str, &str)] = &[
    ("aac", "audio/aac"),
    ("apk", "application/vnd.android.package-archive"),
    ("appcache", "text/cache-manifest"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("br", "application/x-brotli"),
    ("bz2", "application/x-bzip2"),
    ("cjs", "text/javascript"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("deb", "application/vnd.debian.binary-package"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar"),
    ("iso", "application/x-iso9660-image"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("markdown", "text/markdown"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rar", "application/vnd.rar"),
    ("rdf", "application/rdf+xml"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("toml", "application/toml"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("vtt", "text/vtt"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "text/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Longest extension that is looked up, in octets.
const EXTENSION_BYTES_MAX: usize = 24;

/// What is not in any table (RFC 9110 §8.3).
const UNKNOWN: &str = "application/octet-stream";

/// How files of one tree are labelled.
#[derive(Debug, Clone)]
pub struct MediaTypes {
    by_extension: HashMap<Box<[u8]>, Box<str>>,
    charset: Option<Box<str>>,
    fallback: Box<str>,
}

impl Default for MediaTypes {
    /// UTF-8 text, and `application/octet-stream` for what is unknown.
    fn default() -> Self {
        MediaTypes { by_extension: HashMap::new(), charset: Some("utf-8".into()), fallback: UNKNOWN.into() }
    }
}

impl MediaTypes {
    /// Labels files of this extension (without its dot, in any case) as `media_type`, exactly as written: no
    /// charset is added.
    pub fn set(&mut self, extension: &str, media_type: &str) {
        self.by_extension.insert(extension.to_ascii_lowercase().into_bytes().into(), media_type.into());
    }

    /// Labels text with this charset, or with none.
    pub fn set_charset(&mut self, charset: Option<&str>) {
        self.charset = charset.map(Into::into);
    }

    /// Labels files of unknown or no extension.
    pub fn set_fallback(&mut self, media_type: &str) {
        self.fallback = media_type.into();
    }

    /// The value of Content-Type for a file of this name; a path before the name does no harm.
    pub fn content_type(&self, name: &[u8]) -> String {
        let mut buffer = [0u8; EXTENSION_BYTES_MAX];
        let Some(extension) = extension(name, &mut buffer) else { return self.fallback.to_string() };
        if let Some(configured) = self.by_extension.get(extension.as_bytes()) {
            return configured.to_string();
        }
        let found = match WEB.binary_search_by_key(&extension, |(extension, _)| extension) {
            Ok(index) => Some(WEB[index].1),
            Err(_) => mime_guess::from_ext(extension).first_raw(),
        };
        match (found, &self.charset) {
            (None, _) => self.fallback.to_string(),
            (Some(found), Some(charset)) if takes_charset(found) => format!("{found}; charset={charset}"),
            (Some(found), _) => found.to_owned(),
        }
    }
}

/// Whether a type has the parameter charset. JSON, YAML and the like are UTF-8 by definition and have none.
fn takes_charset(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || matches!(
            media_type,
            "application/xhtml+xml" | "application/atom+xml" | "application/rss+xml" | "application/rdf+xml"
        )
        || media_type == "image/svg+xml"
}

/// The extension of a file name in lower case. `None` if there is none, or nothing a table could hold.
fn extension<'b>(name: &[u8], buffer: &'b mut [u8; EXTENSION_BYTES_MAX]) -> Option<&'b str> {
    let name = name.rsplit(|&b| b == b'/').next()?;
    let dot = name.iter().rposition(|&b| b == b'.')?;
    let extension = &name[dot + 1..];
    // `.profile` is a hidden file without extension.
    if dot == 0 || extension.is_empty() || extension.len() > EXTENSION_BYTES_MAX || !extension.is_ascii() {
        return None;
    }
    let lower = &mut buffer[..extension.len()];
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_semantics::media_type::MediaType;

    #[test]
    fn the_table_is_sorted_and_well_formed() {
        assert!(WEB.is_sorted_by(|a, b| a.0 < b.0));
        for (extension, media_type) in WEB {
            assert!(extension.len() <= EXTENSION_BYTES_MAX);
            assert!(MediaType::parse(media_type.as_bytes()).is_some(), "{media_type}");
        }
    }

    /// 9110-8.3-01: known types by name, whatever the case; text with its charset, all else without.
    #[test]
    fn by_extension() {
        let types = MediaTypes::default();
        for (name, expected) in [
            (&b"index.html"[..], "text/html; charset=utf-8"),
            (b"/a/b.c/INDEX.HTML", "text/html; charset=utf-8"),
            (b"a.tar.gz", "application/gzip"),
            (b"style.css", "text/css; charset=utf-8"),
            (b"app.js", "text/javascript; charset=utf-8"),
            (b"data.json", "application/json"),
            (b"x.wasm", "application/wasm"),
            (b"x.svg", "image/svg+xml; charset=utf-8"),
            (b"x.png", "image/png"),
            (b"x.woff2", "font/woff2"),
            (b"x.epub", "application/epub+zip"),
            (b"x.c", "text/plain; charset=utf-8"),
            (b"README", "application/octet-stream"),
            (b"a.", "application/octet-stream"),
            (b".html", "application/octet-stream"),
            (b"a.html/", "application/octet-stream"),
            (b"a.html/b", "application/octet-stream"),
            (b"a.xyzzy", "application/octet-stream"),
            (b"a.ht\xc3\xa9", "application/octet-stream"),
            (b"a.html\x1b", "application/octet-stream"),
            (b"a.htmlhtmlhtmlhtmlhtmlhtmlhtmlhtml", "application/octet-stream"),
            (b"", "application/octet-stream"),
        ] {
            assert_eq!(types.content_type(name), expected, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn configured_types_win() {
        let mut types = MediaTypes::default();
        types.set("HTML", "text/html; charset=shift_jis");
        types.set("foo", "application/x-foo");
        types.set_charset(None);
        types.set_fallback("text/plain");
        for (name, expected) in [
            (&b"a.html"[..], "text/html; charset=shift_jis"),
            (b"a.foo", "application/x-foo"),
            (b"a.css", "text/css"),
            (b"README", "text/plain"),
            (b"a.xyzzy", "text/plain"),
        ] {
            assert_eq!(types.content_type(name), expected);
        }
    }
}
