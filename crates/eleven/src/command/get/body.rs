//! The content of a request, from -d, --data-binary, --json, -F or -T.

use super::options::Get;
use super::setup::unusable;
use bytes::Bytes;
use eleven_client::Failure;
use eleven_client::transfer::Content;
use eleven_messaging::server::Length;
use eleven_semantics::{Known, Method};
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Content of a form that is put together in memory at most. Larger files go by -T.
const FORM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// From this length on a 100 is waited for (curl's threshold): below, the wait costs more than the content.
const EXPECT_FROM_BYTES: u64 = 1024 * 1024;

/// The content, and what it implies.
pub struct Body {
    source: Source,
    /// Fields that describe it.
    pub fields: Vec<(Known, String)>,
    /// The method, unless one was given.
    pub implied_method: Option<fn() -> Method>,
    /// A 100 is worth waiting for.
    pub expects_continue: bool,
}

enum Source {
    None,
    Memory(Bytes),
    File(File, u64),
    /// Standard input: once only.
    Input(Cell<bool>),
}

impl Body {
    /// The content for one request, and its length.
    pub fn content(&self) -> (Content, Length) {
        match &self.source {
            Source::None => (Content::None, Length::Absent),
            Source::Memory(bytes) => (Content::Bytes(bytes.clone()), Length::Known(bytes.len() as u64)),
            Source::File(file, length) => match file.try_clone() {
                Ok(file) => (Content::File(file, *length), Length::Known(*length)),
                Err(_) => (Content::None, Length::Known(*length)),
            },
            Source::Input(taken) if taken.replace(true) => (Content::None, Length::Unknown),
            Source::Input(_) => (Content::Pipe(standard_input()), Length::Unknown),
        }
    }
}

impl Body {
    /// What `--get` moves from the content to the query.
    ///
    /// # Errors
    /// If it is no form, or cannot stand in a URL.
    pub fn take_query(&mut self) -> Result<String, Failure> {
        let source = std::mem::replace(&mut self.source, Source::None);
        let Source::Memory(bytes) = source else {
            return Err(unusable("--get is for the content of -d and its relatives"));
        };
        (self.implied_method, self.expects_continue) = (None, false);
        self.fields.clear();
        String::from_utf8(bytes.into())
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_graphic() && b != b'#'))
            .ok_or_else(|| unusable("--get: this cannot stand in a URL; use --data-urlencode"))
    }
}

/// `CONTENT`, `=CONTENT`, `NAME=CONTENT`, `@FILE` or `NAME@FILE`: the content percent-encoded.
fn encoded(text: &str) -> Result<Vec<u8>, Failure> {
    let (name, content) = match text.find(['=', '@']) {
        None => ("", text.as_bytes().to_vec()),
        Some(at) if text.as_bytes()[at] == b'=' => (&text[..at], text.as_bytes()[at + 1..].to_vec()),
        Some(at) => (&text[..at], read(Path::new(&text[at + 1..]))?),
    };
    let mut out = name.as_bytes().to_vec();
    if !name.is_empty() {
        out.push(b'=');
    }
    for b in content {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b);
        } else {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    }
    Ok(out)
}

/// Reads the options about content.
///
/// # Errors
/// If they contradict each other, or a file cannot be read.
pub fn of(options: &Get) -> Result<Body, Failure> {
    let kinds = [
        [&options.data, &options.data_binary, &options.data_raw, &options.data_urlencode]
            .iter()
            .any(|given| !given.is_empty()),
        !options.json.is_empty(),
        !options.form.is_empty(),
        options.upload_file.is_some(),
    ];
    if kinds.iter().filter(|given| **given).count() > 1 {
        return Err(unusable("only one of -d, --json, -F and -T can be the content"));
    }
    let mut body =
        Body { source: Source::None, fields: Vec::new(), implied_method: None, expects_continue: false };
    if kinds[0] {
        let mut pieces = Vec::new();
        for data in &options.data {
            let mut piece = value(data)?;
            if data.starts_with('@') {
                piece.retain(|b| !matches!(b, b'\r' | b'\n')); // as curl does
            }
            pieces.push(piece);
        }
        for data in &options.data_binary {
            pieces.push(value(data)?);
        }
        pieces.extend(options.data_raw.iter().map(|data| data.as_bytes().to_vec()));
        for data in &options.data_urlencode {
            pieces.push(encoded(data)?);
        }
        body.source = Source::Memory(pieces.join(&b'&').into());
        body.fields.push((Known::ContentType, "application/x-www-form-urlencoded".into()));
        body.implied_method = Some(|| Method::Post);
    } else if kinds[1] {
        let pieces = options.json.iter().map(|data| value(data)).collect::<Result<Vec<_>, _>>()?;
        body.source = Source::Memory(pieces.concat().into());
        body.fields.push((Known::ContentType, "application/json".into()));
        body.fields.push((Known::Accept, "application/json".into()));
        body.implied_method = Some(|| Method::Post);
    } else if kinds[2] {
        let boundary = boundary()?;
        body.source = Source::Memory(form(&options.form, &boundary)?.into());
        body.fields.push((Known::ContentType, format!("multipart/form-data; boundary={boundary}")));
        body.implied_method = Some(|| Method::Post);
    } else if let Some(path) = &options.upload_file {
        body.source = upload(path)?;
        body.implied_method = Some(|| Method::Put);
    }
    let length = match &body.source {
        Source::None => 0,
        Source::Memory(bytes) => bytes.len() as u64,
        Source::File(_, length) => *length,
        Source::Input(_) => u64::MAX,
    };
    body.expects_continue = length > 0 && (options.expect || length >= EXPECT_FROM_BYTES);
    Ok(body)
}

/// A value, or the content of the file behind an @.
fn value(text: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.as_bytes().to_vec()) };
    read(Path::new(path))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FORM_BYTES_MAX + 1).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(FORM_BYTES_MAX + 1).read_to_end(&mut content))
    };
    read.map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    if content.len() as u64 > FORM_BYTES_MAX {
        return Err(unusable(format!("{}: larger than 64 MiB; upload it with -T", path.display())));
    }
    Ok(content)
}

fn upload(path: &Path) -> Result<Source, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Source::Input(Cell::new(false)));
    }
    let bad = |error: std::io::Error| unusable(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(bad)?;
    let meta = file.metadata().map_err(bad)?;
    if !meta.is_file() {
        return Err(unusable(format!("{}: not a regular file; use -T - to send a stream", path.display())));
    }
    Ok(Source::File(file, meta.len()))
}

fn boundary() -> Result<String, Failure> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| unusable(format!("no randomness: {error}")))?;
    Ok(format!("eleven-{}", eleven_client::verify::hex(&random)))
}

/// multipart/form-data (RFC 7578), CRLF between parts (9110-8.3.3-01).
fn form(parts: &[String], boundary: &str) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| unusable(format!("-F {part:?} is not name=value or name=@FILE")))?;
        out.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; name=").as_bytes());
        push_quoted(&mut out, name);
        match value.strip_prefix('@') {
            None => {
                out.extend_from_slice(b"\r\n\r\n");
                out.extend_from_slice(value.as_bytes());
            }
            Some(spec) => push_file(&mut out, spec)?,
        }
        out.extend_from_slice(b"\r\n");
        if out.len() as u64 > FORM_BYTES_MAX {
            return Err(unusable("the form is larger than 64 MiB; upload large files with -T"));
        }
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok(out)
}

fn push_file(out: &mut Vec<u8>, spec: &str) -> Result<(), Failure> {
    let mut pieces = spec.split(';');
    let path = Path::new(pieces.next().unwrap_or(""));
    let (mut kind, mut name) = (None, None);
    for piece in pieces {
        match piece.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("filename", value)) => name = Some(value.to_owned()),
            _ => return Err(unusable(format!("-F: {piece:?} is neither type= nor filename="))),
        }
    }
    let name = name.unwrap_or_else(|| {
        path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned())
    });
    let kind = kind.unwrap_or("application/octet-stream");
    if !eleven_semantics::grammar::is_field_value(kind.as_bytes()) {
        return Err(unusable(format!("-F: {kind:?} is no media type")));
    }
    out.extend_from_slice(b"; filename=");
    push_quoted(out, &name);
    out.extend_from_slice(format!("\r\nContent-Type: {kind}\r\n\r\n").as_bytes());
    out.extend_from_slice(&read(path)?);
    Ok(())
}

/// A name as HTML's forms write it: quotes and line ends percent-encoded, everything else as it is.
fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'"' => out.extend_from_slice(b"%22"),
            b'\r' => out.extend_from_slice(b"%0D"),
            b'\n' => out.extend_from_slice(b"%0A"),
            b => out.push(b),
        }
    }
    out.push(b'"');
}

/// Standard input as it comes, read on a thread of its own so that nothing else waits for it.
fn standard_input() -> eleven_net::PipeReader<Option<eleven_semantics::Fields>> {
    let (mut writer, reader) = eleven_net::pipe(256 * 1024);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let piece = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(piece) = receiver.recv().await {
            match piece {
                Ok(bytes) => {
                    if writer.send(bytes).await.is_err() {
                        return;
                    }
                }
                Err(_) => return writer.abort(eleven_net::pipe::Reason::Storage),
            }
        }
        writer.complete(None);
    });
    reader
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9110-8.3.3-01; fault H24: no line ends in names.
    #[test]
    fn forms_are_multipart() {
        let path = std::env::temp_dir().join(format!("eleven-form-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let parts =
            ["a=b".to_owned(), format!("f=@{};type=text/plain;filename=x\"\r\ny.txt", path.display())];
        let text = String::from_utf8(form(&parts, "B").unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            text,
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n\
             --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x%22%0D%0Ay.txt\"\r\nContent-Type: text/plain\r\n\r\ncontent\r\n\
             --B--\r\n"
        );
        for bad in ["a", "f=@/nonexistent/file", "f=@/dev/null;color=red", "f=@/dev/null;type=a\nb"] {
            assert!(form(&[bad.to_owned()], "B").is_err(), "{bad}");
        }
    }
}
