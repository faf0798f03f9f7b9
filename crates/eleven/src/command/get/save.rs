//! Saving to files.

use super::options::Get;
use super::report::{Answer, Report};
use super::setup::{Setup, unusable};
use super::show::Show;
use eleven_client::download::{self, Naming, Options, Task};
use eleven_client::partial::{Directory, Overwrite, Partial};
use eleven_client::{Cause, Failure};
use eleven_semantics::Method;
use eleven_semantics::content_disposition::download_name;
use eleven_semantics::uri::Uri;
use std::any::Any;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use tokio::sync::Notify;

/// Fetches one URL into a file. `line` is dropped when everything was received.
///
/// # Errors
/// Why the file is not there.
pub async fn save(
    options: &Rc<Get>,
    setup: &Rc<Setup>,
    show: &Rc<Show>,
    index: usize,
    cancel: &Rc<Notify>,
    line: Option<Box<dyn Any>>,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    let uri = setup.uris[index].clone();
    let output = setup.output(options, index);
    if let Some(path) = output
        && is_special(path)
    {
        return super::print::to_special(options, setup, show, uri, path, report).await;
    }
    if setup.method == Method::Head {
        return Err(unusable("-I fetches only a head: there is nothing to save"));
    }
    let (directory, naming) = place(options, setup, output)?;
    if options.range.is_some() {
        return range(options, setup, show, uri, &directory, &naming, report).await;
    }
    let mut uris = vec![uri.clone()];
    uris.extend(setup.mirrors.iter().cloned());
    // What is not idempotent is not repeated, split or resumed.
    let simple = setup.method != Method::Get;
    let download_options = Options {
        overwrite: match (options.overwrite, options.rename) {
            (true, _) => Overwrite::Replace,
            (_, true) => Overwrite::Rename,
            _ if options.timestamping => Overwrite::Replace,
            _ => Overwrite::Refuse,
        },
        newer: options.timestamping && !simple,
        remote_time: options.remote_time || options.timestamping,
        keep_existing: options.skip_existing,
        retry_all: options.retry_all_errors,
        retry_pause_ms: u64::try_from(options.retry_delay.0.as_millis()).unwrap_or(u64::MAX).max(1),
        resume: options.resume && !simple,
        segments: if simple { download::Segments::Fixed(1) } else { options.segments.0 },
        retries_max: if setup.method.is_idempotent() { options.retry } else { 0 },
        rate_limit: options.limit_rate.map(|rate| rate.0),
        sha256: options.sha256.map(|digest| digest.0),
        decode: options.compressed,
        save_errors: options.save_errors,
        content_bytes_max: options.max_filesize.map_or(u64::MAX, |size| size.0),
        ..Options::default()
    };
    let asking = Rc::clone(setup);
    let task = Task {
        uris,
        ask: Box::new(move |uri| asking.ask(uri)),
        directory,
        naming,
        options: download_options,
        line,
    };
    let progress = show.progress(uri.without_fragment());
    let done = match download::run(Rc::clone(&setup.agent), task, progress, Rc::clone(cancel)).await {
        Ok(done) => done,
        Err(failure) if failure.cause == Cause::Status(304) && options.time_cond.is_some() => {
            show.note(&format!("{uri} was not modified after that time"));
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    let filled = Answer::done(&done);
    {
        let mut report = report.borrow_mut();
        report.answer = Some(filled);
        report.bytes = done.received;
        report.path = Some(done.path.clone());
    }
    let verified = if done.verified.is_empty() {
        String::new()
    } else {
        format!(", verified by {}", done.verified.join(" and "))
    };
    let resumed = if done.resumed > 0 {
        format!(", {} of them from an earlier run", done.resumed)
    } else {
        String::new()
    };
    if done.kept {
        let why = match () {
            () if options.skip_existing => "exists and is left as it is",
            () if options.timestamping => "is as new as the server's",
            () => "is complete already",
        };
        show.note(&format!("{} {why}: {} octets{verified}", done.path.display(), done.bytes));
        return Ok(());
    }
    show.note(&format!("{}: {} octets{resumed}{verified}", done.path.display(), done.bytes));
    Ok(())
}

/// The octets of `--range` go to the file as they would be printed; it gets its name when all of them are there.
async fn range(
    options: &Get,
    setup: &Setup,
    show: &Show,
    uri: Uri,
    directory: &Directory,
    naming: &Naming,
    report: &RefCell<Report>,
) -> Result<(), Failure> {
    let name = match naming {
        Naming::Fixed(name) => name.clone(),
        Naming::Remote { .. } => download_name(None, uri.path()),
    };
    let overwrite = match (options.overwrite, options.rename) {
        (true, _) => Overwrite::Replace,
        (_, true) => Overwrite::Rename,
        _ => Overwrite::Refuse,
    };
    directory.choose(&name, overwrite)?;
    let partial = Rc::new(Partial::small(directory, &name, overwrite)?);
    let out = PartWriter { partial: Rc::clone(&partial), at: 0 };
    let printed = super::print::to_writer(options, setup, show, uri, Box::new(out), report).await;
    let Ok(mut partial) = Rc::try_unwrap(partial) else {
        return Err(unusable("the file is still being written")); // cannot be: its only writer is gone
    };
    if let Err(failure) = printed {
        partial.discard();
        return Err(failure);
    }
    let path = partial.commit(overwrite).await?;
    report.borrow_mut().path = Some(path);
    Ok(())
}

/// Writes to a part, one octet behind the other.
struct PartWriter {
    partial: Rc<Partial>,
    at: u64,
}

impl std::io::Write for PartWriter {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.partial.write(octets, self.at).map_err(|failure| std::io::Error::other(failure.to_string()))?;
        self.at += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn place(options: &Get, setup: &Setup, output: Option<&Path>) -> Result<(Directory, Naming), Failure> {
    let Some(path) = output else {
        let naming = Naming::Remote { disposition: options.remote_name && !options.timestamping };
        return Ok((setup.directory(options)?, naming));
    };
    let path = if path.is_absolute() { path.to_owned() } else { options.output_dir.join(path) };
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| unusable(format!("{} names no file", path.display())))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    if options.create_dirs {
        super::setup::create_directories(parent)?;
    }
    Ok((Directory::open(parent)?, Naming::Fixed(name.to_owned())))
}

/// A device or FIFO that the user named: written to as it is. A link or directory is none.
fn is_special(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_char_device() || kind.is_fifo() || kind.is_block_device()
    })
}
