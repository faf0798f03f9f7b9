//! Saving to files.

use super::options::Get;
use super::setup::{Setup, unusable};
use super::show::Show;
use eleven_client::Failure;
use eleven_client::download::{self, Naming, Options, Task};
use eleven_client::partial::{Directory, Overwrite};
use eleven_semantics::Method;
use eleven_semantics::uri::Uri;
use std::any::Any;
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
    uri: Uri,
    cancel: &Rc<Notify>,
    line: Option<Box<dyn Any>>,
) -> Result<(), Failure> {
    if let Some(path) = &options.output
        && is_special(path)
    {
        return super::print::to_special(options, setup, show, uri, path).await;
    }
    if setup.method == Method::Head {
        return Err(unusable("-I fetches only a head: there is nothing to save"));
    }
    let (directory, naming) = place(options, setup)?;
    let mut uris = vec![uri.clone()];
    uris.extend(setup.mirrors.iter().cloned());
    // What is not idempotent is not repeated, split or resumed.
    let simple = setup.method != Method::Get;
    let download_options = Options {
        overwrite: match (options.overwrite, options.rename) {
            (true, _) => Overwrite::Replace,
            (_, true) => Overwrite::Rename,
            _ => Overwrite::Refuse,
        },
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
    let done = download::run(Rc::clone(&setup.agent), task, progress, Rc::clone(cancel)).await?;
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
        show.note(&format!("{} is complete already: {} octets{verified}", done.path.display(), done.bytes));
        return Ok(());
    }
    show.note(&format!("{}: {} octets{resumed}{verified}", done.path.display(), done.bytes));
    Ok(())
}

fn place(options: &Get, setup: &Setup) -> Result<(Directory, Naming), Failure> {
    let Some(path) = &options.output else {
        let naming = Naming::Remote { disposition: options.remote_name };
        return Ok((setup.directory(options)?, naming));
    };
    let path = if path.is_absolute() { path.clone() } else { options.output_dir.join(path) };
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| unusable(format!("{} names no file", path.display())))?;
    let parent = path.parent().unwrap_or(Path::new("."));
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
