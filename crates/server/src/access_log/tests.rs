use super::format::Texts;
use super::*;
use eleven_semantics::{Fields, Version};
use std::sync::mpsc;

fn line(format: &Format, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    format.write(&mut out, record, &mut Texts::default(), 7);
    String::from_utf8(out).expect("lines are UTF-8")
}

fn record<'a>(target: &'a [u8], fields: &'a Fields) -> Record<'a> {
    Record {
        time_unix_ms: 784_111_777_042,
        client: Some("192.0.2.7".parse().unwrap()),
        method: b"GET",
        target,
        status: 200,
        content_bytes: 13,
        request_fields: Some(fields),
        duration_us: 1_234_567,
        ..Record::default()
    }
}

#[test]
fn common_and_combined_read_like_those_of_others() {
    let fields = Fields::from_iter(&[("Referer", "http://a/"), ("User-Agent", "curl/8")]);
    let record = Record { user: Some(b"ann"), ..record(b"/a?b", &fields) };
    assert_eq!(
        line(&Format::Common, &record),
        "192.0.2.7 - ann [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 13\n"
    );
    assert_eq!(
        line(&Format::Combined, &record),
        "192.0.2.7 - ann [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 13 \"http://a/\" \"curl/8\"\n"
    );
    let nothing = Record { version: Version::Http10, status: 400, ..Record::default() };
    assert_eq!(
        line(&Format::Combined, &nothing),
        "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 400 - \"-\" \"-\"\n"
    );
    let v6 = Record { client: Some("2001:db8::1".parse().unwrap()), ..nothing };
    assert!(line(&Format::Common, &v6).starts_with("2001:db8::1 - - "));
}

/// Faults L01, L02, L03, L04 and P26: one exchange is one line, and no octet acts on a terminal.
#[test]
fn nothing_a_peer_sends_breaks_a_line() {
    let every: Vec<u8> = (0..=255).collect();
    let mut fields = Fields::new();
    let visible: Vec<u8> = (0x21..=255).filter(|&b| b != 0x7f).collect();
    fields.push("User-Agent", &visible).unwrap();
    fields.push("Referer", "\"><script>\\").unwrap();
    let record = Record {
        user: Some(b"a\" \x1b[2J\nb c"),
        method: &every,
        host: &every,
        request_id: &every,
        ..record(&every, &fields)
    };
    let template =
        Template::parse("{user} {method} {target} {host} {request} \"{request.User-Agent}\" {request_id}")
            .unwrap();
    for format in [Format::Common, Format::Combined, Format::Json, Format::Template(template)] {
        let line = line(&format, &record);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let text = line.strip_suffix('\n').unwrap();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        if let Format::Json = format {
            let value: serde_json::Value = serde_json::from_str(text).expect("valid JSON");
            assert_eq!(value["status"], 200);
            assert_eq!(value["user"], "a\" \u{1b}[2J\nb c");
        } else {
            assert!(text.is_ascii(), "{text}");
        }
    }
    let line = line(&Format::Common, &record);
    assert!(line.contains("- a\\x22\\x20\\x1b[2J\\x0ab\\x20c ["), "{line}");
}

/// Fault L05.
#[test]
fn secrets_stay_out() {
    let fields = Fields::from_iter(&[("Referer", "http://a/?access_token=abc")]);
    let record = record(b"/x?q=1&token=s3cret&PASSWORD=hunter2&t=2&key=", &fields);
    for format in [Format::Combined, Format::Json] {
        let line = line(&format, &record);
        assert!(line.contains("/x?q=1&token=***&PASSWORD=***&t=2&key="), "{line}");
        assert!(!line.contains("s3cret") && !line.contains("hunter2"), "{line}");
    }
    for refused in [
        "{request.Authorization}",
        "{request.cookie}",
        "{response.Set-Cookie}",
        "{nonsense}",
        "{",
        "a}",
        "{request.}",
    ] {
        assert!(Template::parse(refused).is_err(), "{refused}");
    }
    assert_eq!(Template::parse("ok {client}{statuss}").unwrap_err().at, 11);
}

/// Fault L06.
#[test]
fn long_values_are_cut_and_marked() {
    let long = vec![b'a'; 5000];
    let fields = Fields::new();
    for format in [Format::Common, Format::Json] {
        let line = line(&format, &record(&long, &fields));
        assert!(line.len() < 3000 && line.contains("aaa...(2952 more)"), "{line}");
    }
}

/// Fault F39, F38: the calendar, at its edges.
#[test]
fn times_are_utc_in_any_year() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00"),
        (951_782_400, "2000-02-29T00:00:00"),
        (1_709_164_800, "2024-02-29T00:00:00"),
        (4_107_542_399, "2100-02-28T23:59:59"),
        (253_402_300_800, "10000-01-01T00:00:00"),
        (-1, "1969-12-31T23:59:59"),
    ] {
        let record = Record { time_unix_ms: seconds * 1000, ..Record::default() };
        let line = line(&Format::Json, &record);
        assert!(line.contains(expected), "{line}");
    }
    let _ = line(&Format::Json, &Record { time_unix_ms: i64::MAX, ..Record::default() });
    let _ = line(&Format::Json, &Record { time_unix_ms: i64::MIN, ..Record::default() });
}

#[test]
fn every_word_of_a_template_is_documented_and_known() {
    let source: String = template::WORDS.iter().map(|(word, _)| format!("{word}={{{word}}} ")).collect();
    let template = Template::parse(&source).expect("every documented word is known");
    let fields = Fields::new();
    let line = line(&Format::Template(template), &record(b"/", &fields));
    assert!(
        line.contains("duration=1.234 ") && line.contains("status=200 ") && line.contains("order=7 "),
        "{line}"
    );
    let braces = Template::parse("{{{status}}} {response.X-A}").unwrap();
    assert_eq!(super::tests::line(&Format::Template(braces), &record(b"/", &fields)), "{200} -\n");
}

/// What was not measured is a dash, and left out of an object.
#[test]
fn what_a_proxy_measured() {
    use crate::record::Attempts;
    let words =
        "{upstream_address} {upstream_tries} {upstream_connect_us} {upstream_head_us} {upstream_total_us}";
    let template = Format::Template(Template::parse(words).unwrap());
    let fields = Fields::new();
    let attempts = Attempts {
        tries: 2,
        address: Some("[2001:db8::1]:8080".parse().unwrap()),
        connect_us: None,
        head_us: Some(7),
        total_us: Some(12),
    };
    for (attempts, text, object) in [
        (None, "- - - - -\n", ""),
        (
            Some(attempts),
            "[2001:db8::1]:8080 2 - 7 12\n",
            r#","upstream_address":"[2001:db8::1]:8080","upstream_tries":2,"upstream_head_us":7,"upstream_total_us":12,"#,
        ),
        (Some(Attempts::default()), "- 0 - - -\n", r#","upstream_tries":0,"content_bytes""#),
    ] {
        let record = Record { attempts, ..record(b"/", &fields) };
        assert_eq!(line(&template, &record), text);
        let json = line(&Format::Json, &record);
        assert!(json.contains(object), "{json}");
        assert_eq!(json.contains("upstream_tries"), attempts.is_some(), "{json}");
    }
}

#[test]
fn lines_of_all_workers_reach_the_file_and_survive_a_rotation() {
    let dir = std::env::temp_dir().join(format!("eleven-access-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("access.log");
    let log = AccessLog::file(Format::Common, &path).unwrap();
    let fields = Fields::new();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let worker = log.worker();
            std::thread::spawn(move || {
                let fields = Fields::new();
                (0..500).for_each(|_| worker.record(&record(b"/first", &fields)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    log.flush();
    // Fault L07: whoever rotates moves the file away and then asks.
    std::fs::rename(&path, dir.join("access.log.1")).unwrap();
    log.reopen();
    log.flush();
    let worker = log.worker();
    worker.record(&record(b"/second", &fields));
    drop(log);
    let (old, new) =
        (std::fs::read_to_string(dir.join("access.log.1")).unwrap(), std::fs::read_to_string(&path).unwrap());
    assert_eq!(old.lines().count(), 1000);
    assert!(old.lines().all(|line| line.contains("/first") && line.ends_with("200 13")));
    assert_eq!(new.lines().count(), 1);
    assert!(new.contains("/second"));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A sink that blocks until it is told to go on.
struct Gate(mpsc::Receiver<()>, mpsc::Sender<usize>);

impl Write for Gate {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        let _ = self.1.send(lines.iter().filter(|&&b| b == b'\n').count());
        Ok(lines.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Faults L08 and F44: an output that does not move costs lines, never a request; what was dropped is counted.
/// Fault D38.
#[test]
fn a_stuck_output_costs_lines_and_never_waits() {
    let (open, gate) = mpsc::channel();
    let (count, counted) = mpsc::channel();
    let log = AccessLog::start(Format::Common, Output::Test(Box::new(Gate(gate, count)))).unwrap();
    let worker = log.worker();
    let fields = Fields::new();
    // More than fits: this loop would never end if a worker waited for the gate.
    let total = 5 * WAITING_BYTES_MAX / 70;
    for _ in 0..total {
        worker.record(&record(b"/", &fields));
    }
    let dropped = log.dropped();
    assert!(dropped > 0);
    drop(open);
    drop(log);
    let written: usize = counted.iter().sum();
    assert_eq!(written as u64 + dropped, total as u64);
}

/// Fault F10: a full disk costs lines, and they are counted.
#[test]
fn a_full_disk_costs_lines_and_is_counted() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = AccessLog::start(Format::Common, Output::Test(Box::new(Full))).unwrap();
    let worker = log.worker();
    let fields = Fields::new();
    (0..3).for_each(|_| worker.record(&record(b"/", &fields)));
    log.flush();
    assert_eq!(log.dropped(), 3);
}

/// Eight octets at a time or one: the same octets stand for themselves, wherever they stand.
#[test]
fn every_octet_is_seen_at_every_place() {
    for octet in 0..=255u8 {
        for length in 1..20 {
            for at in 0..length {
                let mut value = vec![b'a'; length];
                value[at] = octet;
                let fields = Fields::new();
                let mut line = Vec::new();
                let format = Format::Template(Template::parse("{method}").unwrap());
                let record = Record { method: &value, request_fields: Some(&fields), ..Record::default() };
                format.write(&mut line, &record, &mut Texts::default(), 1);
                let text = String::from_utf8(line).unwrap();
                let written = match octet {
                    b' ' | b'"' | b'\\' => format!("\\x{octet:02x}"),
                    0x21..0x7f => char::from(octet).to_string(),
                    _ => format!("\\x{octet:02x}"),
                };
                let (before, after) = ("a".repeat(at), "a".repeat(length - at - 1));
                assert_eq!(text, format!("{before}{written}{after}\n"), "{octet} at {at} of {length}");
            }
        }
    }
}

/// Fault L05: what a Referer gives away is hidden in every format.
#[test]
fn secrets_in_a_referer_are_hidden() {
    let fields = Fields::from_iter(&[("Referer", "https://a.test/?token=abc&x=1")]);
    for format in
        [Format::Combined, Format::Json, Format::Template(Template::parse("{request.Referer}").unwrap())]
    {
        let mut line = Vec::new();
        let record = Record { request_fields: Some(&fields), ..Record::default() };
        format.write(&mut line, &record, &mut Texts::default(), 1);
        let text = String::from_utf8(line).unwrap();
        assert!(text.contains("token=***&x=1") && !text.contains("abc"), "{text}");
    }
}
