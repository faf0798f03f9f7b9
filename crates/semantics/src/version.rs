//! Protocol versions (RFC 9110 §2.5, §6.2). How they are written on a connection is RFC 9112 §2.3 and lives
//! in `eleven-messaging`.

/// A version of HTTP that this system speaks, or a higher minor version it treats as HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/0.9: a request line without version, a response without head. Spoken only where asked for.
    Http09,
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1, and any HTTP/1.x above it (9110-6.2-06: processed as the highest minor version we know).
    Http11,
}

impl Version {
    /// The text of the version as a sender writes it. HTTP/0.9 has none on the wire; this is for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http09 => "HTTP/0.9",
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
