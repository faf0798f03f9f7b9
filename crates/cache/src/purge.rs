//! Purging: what an operator chooses to remove or to mark stale, and whether a stored response is among it.
//! The stores carry it out; this file only compares.

use crate::stored::Stored;
use eleven_semantics::caching::key::{self, Site};
use eleven_semantics::target::{Authority, Scheme};

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    All,
    /// Every variant of one URI, under every key that names it.
    Uri(Site, Vec<u8>),
    /// Every URI of a site whose path and query begin so.
    Prefix(Site, Vec<u8>),
    /// Every response with this tag: Surrogate-Key, Cache-Tag or Cache-Groups.
    Tag(Box<str>),
    /// Every response of a site in this cache group (RFC 9875).
    Group(Site, Box<str>),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is removed.
    Hard,
    /// It is validated before its next use.
    Soft,
    /// Nothing: it is counted.
    DryRun,
}

/// Why a text names no URI to purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an absolute http or https URI: write it as http://host[:port]/path")]
pub struct NotAUri;

impl Selection {
    /// The URI written as `http://host[:port]/path?query`; with a final `*`, all that begin so.
    ///
    /// # Errors
    /// If it is not one.
    pub fn uri(text: &str) -> Result<Selection, NotAUri> {
        let (scheme, rest) = text.split_once("://").ok_or(NotAUri)?;
        let scheme = Scheme::from_bytes(scheme.as_bytes()).ok_or(NotAUri)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = Authority::parse(&rest.as_bytes()[..end]).map_err(|_| NotAUri)?;
        if authority.host.is_empty() || text.contains('#') {
            return Err(NotAUri);
        }
        let site = Site::new(scheme, &authority);
        let mut target = rest[end..].to_owned();
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        Ok(match target.strip_suffix('*') {
            Some(prefix) => Selection::Prefix(site, prefix.into()),
            None => Selection::Uri(site, target.into()),
        })
    }

    /// Whether this stored response is among it.
    pub fn chooses(&self, stored: &Stored) -> bool {
        let named = |test: &dyn Fn(&Site, &[u8]) -> bool| {
            key::read_uri(&stored.key).is_some_and(|(_, site, target)| test(&site, target))
        };
        match self {
            Selection::All => true,
            Selection::Uri(site, target) => named(&|s, t| s == site && t == target),
            Selection::Prefix(site, prefix) => named(&|s, t| s == site && t.starts_with(prefix)),
            Selection::Tag(tag) => stored.tags.all().contains(tag),
            Selection::Group(site, group) => stored.tags.groups().contains(group) && named(&|s, _| s == site),
        }
    }

    /// As octets, for the disk.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let part = |out: &mut Vec<u8>, kind: u8, site: Option<&Site>, text: &[u8]| {
            out.push(kind);
            if let Some(site) = site {
                key::write_uri(out, "", site, text);
            } else {
                out.extend_from_slice(text);
            }
        };
        match self {
            Selection::All => part(out, 0, None, b""),
            Selection::Uri(site, target) => part(out, 1, Some(site), target),
            Selection::Prefix(site, prefix) => part(out, 2, Some(site), prefix),
            Selection::Tag(tag) => part(out, 3, None, tag.as_bytes()),
            Selection::Group(site, group) => part(out, 4, Some(site), group.as_bytes()),
        }
    }

    /// Reads what [`Selection::write`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Option<Selection> {
        let (kind, rest) = bytes.split_first()?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Box::from);
        let (_, site, target) = match kind {
            0 => return Some(Selection::All),
            3 => return Some(Selection::Tag(text(rest)?)),
            _ => key::read_uri(rest)?,
        };
        Some(match kind {
            1 => Selection::Uri(site, target.to_vec()),
            2 => Selection::Prefix(site, target.to_vec()),
            4 => Selection::Group(site, text(target)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    #[test]
    fn choosing() {
        let site = |scheme, port| Site { scheme, host: b"h".to_vec(), port };
        let mut uri = Vec::new();
        key::write_uri(&mut uri, "tenant", &site(Scheme::Http, 80), b"/a/b?c");
        let response = [("Surrogate-Key", "red blue"), ("Cache-Groups", "\"green\"")];
        let stored = stored(&uri, 1, &response, &[], b"");
        for (selection, expected) in [
            (Selection::All, true),
            (Selection::uri("http://h/a/b?c").unwrap(), true),
            (Selection::uri("HTTP://H:80/a/b?c").unwrap(), true),
            (Selection::uri("http://h/a/b").unwrap(), false),
            (Selection::uri("https://h/a/b?c").unwrap(), false),
            (Selection::uri("http://h:81/a/b?c").unwrap(), false),
            (Selection::uri("http://other/a/b?c").unwrap(), false),
            (Selection::uri("http://h/a/*").unwrap(), true),
            (Selection::uri("http://h/*").unwrap(), true),
            (Selection::uri("http://h/b*").unwrap(), false),
            (Selection::Tag("red".into()), true),
            (Selection::Tag("green".into()), true),
            (Selection::Tag("re".into()), false),
            (Selection::Group(site(Scheme::Http, 80), "green".into()), true),
            (Selection::Group(site(Scheme::Http, 80), "red".into()), false),
            (Selection::Group(site(Scheme::Https, 443), "green".into()), false),
        ] {
            assert_eq!(selection.chooses(&stored), expected, "{selection:?}");
            let mut octets = Vec::new();
            selection.write(&mut octets);
            assert_eq!(Selection::read(&octets), Some(selection));
        }
        for bad in ["", "/a", "h/a", "ftp://h/a", "http:///a", "http://u@h/a", "http://h/a#b", "http://h:x/"]
        {
            assert_eq!(Selection::uri(bad), Err(NotAUri), "{bad}");
        }
        for bad in [&b""[..], b"\x01", b"\x09abc", b"\x03\xff"] {
            assert_eq!(Selection::read(bad), None, "{bad:?}");
        }
    }
}
