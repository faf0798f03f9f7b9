//! From a canonical path to what it stands for beneath a root: a regular file, a directory, a redirect to the
//! slash, or the reason why nothing is shown. Index files and variants by name (compressed siblings, languages)
//! are found here and chosen among elsewhere; how names are kept beneath the root
//! is `net::file`'s, how the path became canonical is `semantics::target`'s.

use eleven_net::file::{Kind, OpenError, Opened, Refusal, Root};
use eleven_semantics::Status;
use std::io;

/// What is looked for besides the file itself.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    /// Names of index files, in order.
    pub index: Box<[Box<[u8]>]>,
    /// Content codings for which a compressed sibling (`page.html.gz`) may exist, in the server's order.
    pub siblings: Box<[Coding]>,
    /// Languages for which a variant (`page.html.en`) may exist, in the server's order.
    pub languages: Box<[Box<str>]>,
}

/// A content coding that files are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `.br` (RFC 7932).
    Brotli,
    /// `.zst` (RFC 8878).
    Zstd,
    /// `.gz` (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them, smallest result first.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// Its name in Content-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What is added to the name of a file.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// One file that could be sent.
#[derive(Debug)]
pub struct Offer {
    /// Open for reading.
    pub opened: Opened,
    /// Its language, if it is named after one.
    pub language: Option<Box<str>>,
    /// Its content coding, if it is a compressed sibling.
    pub coding: Option<Coding>,
}

/// What a path stands for.
#[derive(Debug)]
pub enum Found {
    /// One file, or several variants of one.
    Files {
        /// At least one. Variants by language come before the file without one, and the file itself comes
        /// after its compressed siblings.
        offers: Vec<Offer>,
        /// The canonical path asked for, or that of the index file; without suffixes of variants.
        path: Vec<u8>,
    },
    /// A directory, asked for by its slash, in which there is no index file.
    Directory(Opened),
    /// A directory that was asked for without its slash: 301 to the path with it.
    RedirectToSlash,
}

/// Why nothing is shown.
#[derive(Debug)]
pub enum Unavailable {
    /// There is no such file: 404.
    NotFound,
    /// There is or may be one that peers must not learn of (faults P08, P10, P11, P12): 404.
    Hidden(Refusal),
    /// There is one, but it is not readable or no file (fault P13): 403.
    Forbidden(Refusal),
    /// The path is not canonical, or holds NUL (faults P01, P05): 400.
    Invalid(Refusal),
    /// No descriptor or memory is left: 503.
    Exhausted(io::Error),
    /// The disk or file system fails: 500.
    Failed(io::Error),
}

impl Unavailable {
    /// The status that says so.
    pub fn status(&self) -> Status {
        match self {
            Unavailable::NotFound | Unavailable::Hidden(_) => Status::NOT_FOUND,
            Unavailable::Forbidden(_) => Status::FORBIDDEN,
            Unavailable::Invalid(_) => Status::BAD_REQUEST,
            Unavailable::Exhausted(_) => Status::SERVICE_UNAVAILABLE,
            Unavailable::Failed(_) => Status::INTERNAL_SERVER_ERROR,
        }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unavailable::NotFound => f.write_str("no such file"),
            Unavailable::Hidden(refusal)
            | Unavailable::Forbidden(refusal)
            | Unavailable::Invalid(refusal) => {
                write!(f, "{refusal}")
            }
            Unavailable::Exhausted(error) | Unavailable::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl From<OpenError> for Unavailable {
    fn from(error: OpenError) -> Unavailable {
        match error {
            OpenError::NotFound => Unavailable::NotFound,
            OpenError::Refused(refusal) => match refusal {
                Refusal::Nul | Refusal::NotCanonical => Unavailable::Invalid(refusal),
                Refusal::NotRegular | Refusal::Permission => Unavailable::Forbidden(refusal),
                Refusal::Escapes | Refusal::Symlink | Refusal::DotName | Refusal::Temporary => {
                    Unavailable::Hidden(refusal)
                }
            },
            OpenError::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Unavailable {
        // EMFILE, ENFILE, ENOMEM: gone again in a moment, unlike a broken disk.
        match error.raw_os_error() {
            Some(12 | 23 | 24) => Unavailable::Exhausted(error),
            _ => Unavailable::Failed(error),
        }
    }
}

/// A compressed sibling that is older than its file by more than this is of another content, and not used.
/// Tools that compress a tree write the siblings last; copying a tree may turn the order around by a little.
const SIBLING_OLDER_SECONDS_MAX: i64 = 2;

/// Opens what `path` (canonical, see `semantics::target::canonical_path`) stands for. In a directory the first
/// index file that exists is taken; one that exists but is refused ends the search, so that a listing never
/// shows what an index file was meant to cover.
///
/// # Errors
/// Says why nothing is shown.
pub fn resolve(root: &Root, path: &[u8], lookups: &Lookups) -> Result<Found, Unavailable> {
    if !path.ends_with(b"/") {
        return match probe(root, path, lookups)? {
            Probe::Files(offers) => Ok(Found::Files { offers, path: path.to_vec() }),
            Probe::Directory => Ok(Found::RedirectToSlash),
            Probe::Nothing => Err(Unavailable::NotFound),
        };
    }
    for name in &lookups.index {
        let path = [path, name].concat();
        if let Probe::Files(offers) = probe(root, &path, lookups)? {
            return Ok(Found::Files { offers, path });
        }
    }
    Ok(Found::Directory(root.open(path)?))
}

enum Probe {
    Files(Vec<Offer>),
    Directory,
    Nothing,
}

fn probe(root: &Root, path: &[u8], lookups: &Lookups) -> Result<Probe, Unavailable> {
    let plain = match root.open(path) {
        Ok(opened) if opened.meta.kind == Kind::Directory => return Ok(Probe::Directory),
        Ok(opened) => Some(opened),
        Err(OpenError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let mut offers = Vec::new();
    let mut name = path.to_vec();
    for language in &lookups.languages {
        name.truncate(path.len());
        name.push(b'.');
        name.extend_from_slice(language.as_bytes());
        if let Some(opened) = variant(root, &name)? {
            push_siblings(root, &name, &opened, Some(language), lookups, &mut offers)?;
            offers.push(Offer { opened, language: Some(language.clone()), coding: None });
        }
    }
    if let Some(opened) = plain {
        // A variant by language, asked for by its own name, has a language all the same.
        let language = lookups.languages.iter().map(|l| &**l).find(|language| has_suffix(path, language));
        push_siblings(root, path, &opened, language, lookups, &mut offers)?;
        offers.push(Offer { opened, language: language.map(Into::into), coding: None });
    }
    Ok(if offers.is_empty() { Probe::Nothing } else { Probe::Files(offers) })
}

/// Whether a file name ends with a dot and this language tag.
pub fn has_suffix(path: &[u8], language: &str) -> bool {
    path.strip_suffix(language.as_bytes())
        .and_then(|stem| stem.strip_suffix(b"."))
        .is_some_and(|stem| !matches!(stem.last(), None | Some(b'/')))
}

fn push_siblings(
    root: &Root,
    path: &[u8],
    of: &Opened,
    language: Option<&str>,
    lookups: &Lookups,
    offers: &mut Vec<Offer>,
) -> Result<(), Unavailable> {
    if lookups.siblings.is_empty() || Coding::ALL.iter().any(|c| path.ends_with(c.suffix().as_bytes())) {
        return Ok(());
    }
    for &coding in &lookups.siblings {
        if let Some(opened) = variant(root, &[path, coding.suffix().as_bytes()].concat())?
            && opened.meta.modified_seconds >= of.meta.modified_seconds - SIBLING_OLDER_SECONDS_MAX
        {
            offers.push(Offer { opened, language: language.map(Into::into), coding: Some(coding) });
        }
    }
    Ok(())
}

/// A variant that is absent, refused or no file does not take part; only a failing system is an error.
fn variant(root: &Root, path: &[u8]) -> Result<Option<Opened>, Unavailable> {
    match root.open(path) {
        Ok(opened) if opened.meta.kind == Kind::File => Ok(Some(opened)),
        Ok(_) | Err(OpenError::NotFound | OpenError::Refused(_)) => Ok(None),
        Err(OpenError::Io(error)) => Err(error.into()),
    }
}
