//! What a user sees: progress, notes, errors. Everything a server sent is made harmless before it reaches a
//! terminal (fault K30), and secrets are hidden (fault K31).

use super::options::{Get, ProgressStyle};
use eleven_client::Failure;
use eleven_client::agent::{Listener, Times, Told};
use eleven_client::progress::{Event, Progress};
use eleven_messaging::ResponseHead;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as Style};
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

/// Text by a stranger, fit for a terminal: controls, and what turns text around, in their `\x` form.
pub fn harmless(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.push_str(&format!("\\u{{{:x}}}", c as u32));
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Fields whose values nobody should read over a shoulder.
const SECRET: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "www-authenticate-token"];

/// A head as received or sent, fit for a terminal: one line each, secrets hidden.
pub fn head_lines(octets: &[u8]) -> Vec<String> {
    octets
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let name = line.split(|&b| b == b':').next().unwrap_or(&[]).to_ascii_lowercase();
            let secret = SECRET.iter().any(|secret| secret.as_bytes() == name)
                || eleven_semantics::redirect::is_sensitive_name(&name) && name != b"www-authenticate";
            match line.iter().position(|&b| b == b':') {
                Some(at) if secret => format!("{}: <hidden>", harmless(&line[..at])),
                _ => harmless(line),
            }
        })
        .collect()
}

/// The head of a response as it would look on the wire.
pub fn response_head(head: &ResponseHead) -> Vec<u8> {
    let version = match head.version {
        eleven_semantics::Version::Http11 => "HTTP/1.1",
        eleven_semantics::Version::Http10 => "HTTP/1.0",
        eleven_semantics::Version::Http09 => "HTTP/0.9",
    };
    let mut out = format!("{version} {} ", head.status.code()).into_bytes();
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(head.fields.wire());
    out.extend_from_slice(b"\r\n");
    out
}

/// How things are shown.
pub struct Show {
    quiet: bool,
    verbose: bool,
    timing: bool,
    style: ProgressStyle,
    terminal: bool,
    bars: MultiProgress,
    timings: RefCell<Vec<(String, Times, Option<(u64, Duration)>, u64)>>,
}

impl Show {
    /// By the options, and whether standard error is a terminal.
    pub fn new(options: &Get) -> Show {
        let terminal = std::io::stderr().is_terminal();
        let style = match options.progress {
            _ if options.quiet => ProgressStyle::None,
            ProgressStyle::Auto if terminal && options.saves() => ProgressStyle::Bar,
            ProgressStyle::Auto => ProgressStyle::None,
            other => other,
        };
        let target = if style == ProgressStyle::Bar {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Show {
            quiet: options.quiet,
            verbose: options.verbose > 0,
            timing: options.timing,
            style,
            terminal,
            bars: MultiProgress::with_draw_target(target),
            timings: RefCell::default(),
        }
    }

    fn line(&self, text: &str) {
        // Beneath the bars, not through them. A closed standard error is nobody to tell.
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Something worth a line; only for people, not for logs.
    pub fn note(&self, text: &str) {
        if !self.quiet && (self.terminal || self.verbose) {
            self.line(&format!("eleven: {}", harmless(text.as_bytes())));
        }
    }

    /// Something a user must know even if nobody looks.
    pub fn warn(&self, text: &str) {
        self.line(&format!("eleven: warning: {}", harmless(text.as_bytes())));
    }

    /// What went wrong.
    pub fn error(&self, text: &str) {
        if self.style == ProgressStyle::Json {
            self.line(&serde_json::json!({"event": "error", "message": text}).to_string());
        } else {
            self.line(&format!("eleven: {}", harmless(text.as_bytes())));
        }
    }

    /// A failure: phase, peer, cause, and what to try.
    pub fn failure(&self, failure: &Failure) {
        let advice = failure.advice().map_or(String::new(), |advice| format!(" ({advice})"));
        self.error(&format!("{failure}{advice}"));
    }

    /// Shows heads and collects times, as the agent tells of them.
    pub fn listener(self: &Rc<Show>) -> Option<Listener> {
        if !self.verbose && !self.timing {
            return None;
        }
        let show = Rc::clone(self);
        Some(Rc::new(move |told| show.hear(told)))
    }

    fn hear(&self, told: &Told<'_>) {
        let lines = |prefix: &str, octets: &[u8]| {
            if self.verbose {
                head_lines(octets).iter().for_each(|line| self.line(&format!("{prefix} {line}")));
            }
        };
        match told {
            Told::Request(id, connection, uri) => {
                if self.verbose {
                    let address = connection.address().map_or(String::new(), |a| format!(" [{a}]"));
                    self.line(&format!("* {}{address}", harmless(connection.host().as_bytes())));
                }
                lines(">", connection.queued());
                if self.timing {
                    self.timings.borrow_mut().push((uri.to_string(), Times::default(), None, *id));
                }
            }
            Told::Interim(_, head) => lines("<", &response_head(head)),
            Told::Head(id, head, times) => {
                lines("<", &response_head(head));
                if let Some(entry) = self.timings.borrow_mut().iter_mut().find(|entry| entry.3 == *id) {
                    entry.1 = **times;
                }
            }
            Told::End(id, octets, took, _) => {
                if let Some(entry) = self.timings.borrow_mut().iter_mut().find(|entry| entry.3 == *id) {
                    entry.2 = Some((*octets, *took));
                }
            }
            Told::Redirected(from, to) => {
                if self.verbose {
                    self.line(&format!("* redirected from {from} to {to}"));
                }
            }
            Told::Retry(failure, pause) => {
                if self.verbose {
                    self.line(&format!("* sent again after {} ms: {failure}", pause.as_millis()));
                }
            }
        }
    }

    /// The listener for one download.
    pub fn progress(self: &Rc<Show>, label: String) -> Progress {
        let show = Rc::clone(self);
        let bar: RefCell<Option<ProgressBar>> = RefCell::new(None);
        Rc::new(move |event| match show.style {
            ProgressStyle::Json => show.json(&label, event),
            ProgressStyle::Bar => show.bar(&bar, event),
            _ => show.words(event),
        })
    }

    fn words(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => self.note(text),
            Event::Retry(failure, pause) => {
                self.note(&format!("{failure}; trying again in {:.1} s", pause.as_secs_f64()));
            }
            _ => {}
        }
    }

    fn bar(&self, slot: &RefCell<Option<ProgressBar>>, event: &Event<'_>) {
        match event {
            Event::Begun { name, length, resumed } => {
                let bar = slot.borrow_mut().take().unwrap_or_else(|| self.bars.add(ProgressBar::no_length()));
                let template = match length {
                    Some(_) => "{msg:30!} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                    None => "{msg:30!} {spinner} {bytes} {bytes_per_sec} {elapsed}",
                };
                if let Ok(style) = Style::with_template(template) {
                    bar.set_style(style);
                }
                if let Some(length) = length {
                    bar.set_length(*length);
                }
                bar.set_message(harmless(name.as_bytes()));
                bar.set_position(*resumed);
                bar.reset_eta();
                *slot.borrow_mut() = Some(bar);
            }
            Event::Here(bytes) => {
                if let Some(bar) = &*slot.borrow() {
                    bar.set_position(*bytes);
                }
            }
            Event::Done { bytes, .. } => {
                if let Some(bar) = &*slot.borrow() {
                    bar.set_length(*bytes);
                    bar.set_position(*bytes);
                    bar.finish();
                }
            }
            other => self.words(other),
        }
    }

    fn json(&self, label: &str, event: &Event<'_>) {
        use serde_json::json;
        let value = match event {
            Event::Begun { name, length, resumed } => {
                json!({"event": "begun", "url": label, "name": name, "length": length, "resumed": resumed})
            }
            Event::Here(bytes) => json!({"event": "progress", "url": label, "bytes": bytes}),
            Event::Connections(count) => json!({"event": "connections", "url": label, "count": count}),
            Event::Note(text) => json!({"event": "note", "url": label, "message": text}),
            Event::Retry(failure, pause) => json!({
                "event": "retry", "url": label, "message": failure.to_string(), "pause_ms": pause.as_millis() as u64
            }),
            Event::Verifying => json!({"event": "verifying", "url": label}),
            Event::Done { path, bytes } => json!({
                "event": "done", "url": label, "bytes": bytes,
                "path": path.map(|path| path.display().to_string())
            }),
        };
        self.line(&value.to_string());
    }

    /// The end: the table of times, if it was asked for.
    pub fn finish(&self) {
        if !self.timing {
            return;
        }
        self.line(
            " blocked  resolve  connect   tunnel      tls     wait  content     octets  url (times in ms)",
        );
        for (uri, times, content, _) in self.timings.borrow().iter() {
            let ms = |duration: Duration| format!("{:8.1}", duration.as_secs_f64() * 1000.0);
            let (octets, took) = content.unwrap_or_default();
            let reused = if times.reused { " (connection reused)" } else { "" };
            self.line(&format!(
                "{} {} {} {} {} {} {} {octets:10}  {}{reused}",
                ms(times.blocked),
                ms(times.open.resolve),
                ms(times.open.connect),
                ms(times.open.tunnel),
                ms(times.open.tls),
                ms(times.wait),
                ms(took),
                harmless(uri.as_bytes()),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults K30, L02.
    #[test]
    fn strangers_text_cannot_steer_a_terminal() {
        for (text, expected) in [
            (&b"plain \xc3\xbc"[..], "plain \u{fc}"),
            (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
            (b"a\r\nb", "a\\x0d\\x0ab"),
            (b"\x7f\xc2\x9b31m", "\\x7f\\u{9b}31m"),
            ("\u{202e}cod.exe".as_bytes(), "\\u{202e}cod.exe"),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }

    /// Fault K31, L05.
    #[test]
    fn secrets_are_hidden() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic c2VjcmV0\r\nX-Auth-Token: t0p\r\nCookie: sid=1\r\nWWW-Authenticate: Basic realm=x\r\n\r\nbody";
        let text = head_lines(head).join("\n");
        assert!(
            !text.contains("c2Vj")
                && !text.contains("t0p")
                && !text.contains("sid=1")
                && !text.contains("body"),
            "{text}"
        );
        assert!(
            text.contains("Host: h") && text.contains("Authorization: <hidden>") && text.contains("realm=x")
        );
    }
}
