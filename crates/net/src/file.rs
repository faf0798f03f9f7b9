//! Files beneath a root: every name is resolved by the kernel from an open directory and may not leave it
//! (`openat2` with `RESOLVE_BENEATH`). Path strings are never joined. Decides what may be opened and says why
//! not; does not know URLs, percent-encoding or media types.
//!
//! A file is opened first and looked at through its descriptor afterwards, so there is no gap between a check
//! and its use (fault P09). New files are written under a temporary name and renamed when whole.

pub mod reap;

use rustix::fs::{self, AtFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every file this system writes and has not finished carries this suffix, and none is ever served
/// (fault P12).
pub const TEMPORARY_SUFFIX: &[u8] = b".eleven-part";

/// How often a resolution is tried again that raced with a rename.
const RACED_RESOLUTIONS_MAX: usize = 8;

/// What to do with symbolic links in a name, the last component included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// A name with a link in it is refused (fault P08).
    #[default]
    Refuse,
    /// Links are followed as long as they stay beneath the root. Where the kernel has no `openat2` (before
    /// Linux 5.6) they are refused.
    Beneath,
}

/// What a root allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Symbolic links.
    pub symlinks: Symlinks,
    /// Names that begin with a dot (`.git`, `.env`) may be opened. `/.well-known` may always (RFC 8615).
    pub dot_names: bool,
}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It holds NUL (fault P05).
    Nul,
    /// It has a component `.` or `..` or an empty one: what came here was not made canonical.
    NotCanonical,
    /// It leads out of the root (faults P01, P07, P08).
    Escapes,
    /// It has a symbolic link in it.
    Symlink,
    /// A component begins with a dot (fault P11).
    DotName,
    /// It is a file this system has not finished (fault P12).
    Temporary,
    /// Neither a regular file nor a directory (fault P13).
    NotRegular,
    /// The operating system's permissions.
    Permission,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Nul => "the name holds NUL",
            Refusal::NotCanonical => "the name has an empty or dot component",
            Refusal::Escapes => "the name leads out of the root",
            Refusal::Symlink => "the name has a symbolic link in it",
            Refusal::DotName => "a component of the name begins with a dot",
            Refusal::Temporary => "the file is not finished",
            Refusal::NotRegular => "neither a regular file nor a directory",
            Refusal::Permission => "permission denied",
        })
    }
}

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// There may be one, but it is not for this caller. To a peer best shown as not found.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The system failed: out of descriptors, a broken disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    fn from_errno(errno: Errno) -> OpenError {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => OpenError::NotFound,
            Errno::XDEV => OpenError::Refused(Refusal::Escapes),
            Errno::LOOP => OpenError::Refused(Refusal::Symlink),
            Errno::ACCESS | Errno::PERM => OpenError::Refused(Refusal::Permission),
            // A socket (ENXIO) or a device without driver.
            Errno::NXIO | Errno::NODEV => OpenError::Refused(Refusal::NotRegular),
            other => OpenError::Io(other.into()),
        }
    }
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (in listings; an opened file never is one).
    Symlink,
    /// A pipe, socket or device.
    Other,
}

impl Kind {
    fn from(file_type: fs::FileType) -> Kind {
        match file_type {
            fs::FileType::RegularFile => Kind::File,
            fs::FileType::Directory => Kind::Directory,
            fs::FileType::Symlink => Kind::Symlink,
            _ => Kind::Other,
        }
    }
}

/// What is known of a file from its descriptor. Two states of a file that differ in content differ in one of
/// these, as far as the file system can tell (fault P25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Meta {
    /// File, directory, or neither.
    pub kind: Kind,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last modification of the content: seconds since 1970.
    pub modified_seconds: i64,
    /// Its fraction in nanoseconds.
    pub modified_nanos: u32,
    /// Last change of content or attributes: seconds since 1970. Cannot be set back by a program.
    pub changed_seconds: i64,
    /// Its fraction in nanoseconds.
    pub changed_nanos: u32,
    /// Number of names the file has; more than one is a hard link.
    pub links: u64,
    /// Permission bits.
    pub mode: u32,
}

impl Meta {
    // The fields of `stat` differ in type from platform to platform.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    fn from(stat: &fs::Stat) -> Meta {
        Meta {
            kind: Kind::from(fs::FileType::from_raw_mode(stat.st_mode)),
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: stat.st_size as u64,
            modified_seconds: stat.st_mtime as i64,
            modified_nanos: stat.st_mtime_nsec as u32,
            changed_seconds: stat.st_ctime as i64,
            changed_nanos: stat.st_ctime_nsec as u32,
            links: stat.st_nlink as u64,
            mode: stat.st_mode & 0o7777,
        }
    }

    /// The state of an open file now. One `fstat`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn of(file: impl AsFd) -> io::Result<Meta> {
        Ok(Meta::from(&fs::fstat(file)?))
    }
}

/// An opened regular file or directory.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading.
    pub file: File,
    /// Taken from the descriptor.
    pub meta: Meta,
}

/// A directory that names are resolved beneath. Opened once; what later happens to its path does not matter.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    options: Options,
}

/// Whether the kernel has `openat2`; asked once by the first open.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

impl Root {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// If it is absent or no directory (fault P22: never a silent fall-back to the working directory).
    pub fn open_directory(path: &Path, options: Options) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { directory: fs::open(path, flags, Mode::empty())?, options })
    }

    /// The directory's descriptor (`O_PATH`).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What this root allows.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Opens a regular file or directory for reading. `name` is a canonical path, decoded, with or without
    /// its leading slash; a trailing slash demands a directory. Two system calls: `openat2`, `fstat`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, name: &[u8]) -> Result<Opened, OpenError> {
        let name = Name::check(name)?;
        name.is_public(self.options.dot_names)?;
        // Never waits: opening a FIFO would block until somebody writes (fault P13).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.resolve(&name, flags, Mode::empty())?);
        let meta = Meta::of(&file)?;
        match meta.kind {
            Kind::File | Kind::Directory => Ok(Opened { file, meta }),
            Kind::Symlink | Kind::Other => Err(OpenError::Refused(Refusal::NotRegular)),
        }
    }

    /// Opens a regular file for reading and writing, creating it with `mode` if `create`. For state of our
    /// own (stores, partial downloads): names that begin with a dot are allowed, links never followed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_for_writing(&self, name: &[u8], create: bool, mode: u32) -> Result<Opened, OpenError> {
        let (parent, last) = self.parent(name)?;
        let mut flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if create {
            flags |= OFlags::CREATE;
        }
        let file =
            fs::openat(&parent, last, flags, Mode::from_raw_mode(mode)).map_err(OpenError::from_errno)?;
        let (meta, file) = (Meta::of(&file)?, File::from(file));
        if meta.kind == Kind::File {
            Ok(Opened { file, meta })
        } else {
            Err(OpenError::Refused(Refusal::NotRegular))
        }
    }

    /// A new file in directory `within` (a canonical path), readable and writable, that has no name until
    /// [`Temporary::commit`], so that not even a crash leaves a trace of it. Where the file system cannot do that it
    /// has a temporary one, which begins with `hint`, made harmless.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn create_temporary(&self, within: &[u8], hint: &[u8], mode: u32) -> Result<Temporary, OpenError> {
        let directory = self.directory(within)?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match fs::openat(&directory, c".", flags, Mode::from_raw_mode(mode)) {
            Ok(file) => {
                Ok(Temporary { file: File::from(file), directory, name: None, hint: hint.to_vec(), mode })
            }
            // A file system, or a kernel, that knows no file without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Temporary::named(directory, hint, mode)
            }
            Err(errno) => Err(OpenError::from_errno(errno)),
        }
    }

    /// A new file in this directory, readable and writable, that has no name until [`Root::link`]: not even a crash leaves
    /// a trace of it. `None` where the file system or the kernel knows no such file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn create_nameless(&self, mode: u32) -> Result<Option<File>, OpenError> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match fs::openat(&self.directory, c".", flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(OpenError::from_errno(errno)),
        }
    }

    /// Gives a nameless file its name in this directory. Never replaces: a name that is taken is
    /// `Io(AlreadyExists)`. Any other error may mean that nothing nameless can be given a name here.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn link(&self, file: &File, to: &[u8]) -> Result<(), OpenError> {
        let (directory, to) = self.parent(to)?;
        link_nameless(file, directory, to).map_err(OpenError::from_errno)
    }

    /// Gives a nameless file its name in this directory, whatever it takes: a link; where the name is to be replaced, a
    /// link beside it and a rename; where nothing nameless can be linked, a copy. Content that was synced stays so.
    ///
    /// # Errors
    /// See [`OpenError`]; `Io(AlreadyExists)` if the name is taken and kept.
    pub fn adopt(&self, file: &File, to: &[u8], existing: Existing) -> Result<(), OpenError> {
        let (directory, to) = self.parent(to)?;
        match link_nameless(file, &directory, to) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) if existing == Existing::Keep => {
                return Err(OpenError::from_errno(Errno::EXIST));
            }
            Err(Errno::EXIST) => {
                let beside = temporary_name(to)?;
                if link_nameless(file, &directory, &beside).is_ok() {
                    return rename_in(&directory, &beside, to, existing).map_err(|error| {
                        let _ = fs::unlinkat(&directory, &beside[..], AtFlags::empty());
                        OpenError::Io(error)
                    });
                }
            }
            Err(_) => {}
        }
        let copy = Temporary::named(directory.as_fd().try_clone_to_owned()?, to, Meta::of(file)?.mode)?;
        let mut source = file;
        source.rewind()?;
        io::copy(&mut source, &mut copy.file())?;
        fs::fsync(copy.file()).map_err(OpenError::from_errno)?;
        copy.commit(to, existing, Durability::Unsynced)?;
        Ok(())
    }

    /// Gives a file another name in the same directory, after its content was written through another
    /// descriptor. Blocks on the disk when synced: content first, then the name.
    ///
    /// # Errors
    /// See [`OpenError`]; `Io(AlreadyExists)` if the name is taken and kept.
    pub fn rename(
        &self,
        file: &File,
        from: &[u8],
        to: &[u8],
        existing: Existing,
        durability: Durability,
    ) -> Result<(), OpenError> {
        let (directory, from) = self.parent(from)?;
        let (_, to) = self.parent(to)?;
        if durability == Durability::Synced {
            fs::fsync(file).map_err(OpenError::from_errno)?;
        }
        rename_in(&directory, from, to, existing)?;
        if durability == Durability::Synced {
            // What was opened with O_PATH cannot be synced.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory =
                fs::openat(&directory, c".", flags, Mode::empty()).map_err(OpenError::from_errno)?;
            fs::fsync(&directory).map_err(OpenError::from_errno)?;
        }
        Ok(())
    }

    /// Makes the names in the directory itself survive a power cut. Blocks on the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        // What was opened with O_PATH cannot be synced.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(fs::fsync(fs::openat(&self.directory, c".", flags, Mode::empty())?)?)
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// See [`OpenError`]; an existing one is `Io(AlreadyExists)`.
    pub fn create_directory(&self, name: &[u8], mode: u32) -> Result<(), OpenError> {
        let (parent, last) = self.parent(name)?;
        fs::mkdirat(&parent, last, Mode::from_raw_mode(mode)).map_err(OpenError::from_errno)
    }

    /// Removes a file (not a directory).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn remove_file(&self, name: &[u8]) -> Result<(), OpenError> {
        let (parent, last) = self.parent(name)?;
        fs::unlinkat(&parent, last, AtFlags::empty()).map_err(OpenError::from_errno)
    }

    /// What `name` stands for, without opening or following it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn look_at(&self, name: &[u8]) -> Result<Meta, OpenError> {
        let (parent, last) = self.parent(name)?;
        let stat = fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(OpenError::from_errno)?;
        Ok(Meta::from(&stat))
    }

    fn directory(&self, name: &[u8]) -> Result<OwnedFd, OpenError> {
        let name = Name::check(name)?;
        self.resolve(&name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// The directory that holds `name`, and its last component. That of a name without a slash is open already.
    fn parent<'a>(&self, name: &'a [u8]) -> Result<(Parent<'_>, &'a [u8]), OpenError> {
        let name = Name::check(name)?;
        let (within, last) = match name.path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&name.path[..at], &name.path[at + 1..]),
            None => (&[][..], name.path),
        };
        if last.is_empty() {
            return Err(OpenError::Refused(Refusal::NotCanonical));
        }
        if within.is_empty() {
            return Ok((Parent::Root(self.directory.as_fd()), last));
        }
        let within = Name { path: within, directory: true };
        Ok((Parent::Opened(self.resolve(&within, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?), last))
    }

    fn resolve(&self, name: &Name<'_>, mut flags: OFlags, mode: Mode) -> Result<OwnedFd, OpenError> {
        flags |= OFlags::CLOEXEC;
        if name.directory {
            flags |= OFlags::DIRECTORY;
        }
        if NO_OPENAT2.load(Ordering::Relaxed) {
            return self.resolve_by_component(name, flags, mode);
        }
        let mut beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if self.options.symlinks == Symlinks::Refuse {
            beneath |= ResolveFlags::NO_SYMLINKS;
        }
        for _ in 0..RACED_RESOLUTIONS_MAX {
            match fs::openat2(&self.directory, name.for_kernel(), flags, mode, beneath) {
                Ok(file) => return Ok(file),
                // The tree was renamed while the kernel walked a `..` of a link.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS) => {
                    NO_OPENAT2.store(true, Ordering::Relaxed);
                    return self.resolve_by_component(name, flags, mode);
                }
                Err(errno) => return Err(OpenError::from_errno(errno)),
            }
        }
        Err(OpenError::Refused(Refusal::Escapes))
    }

    /// For kernels without `openat2`: one component at a time, no link followed. As there is no `..` in a
    /// checked name and no link, nothing can lead out.
    fn resolve_by_component(&self, name: &Name<'_>, flags: OFlags, mode: Mode) -> Result<OwnedFd, OpenError> {
        let mut components = name.path.split(|&b| b == b'/').filter(|c| !c.is_empty()).peekable();
        if components.peek().is_none() {
            return fs::openat(&self.directory, ".", flags, mode).map_err(OpenError::from_errno);
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        while let Some(component) = components.next() {
            let from = at.as_ref().map_or(self.directory.as_fd(), AsFd::as_fd);
            let last = components.peek().is_none();
            let flags = if last { flags | OFlags::NOFOLLOW } else { step };
            match fs::openat(from, component, flags, mode) {
                Ok(next) => at = Some(next),
                // With O_DIRECTORY a link is reported as "not a directory"; say what it was.
                Err(Errno::NOTDIR) if is_link(from, component) => {
                    return Err(OpenError::Refused(Refusal::Symlink));
                }
                Err(errno) => return Err(OpenError::from_errno(errno)),
            }
        }
        at.ok_or(OpenError::NotFound)
    }
}

/// The directory that holds a name.
enum Parent<'r> {
    Root(BorrowedFd<'r>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Root(fd) => *fd,
            Parent::Opened(fd) => fd.as_fd(),
        }
    }
}

fn is_link(directory: BorrowedFd<'_>, name: &[u8]) -> bool {
    fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| Meta::from(&stat).kind == Kind::Symlink)
}

/// A name that was checked, without its leading and trailing slash.
struct Name<'a> {
    path: &'a [u8],
    /// It ended in a slash.
    directory: bool,
}

impl<'a> Name<'a> {
    fn check(name: &'a [u8]) -> Result<Name<'a>, OpenError> {
        if name.contains(&0) {
            return Err(OpenError::Refused(Refusal::Nul));
        }
        let path = name.strip_prefix(b"/").unwrap_or(name);
        let (path, directory) = path.strip_suffix(b"/").map_or((path, path.is_empty()), |path| (path, true));
        let bad = |component: &[u8]| matches!(component, b"" | b"." | b"..");
        if (!path.is_empty() || name == b"//") && path.split(|&b| b == b'/').any(bad) {
            return Err(OpenError::Refused(Refusal::NotCanonical));
        }
        Ok(Name { path, directory })
    }

    /// Whether the name may be shown to a peer.
    fn is_public(&self, dot_names: bool) -> Result<(), OpenError> {
        for (index, component) in self.path.split(|&b| b == b'/').enumerate() {
            let well_known = index == 0 && component == b".well-known";
            if !dot_names && component.first() == Some(&b'.') && !well_known {
                return Err(OpenError::Refused(Refusal::DotName));
            }
            if is_temporary_name(component) {
                return Err(OpenError::Refused(Refusal::Temporary));
            }
        }
        Ok(())
    }

    fn for_kernel(&self) -> &[u8] {
        if self.path.is_empty() { b"." } else { self.path }
    }
}

/// Whether a file of this name is one that this system has not finished.
pub fn is_temporary_name(name: &[u8]) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

fn temporary_name(hint: &[u8]) -> io::Result<Vec<u8>> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut name = vec![b'.'];
    name.extend(hint.iter().filter(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).take(64));
    name.push(b'.');
    for byte in random {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name.extend_from_slice(TEMPORARY_SUFFIX);
    Ok(name)
}

/// Whether a new file may take a name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It takes the name; the old file goes.
    Replace,
    /// The commit fails with `AlreadyExists` (faults K24, K27).
    Keep,
}

/// Whether a commit survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The content is on the disk before the name is, and the name before `commit` returns.
    Synced,
    /// Only the order of events in this run is kept.
    Unsynced,
}

fn rename_in(directory: impl AsFd, from: &[u8], to: &[u8], existing: Existing) -> io::Result<()> {
    let flags = match existing {
        Existing::Replace => RenameFlags::empty(),
        Existing::Keep => RenameFlags::NOREPLACE,
    };
    let directory = directory.as_fd();
    match fs::renameat_with(directory, from, directory, to, flags) {
        // A file system without RENAME_NOREPLACE: a hard link refuses an existing name as well.
        Err(Errno::INVAL | Errno::NOSYS) if existing == Existing::Keep => {
            fs::linkat(directory, from, directory, to, AtFlags::empty())?;
            fs::unlinkat(directory, from, AtFlags::empty())?;
        }
        result => result?,
    }
    Ok(())
}

/// Takes a file for this process alone, until it is closed. `false` if another process has it.
///
/// # Errors
/// If the file system cannot lock.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match fs::flock(file, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives a nameless file a name that is not taken.
fn link_nameless(file: &File, directory: impl AsFd, to: &[u8]) -> Result<(), Errno> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match fs::linkat(fs::CWD, &*own, &directory, to, AtFlags::SYMLINK_FOLLOW) {
        // Without /proc, newer kernels allow this as well.
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) => {
            fs::linkat(file, c"", &directory, to, AtFlags::EMPTY_PATH)
        }
        result => result,
    }
}

/// Asks the file system to set room aside for `length` bytes from `offset` on, without making the file longer: written
/// in one piece, at less cost. A wish and no promise: where it cannot be met, writing will say so.
pub fn reserve(file: &File, offset: u64, length: u64) {
    if length > 0 {
        let _ = fs::fallocate(file, fs::FallocateFlags::KEEP_SIZE, offset, length);
    }
}

/// Sends what was written on its way to the disk without waiting for it. For several files that are synced one after the
/// other: the disk then works at all of them. What is advised besides has no effect on pages that are not written yet.
pub fn begin_sync(file: &File) {
    let _ = fs::fadvise(file, 0, None, fs::Advice::DontNeed);
}

/// Bytes that may still be written to the file system a file is on; `None` where it does not say.
pub fn free_bytes(file: &File) -> Option<u64> {
    let found = fs::fstatvfs(file).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// A file without a name, or under a temporary one. Dropped without commit it is gone.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    directory: OwnedFd,
    /// To be removed.
    name: Option<Vec<u8>>,
    hint: Vec<u8>,
    mode: u32,
}

impl Temporary {
    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its temporary name in its directory, if it has one.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    fn named(directory: OwnedFd, hint: &[u8], mode: u32) -> Result<Temporary, OpenError> {
        for _ in 0..RACED_RESOLUTIONS_MAX {
            let name = temporary_name(hint)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat(&directory, &name[..], flags, Mode::from_raw_mode(mode)) {
                Ok(file) => {
                    let file = File::from(file);
                    // Whoever finds a lock knows that somebody is still at work on it.
                    let _ = try_lock(&file);
                    return Ok(Temporary { file, directory, name: Some(name), hint: hint.to_vec(), mode });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(OpenError::from_errno(errno)),
            }
        }
        Err(OpenError::Io(io::ErrorKind::AlreadyExists.into()))
    }

    /// Gives the nameless file a name that is not taken.
    fn link(&self, to: &[u8]) -> Result<(), Errno> {
        link_nameless(&self.file, &self.directory, to)
    }

    /// Gives the nameless file its name at once, if it can have it; else a temporary one.
    fn settle(&mut self, to: &[u8], existing: Existing) -> io::Result<bool> {
        match self.link(to) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) if existing == Existing::Keep => return Err(Errno::EXIST.into()),
            // To replace a file takes a rename.
            Err(Errno::EXIST) => {
                let name = temporary_name(&self.hint)?;
                if self.link(&name).is_ok() {
                    self.name = Some(name);
                    return Ok(false);
                }
            }
            // Some confinements let nothing be linked that has no directory: then it is copied.
            Err(_) => {}
        }
        let copy =
            Temporary::named(self.directory.try_clone()?, &self.hint, self.mode).map_err(io::Error::other)?;
        (&self.file).rewind()?;
        io::copy(&mut &self.file, &mut &copy.file)?;
        fs::fsync(&copy.file)?;
        *self = copy;
        Ok(false)
    }

    /// Gives the file its name, `to`, in the same directory. Blocks on the disk when synced.
    ///
    /// # Errors
    /// Any failure of sync or rename; the file is then removed and its name untouched, except that after a
    /// failed sync of the directory the name may already stand. A failed sync is never tried again: the
    /// kernel may have dropped the pages (fault F13).
    pub fn commit(mut self, to: &[u8], existing: Existing, durability: Durability) -> io::Result<File> {
        if to.is_empty() || to == b"." || to == b".." || to.iter().any(|&b| b == b'/' || b == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name is one component of a path"));
        }
        if durability == Durability::Synced {
            fs::fsync(&self.file)?;
        }
        let is_there = self.name.is_none() && self.settle(to, existing)?;
        if !is_there && let Some(name) = &self.name {
            rename_in(&self.directory, name, to, existing)?;
            self.name = None;
        }
        if durability == Durability::Synced {
            fs::fsync(&self.directory)?;
        }
        self.file.try_clone()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing to be done if it fails; a later start reaps by the suffix.
            let _ = fs::unlinkat(&self.directory, &name[..], AtFlags::empty());
        }
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Any octets but `/` and NUL; may be hostile in a page or a terminal (faults P14, P26).
    pub name: Vec<u8>,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it is a regular file.
    pub file: bool,
}

/// Entries of a directory, `.` and `..` left out, at most `entries_max`; whether there are more. In the order
/// of the file system (fault P15: a huge directory costs no more than its limit).
///
/// # Errors
/// If the directory cannot be read.
pub fn read_directory(directory: &File, entries_max: usize) -> io::Result<(Vec<Entry>, bool)> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    // From the start, whoever read this descriptor before.
    fs::seek(directory, fs::SeekFrom::Start(0))?;
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if entries.len() == entries_max {
            return Ok((entries, true));
        }
        let kind = match entry.file_type() {
            // Some file systems do not say; then ask.
            fs::FileType::Unknown => fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(Kind::Other, |stat| Meta::from(&stat).kind),
            known => Kind::from(known),
        };
        entries.push(Entry {
            name: name.to_vec(),
            directory: kind == Kind::Directory,
            file: kind == Kind::File,
        });
    }
    Ok((entries, false))
}

/// What an entry of an open directory stands for, without following it.
///
/// # Errors
/// If it is gone or cannot be read.
pub fn look_at_entry(directory: &File, name: &[u8]) -> io::Result<Meta> {
    Ok(Meta::from(&fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
