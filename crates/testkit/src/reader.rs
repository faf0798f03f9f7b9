//! A small strict reader of HTTP/1.x messages for tests: it takes a message only in the one form that a careful
//! sender writes, and says what framing was used. Slow and simple on purpose, and written apart from the
//! product, so that both would have to be wrong in the same way. It serves no other purpose than judging what
//! the product wrote; it refuses much that a recipient must accept.

use crate::text::escape;
use std::io::Read;

/// Field lines and start line of one message, as sent; each octet is one character.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The request line or status line, without its line end.
    pub start: String,
    /// Names and values in the order sent.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The values of all lines of a field; `name` in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|field| field.1.as_str()).collect()
    }

    /// The value of a field that stands on one line, or none.
    ///
    /// # Panics
    /// When there are several lines.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands on {} lines: {all:?}", all.len());
        all.first().copied()
    }
}

/// How the end of the body was known (RFC 9112 §6.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Framing {
    /// No body by rule: to HEAD, 1xx, 204, 304, a tunnel, or a request without a length.
    #[default]
    None,
    /// Content-Length.
    Length(u64),
    /// Chunks; their sizes, and the transfer codings named before `chunked`.
    Chunked {
        /// The size of each chunk but the last.
        sizes: Vec<u64>,
        /// Codings applied before `chunked`: the body is still coded.
        codings: Vec<String>,
    },
    /// Until the connection ended.
    UntilClose,
}

/// One response with the interim responses before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// 1xx responses that came first.
    pub interim: Vec<Head>,
    /// The final response's head.
    pub head: Head,
    /// Its minor version: 0 or 1.
    pub minor: u8,
    /// Its status code.
    pub status: u16,
    /// What ended the body.
    pub framing: Framing,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// See [`Head::field`].
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the response announces that the connection ends after it.
    pub fn says_close(&self) -> bool {
        self.head.all("connection").iter().flat_map(|v| v.split(',')).any(|o| o.trim() == "close")
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Start line and fields.
    pub head: Head,
    /// The method.
    pub method: String,
    /// The request target as sent.
    pub target: String,
    /// What ended the body.
    pub framing: Framing,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: Vec<(String, String)>,
}

/// Reads messages from `R` one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    ended: bool,
}

const SINGLETONS: [&str; 12] = [
    "age",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "host",
    "last-modified",
    "location",
    "server",
];

impl<R: Read> Reader<R> {
    /// A reader at the start of a message.
    pub fn new(source: R) -> Reader<R> {
        Reader { source, buffer: Vec::new(), ended: false }
    }

    /// The connection, to write to.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next final response to a request with `method`, and the interim responses before it. After a 101,
    /// or a 2xx to CONNECT, what follows is the tunnel's: see [`Reader::exactly`].
    ///
    /// # Errors
    /// What is wrong with the message, and the octets at hand.
    pub fn response(&mut self, method: &str) -> Result<Response, String> {
        let mut response = Response::default();
        loop {
            let head = self.head()?;
            let (minor, status) = status_line(&head.start)?;
            check_response_fields(status, &head)?;
            if (100..200).contains(&status) && status != 101 {
                response.interim.push(head);
                continue;
            }
            (response.minor, response.status, response.head) = (minor, status, head);
            break;
        }
        let status = response.status;
        let bodiless = method == "HEAD" || status == 101 || status == 204 || status == 304;
        if bodiless || method == "CONNECT" && (200..300).contains(&status) {
            return Ok(response);
        }
        response.framing = declared_framing(&response.head, response.minor)?.unwrap_or(Framing::UntilClose);
        self.body(&mut response.framing, &mut response.body, &mut response.trailers)?;
        Ok(response)
    }

    /// The next request.
    ///
    /// # Errors
    /// As [`Reader::response`].
    pub fn request(&mut self) -> Result<Request, String> {
        let head = self.head()?;
        let words: Vec<&str> = head.start.split(' ').collect();
        let &[method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = words.as_slice() else {
            return Err(format!("bad request line \"{}\"", head.start));
        };
        if !is_token(method) || target.is_empty() || !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("bad request line \"{}\"", head.start));
        }
        let minor = u8::from(version == "HTTP/1.1");
        if minor == 1 && head.all("host").len() != 1 {
            return Err(format!("request with {} Host lines", head.all("host").len()));
        }
        let mut request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            framing: declared_framing(&head, minor)?.unwrap_or_default(),
            head,
            ..Request::default()
        };
        self.body(&mut request.framing, &mut request.body, &mut request.trailers)?;
        Ok(request)
    }

    /// Exactly `len` octets, such as those of a tunnel.
    ///
    /// # Errors
    /// When the connection ends or fails first.
    pub fn exactly(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < len {
            if !self.fill()? {
                let got = self.take(self.buffer.len());
                return Err(format!(
                    "the connection ended after {} of {len} octets: \"{}\"",
                    got.len(),
                    shown(&got)
                ));
            }
        }
        Ok(self.take(len))
    }

    /// Everything up to the end of the connection.
    ///
    /// # Errors
    /// When the connection is reset.
    pub fn rest(&mut self) -> Result<Vec<u8>, String> {
        while self.fill()? {}
        Ok(self.take(self.buffer.len()))
    }

    /// That the connection ends here, in order and without another octet.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(&mut self) -> Result<(), String> {
        match self.rest()?.as_slice() {
            [] => Ok(()),
            surplus => Err(format!("expected the end, got {} octets: \"{}\"", surplus.len(), shown(surplus))),
        }
    }

    /// Only the head of the next message, whichever it is: for tests that judge the rest octet by octet.
    ///
    /// # Errors
    /// As [`Reader::response`].
    pub fn head(&mut self) -> Result<Head, String> {
        let start = self.line()?;
        Ok(Head { start, fields: self.field_lines()? })
    }

    fn field_lines(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in \"{line}\""))?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            let clean = value.chars().all(|c| c == '\t' || c >= ' ' && c != '\x7f');
            if !is_token(name) || !clean || value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
                return Err(format!("bad field line \"{}\"", line.escape_debug()));
            }
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut looked_at = 0;
        loop {
            if let Some(at) = self.buffer[looked_at..].iter().position(|&b| b == b'\n') {
                let line = self.take(looked_at + at + 1);
                return match line.strip_suffix(b"\r\n") {
                    Some(line) if !line.contains(&b'\r') => Ok(line.iter().map(|&b| b as char).collect()),
                    _ => Err(format!("line with a bare CR or LF: \"{}\"", shown(&line))),
                };
            }
            looked_at = self.buffer.len();
            if !self.fill()? {
                return Err(format!("the connection ended within a line: \"{}\"", shown(&self.buffer)));
            }
        }
    }

    fn body(
        &mut self,
        framing: &mut Framing,
        body: &mut Vec<u8>,
        trailers: &mut Vec<(String, String)>,
    ) -> Result<(), String> {
        match framing {
            Framing::None => {}
            Framing::Length(len) => *body = self.exactly(*len as usize)?,
            Framing::UntilClose => *body = self.rest()?,
            Framing::Chunked { sizes, .. } => loop {
                let line = self.line()?;
                let digits = line.split(';').next().unwrap_or("");
                let hex =
                    !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let size = u64::from_str_radix(digits, 16).ok().filter(|_| hex);
                let size = size.ok_or_else(|| format!("bad chunk line \"{}\"", line.escape_debug()))?;
                if size == 0 {
                    *trailers = self.field_lines()?;
                    return Ok(());
                }
                sizes.push(size);
                body.extend(self.exactly(size as usize)?);
                if self.exactly(2)? != b"\r\n" {
                    return Err("chunk data is not followed by CRLF".into());
                }
            },
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<bool, String> {
        let mut piece = [0; 65536];
        while !self.ended {
            match self.source.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(len) => {
                    self.buffer.extend_from_slice(&piece[..len]);
                    return Ok(true);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("read: {e}; at hand: \"{}\"", shown(&self.buffer))),
            }
        }
        Ok(false)
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        self.buffer.drain(..len).collect()
    }
}

fn shown(bytes: &[u8]) -> String {
    escape(&bytes[..bytes.len().min(400)])
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn status_line(line: &str) -> Result<(u8, u16), String> {
    let bad = || format!("bad status line \"{}\"", line.escape_debug());
    let (minor, rest) = match (line.strip_prefix("HTTP/1.1 "), line.strip_prefix("HTTP/1.0 ")) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (0, rest),
        _ => return Err(bad()),
    };
    let (code, reason) = rest.split_once(' ').ok_or_else(bad)?;
    let digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    let status = code.parse().ok().filter(|status| digits && (100..600).contains(status)).ok_or_else(bad)?;
    if reason.chars().any(|c| c.is_control() && c != '\t') {
        return Err(bad());
    }
    Ok((minor, status))
}

fn check_response_fields(status: u16, head: &Head) -> Result<(), String> {
    for name in SINGLETONS {
        if head.all(name).len() > 1 {
            return Err(format!("{} lines of {name} in \"{}\"", head.all(name).len(), head.start));
        }
    }
    if let Some(date) = head.all("date").first().filter(|date| !is_imf_fixdate(date)) {
        return Err(format!("Date is not an IMF-fixdate: \"{date}\""));
    }
    let counted = !head.all("content-length").is_empty() || !head.all("transfer-encoding").is_empty();
    if counted && (status < 200 || status == 204) {
        return Err(format!("a {status} with Content-Length or Transfer-Encoding"));
    }
    Ok(())
}

/// The shape `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7), not its truth.
pub fn is_imf_fixdate(text: &str) -> bool {
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    text.is_ascii()
        && text.len() == 29
        && days.contains(&&text[..3])
        && months.contains(&&text[8..11])
        && shape[3..8] == *", 99 "
        && shape[11..] == *" 9999 99:99:99 GMT"
}

fn declared_framing(head: &Head, minor: u8) -> Result<Option<Framing>, String> {
    let (lengths, codings) = (head.all("content-length"), head.all("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(None),
        (&[length], []) => {
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            Ok(Some(Framing::Length(
                length.ok_or_else(|| format!("bad Content-Length in {:?}", head.fields))?,
            )))
        }
        ([], &[list]) if minor == 1 => {
            let mut codings: Vec<String> = list.split(", ").map(str::to_owned).collect();
            if codings.pop().as_deref() != Some("chunked") || codings.iter().any(|c| c != "gzip") {
                return Err(format!("bad Transfer-Encoding \"{list}\""));
            }
            Ok(Some(Framing::Chunked { sizes: Vec::new(), codings }))
        }
        _ => Err(format!("ambiguous framing: HTTP/1.{minor}, {:?}", head.fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, text: &str) -> Result<Response, String> {
        let whole = Reader::new(text.as_bytes()).response(method);
        let split = crate::deliver(text.as_bytes(), |pieces| {
            let chained = pieces.iter().fold(Box::new(std::io::empty()) as Box<dyn Read>, |chain, piece| {
                Box::new(chain.chain(std::io::Cursor::new(piece.to_vec())))
            });
            Reader::new(chained).response(method).ok()
        });
        assert_eq!(whole.as_ref().ok(), split.as_ref());
        whole
    }

    #[test]
    fn what_a_careful_sender_writes() {
        let r = read("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\nX: b\r\n\r\nhello").unwrap();
        assert_eq!(
            (r.status, r.minor, r.text(), r.framing.clone()),
            (200, 1, "hello".into(), Framing::Length(5))
        );
        assert_eq!((r.head.all("x"), r.field("y")), (vec!["a", "b"], None));
        let r = read("GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
        assert_eq!((r.status, r.interim.len(), r.framing), (204, 1, Framing::None));
        let r = read("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!((r.body.len(), r.framing), (0, Framing::None));
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
        let r = read("GET", text).unwrap();
        assert_eq!((r.text(), r.trailers), ("abc0123456789".into(), vec![("T".into(), "v".into())]));
        assert_eq!(r.framing, Framing::Chunked { sizes: vec![3, 10], codings: vec![] });
        let r = read("GET", "HTTP/1.0 200 \r\nConnection: x, close\r\n\r\nrest").unwrap();
        assert_eq!(
            (r.minor, r.says_close(), r.framing.clone(), r.text()),
            (0, true, Framing::UntilClose, "rest".into())
        );
    }

    #[test]
    fn what_no_careful_sender_writes() {
        for (text, why) in [
            ("HTTP/1.1 200 OK\nA: b\r\n\r\n", "bare CR or LF"),
            ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "bare CR or LF"),
            ("HTTP/1.1 200\r\n\r\n", "bad status line"),
            ("HTTP/2.0 200 OK\r\n\r\n", "bad status line"),
            ("HTTP/1.1 20 OK\r\n\r\n", "bad status line"),
            ("HTTP/1.1 +20 OK\r\n\r\n", "bad status line"),
            ("HTTP/1.1 600 OK\r\n\r\n", "bad status line"),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "bad field line"),
            ("HTTP/1.1 200 OK\r\nA\r\n\r\n", "no colon"),
            ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "bad field line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "bad Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "ended after 4 of 5"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
                "2 lines of content-length",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "ambiguous",
            ),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\n", "bad Transfer-Encoding"),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "a 204 with"),
            (
                "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
                "a 100 with",
            ),
            ("HTTP/1.1 200 OK\r\nDate: Sunday, 06-Nov-94 08:49:37 GMT\r\n\r\n", "not an IMF-fixdate"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "bad chunk line"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", "bad chunk line"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc0\r\n\r\n",
                "not followed by CRLF",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "ended within a line"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "ended within a line"),
        ] {
            let got = read("GET", text);
            assert!(got.as_ref().is_err_and(|e| e.contains(why)), "{text:?}: {got:?}");
        }
    }

    #[test]
    fn requests_and_what_follows() {
        let text = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.0\r\n\r\ntail";
        let mut reader = Reader::new(text.as_bytes());
        let request = reader.request().unwrap();
        assert_eq!(
            (request.method.as_str(), request.target.as_str(), request.body),
            ("POST", "/a", b"hi".to_vec())
        );
        assert_eq!(reader.request().unwrap().framing, Framing::None);
        assert!(reader.end().is_err_and(|e| e.contains("4 octets: \"tail\"")));
        assert!(reader.end().is_ok());
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "G@ / HTTP/1.0\r\n\r\n",
            "GET /\r\n\r\n",
        ] {
            assert!(Reader::new(bad.as_bytes()).request().is_err(), "{bad}");
        }
    }

    #[test]
    fn dates() {
        assert!(is_imf_fixdate("Sun, 06 Nov 1994 08:49:37 GMT"));
        for bad in
            ["Sun, 6 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 UTC", ""]
        {
            assert!(!is_imf_fixdate(bad), "{bad}");
        }
    }
}
