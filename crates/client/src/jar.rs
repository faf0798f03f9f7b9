//! The cookie jar (RFC 6265bis §5.7 and §5.8): keeps what `semantics::cookie` accepts within limits, says what
//! to send, and reads and writes Netscape `cookies.txt`, which curl, wget and browsers' exporters share.

use eleven_semantics::cookie::{Context, Cookie, Ignored, SameSite, SetCookie};
use eleven_semantics::grammar::decimal;
use std::io;
use std::path::Path;

/// Set-Cookie fields taken from one response (fault K19).
pub const SET_COOKIES_MAX: usize = 50;
/// Cookies sent with one request (fault D16).
pub const SENT_MAX: usize = 150;
/// Octets of one Cookie field: what servers of common make take in one line (fault D16).
pub const COOKIE_FIELD_BYTES_MAX: usize = 8 * 1024 - 512;
/// Cookies of one domain (6265-6.1-01, fault K19).
pub const PER_DOMAIN_MAX: usize = 180;
/// Cookies altogether (6265-6.1-01, fault K19).
pub const TOTAL_MAX: usize = 3000;
/// Longest `cookies.txt` that is read, in octets.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whether a host name is a public suffix (6265-5.3-03). A name that the list does not know is one if it has a
/// single label.
pub fn is_public_suffix(domain: &str) -> bool {
    psl::suffix(domain.as_bytes()).is_some_and(|suffix| suffix.as_bytes() == domain.as_bytes())
}

/// A jar. Counts its own changes, so that a redirect loop with new cookies is known from one without.
#[derive(Debug, Clone, Default)]
pub struct Jar {
    cookies: Vec<Cookie>,
    generation: u64,
}

/// What is wrong with a line of `cookies.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLine {
    /// The line, from 1.
    pub line: usize,
}

impl Jar {
    /// An empty jar.
    pub fn new() -> Jar {
        Jar::default()
    }

    /// How many cookies are in it.
    pub fn len(&self) -> usize {
        self.cookies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Changes whenever the content does.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the Set-Cookie fields of a response (6265-3-02b: of any status). What is refused is returned with
    /// its reason and otherwise without effect.
    pub fn receive<'a>(
        &mut self,
        set_cookies: impl Iterator<Item = &'a [u8]>,
        context: &Context<'_>,
        now: i64,
    ) -> Vec<Ignored> {
        let mut ignored = Vec::new();
        for value in set_cookies.take(SET_COOKIES_MAX) {
            let result = SetCookie::parse(value)
                .and_then(|set| Cookie::receive(set, context, now, is_public_suffix))
                .and_then(|cookie| self.insert(cookie, context.secure));
            ignored.extend(result.err());
        }
        self.evict(now);
        ignored
    }

    fn insert(&mut self, mut cookie: Cookie, secure: bool) -> Result<(), Ignored> {
        if !secure && !cookie.secure && self.cookies.iter().any(|old| cookie.shadows_secure(old)) {
            return Err(Ignored::WouldShadowSecure);
        }
        self.generation += 1;
        // 6265-5.3-01g: the newer one takes the place, and the age, of the older.
        match self.cookies.iter_mut().find(|old| old.same_identity(&cookie)) {
            Some(old) => {
                cookie.created = old.created;
                *old = cookie;
            }
            None => self.cookies.push(cookie),
        }
        Ok(())
    }

    /// Makes room (6265-5.3-04 to -08): expired ones, then the least recently sent of domains with too many, those
    /// that are not Secure first, then the least recently sent of all.
    fn evict(&mut self, now: i64) {
        self.cookies.retain(|cookie| !cookie.is_expired(now));
        let mut counts: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
        for cookie in &self.cookies {
            *counts.entry(cookie.domain.as_str()).or_default() += 1;
        }
        let crowded: Vec<(String, usize)> = counts
            .into_iter()
            .filter(|(_, count)| *count > PER_DOMAIN_MAX)
            .map(|(domain, count)| (domain.to_owned(), count - PER_DOMAIN_MAX))
            .collect();
        for (domain, surplus) in crowded {
            self.drop_oldest(surplus, |cookie| cookie.domain == domain);
        }
        if self.cookies.len() > TOTAL_MAX {
            self.drop_oldest(self.cookies.len() - TOTAL_MAX, |_| true);
        }
    }

    fn drop_oldest(&mut self, surplus: usize, among: impl Fn(&Cookie) -> bool) {
        let mut order: Vec<usize> = (0..self.cookies.len()).filter(|&i| among(&self.cookies[i])).collect();
        order.sort_by_key(|&i| (self.cookies[i].secure, self.cookies[i].accessed, i));
        let drop: std::collections::HashSet<usize> = order.into_iter().take(surplus).collect();
        let mut index = 0;
        self.cookies.retain(|_| {
            index += 1;
            !drop.contains(&(index - 1))
        });
    }

    /// The value of Cookie for a request, or none. One field (6265-5.4-01), longer paths first, then older
    /// cookies (6265-5.4-05), within [`SENT_MAX`] and [`COOKIE_FIELD_BYTES_MAX`] (fault D16: a site that set too
    /// many stays usable).
    pub fn field(&mut self, context: &Context<'_>, safe_method: bool, now: i64) -> Option<Vec<u8>> {
        self.cookies.retain(|cookie| !cookie.is_expired(now));
        let mut chosen: Vec<usize> = (0..self.cookies.len())
            .filter(|&i| {
                let cookie = &self.cookies[i];
                cookie.belongs_to(context, safe_method)
                    && (cookie.host_only || !is_public_suffix(&cookie.domain))
            })
            .collect();
        // Stable: equal ages keep the order in which they came.
        chosen.sort_by_key(|&i| (std::cmp::Reverse(self.cookies[i].path.len()), self.cookies[i].created));
        let mut value = Vec::new();
        for i in chosen.into_iter().take(SENT_MAX) {
            let cookie = &mut self.cookies[i];
            let separator = if value.is_empty() { 0 } else { 2 };
            if value.len() + separator + cookie.name.len() + 1 + cookie.value.len() > COOKIE_FIELD_BYTES_MAX {
                continue;
            }
            if separator > 0 {
                value.extend_from_slice(b"; ");
            }
            if !cookie.name.is_empty() {
                value.extend_from_slice(&cookie.name);
                value.push(b'=');
            }
            value.extend_from_slice(&cookie.value);
            cookie.accessed = now;
        }
        (!value.is_empty()).then_some(value)
    }

    /// Adds cookies a user gave as `name=value; name=value` for one host, as session cookies.
    pub fn give(&mut self, text: &[u8], host: &str, now: i64) {
        for (name, value) in eleven_semantics::cookie::pairs(text) {
            let cookie = Cookie {
                name: name.to_vec(),
                value: value.to_vec(),
                domain: host.to_owned(),
                host_only: true,
                path: b"/".to_vec(),
                secure: false,
                http_only: false,
                same_site: SameSite::Default,
                expires: None,
                created: now,
                accessed: now,
            };
            // Given by the user, not by an unsecured server: no shadow check.
            let _ = self.insert(cookie, true);
        }
    }

    /// Reads Netscape's format: seven fields separated by tabs. A line that is wrong, or breaks a rule that a
    /// server's cookie would have to keep (fault K16: prefixes; fault K13: public suffixes), is left out and
    /// reported.
    pub fn read(&mut self, text: &[u8], now: i64) -> Vec<InvalidLine> {
        let mut invalid = Vec::new();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let (line, http_only) = match line.strip_prefix(b"#HttpOnly_") {
                Some(rest) => (rest, true),
                None => (line, false),
            };
            if line.is_empty() || (line[0] == b'#' && !http_only) {
                continue;
            }
            match read_line(line, http_only, now) {
                Some(cookie) if !cookie.is_expired(now) => {
                    let _ = self.insert(cookie, true);
                }
                Some(_) => {}
                None => invalid.push(InvalidLine { line: index + 1 }),
            }
        }
        self.evict(now);
        invalid
    }

    /// Writes Netscape's format. Session cookies are written with expiry 0 if `with_session` says so
    /// (6265-5.3-09 leaves out what belongs to a session that is over).
    pub fn write(&self, with_session: bool, now: i64) -> Vec<u8> {
        let mut out = b"# Netscape HTTP Cookie File\n\n".to_vec();
        for cookie in &self.cookies {
            let is_writable = |text: &[u8]| !text.iter().any(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0));
            if cookie.is_expired(now)
                || (cookie.expires.is_none() && !with_session)
                || ![&cookie.name, &cookie.value, &cookie.path].into_iter().all(|text| is_writable(text))
            {
                continue;
            }
            if cookie.http_only {
                out.extend_from_slice(b"#HttpOnly_");
            }
            if !cookie.host_only {
                out.push(b'.');
            }
            out.extend_from_slice(cookie.domain.as_bytes());
            let flag = |yes: bool| if yes { &b"TRUE"[..] } else { b"FALSE" };
            let expires = cookie.expires.unwrap_or(0).max(0).to_string();
            let columns = [
                flag(!cookie.host_only),
                &cookie.path,
                flag(cookie.secure),
                expires.as_bytes(),
                &cookie.name,
                &cookie.value,
            ];
            for column in columns {
                out.push(b'\t');
                out.extend_from_slice(column);
            }
            out.push(b'\n');
        }
        out
    }

    /// Reads a file; one that is not there is an empty jar.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than [`FILE_BYTES_MAX`].
    pub fn load(&mut self, path: &Path, now: i64) -> io::Result<Vec<InvalidLine>> {
        use std::io::Read;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a cookie file longer than 64 MiB"));
        }
        Ok(self.read(&text, now))
    }

    /// Writes a file for its owner only, wholly or not at all.
    ///
    /// # Errors
    /// If it cannot be written; then the old one is untouched.
    pub fn save(&self, path: &Path, with_session: bool, now: i64) -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let write = || -> io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&self.write(with_session, now))?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    }
}

fn read_line(line: &[u8], http_only: bool, now: i64) -> Option<Cookie> {
    let columns: Vec<&[u8]> = line.split(|&b| b == b'\t').collect();
    // curl leaves out an empty value together with its tab.
    let (columns, value) = match columns.as_slice() {
        [rest @ .., value] if rest.len() == 6 => (rest, *value),
        rest if rest.len() == 6 => (rest, &[][..]),
        _ => return None,
    };
    let flag = |text: &[u8]| match text {
        b"TRUE" => Some(true),
        b"FALSE" => Some(false),
        _ => None,
    };
    let (subdomains, path, secure, expires, name) =
        (flag(columns[1])?, columns[2], flag(columns[3])?, decimal(columns[4])?, columns[5]);
    let host = std::str::from_utf8(columns[0]).ok()?.trim_start_matches('.').to_ascii_lowercase();
    let valid = |text: &[u8]| text.iter().all(|&b| eleven_semantics::grammar::is_field_octet(b));
    if host.is_empty()
        || (subdomains && is_public_suffix(&host))
        || !path.starts_with(b"/")
        || !valid(name)
        || !valid(value)
        || !valid(path)
    {
        return None;
    }
    // The rules of a received cookie hold for one from a file as well.
    let set = SetCookie {
        name: name.to_vec(),
        value: value.to_vec(),
        domain: subdomains.then(|| host.clone().into_bytes()),
        path: Some(Some(path.to_vec())),
        secure,
        http_only,
        ..SetCookie::default()
    };
    let context = Context { host: &host, path, secure: true, same_site: true };
    let mut cookie = Cookie::receive(set, &context, now, is_public_suffix).ok()?;
    cookie.expires = i64::try_from(expires).ok().filter(|&at| at > 0);
    Some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn at<'a>(host: &'a str, path: &'a str, secure: bool) -> Context<'a> {
        Context { host, path: path.as_bytes(), secure, same_site: true }
    }

    fn receive(jar: &mut Jar, context: &Context<'_>, values: &[&str]) -> Vec<Ignored> {
        jar.receive(values.iter().map(|value| value.as_bytes()), context, NOW)
    }

    fn field(jar: &mut Jar, context: &Context<'_>) -> String {
        String::from_utf8(jar.field(context, true, NOW).unwrap_or_default()).unwrap()
    }

    /// 6265-5.3-01g, 6265-5.4-01, 6265-5.4-03, 6265-5.4-04d, 6265-5.4-04e, 6265-5.4-05.
    #[test]
    fn what_is_received_is_sent() {
        let mut jar = Jar::new();
        let site = at("www.example.com", "/a/b", false);
        receive(
            &mut jar,
            &site,
            &["root=1; Path=/", "deep=2; Path=/a", "other=3; Path=/x", "gone=4; Max-Age=0"],
        );
        assert_eq!(field(&mut jar, &site), "deep=2; root=1");
        receive(&mut jar, &site, &["root=new; Path=/", "later=5; Path=/"]);
        assert_eq!(field(&mut jar, &site), "deep=2; root=new; later=5");
        receive(&mut jar, &site, &["deep=; Path=/a; Max-Age=0", "nameless"]);
        assert_eq!(field(&mut jar, &site), "nameless; root=new; later=5");
        assert_eq!(field(&mut jar, &at("example.com", "/", false)), "");
        assert_eq!(field(&mut jar, &at("x.www.example.com", "/", false)), "");
    }

    /// 6265-5.3-03; faults K13 and K15, with the real list.
    #[test]
    fn suffixes_and_shadows() {
        for suffix in ["com", "co.uk", "github.io", "uk"] {
            assert!(is_public_suffix(suffix), "{suffix}");
        }
        for name in ["example.com", "a.co.uk", "x.github.io"] {
            assert!(!is_public_suffix(name), "{name}");
        }
        let mut jar = Jar::new();
        let secure = at("www.example.co.uk", "/", true);
        let plain = at("www.example.co.uk", "/", false);
        assert_eq!(receive(&mut jar, &plain, &["a=b; Domain=CO.UK"]), [Ignored::PublicSuffix]);
        assert_eq!(receive(&mut jar, &secure, &["sid=good; Secure; Domain=example.co.uk"]), []);
        assert_eq!(receive(&mut jar, &plain, &["sid=evil"]), [Ignored::WouldShadowSecure]);
        assert_eq!(field(&mut jar, &secure), "sid=good");
        assert_eq!(field(&mut jar, &plain), "");
    }

    /// 6265-5.3-02, 6265-5.3-05, 6265-5.3-06, 6265-5.4-02, 6265-6.1-01; faults K19 and D16.
    #[test]
    fn floods_are_bounded() {
        let mut jar = Jar::new();
        let site = at("www.example.com", "/", true);
        let many: Vec<String> = (0..1000).map(|n| format!("c{n}={}", "x".repeat(100))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        receive(&mut jar, &site, &many);
        assert_eq!(jar.len(), SET_COOKIES_MAX);
        receive(&mut jar, &site, &["keep=1; Secure"]);
        for chunk in many.chunks(SET_COOKIES_MAX) {
            receive(&mut jar, &site, chunk);
        }
        assert_eq!(jar.len(), PER_DOMAIN_MAX);
        let sent = field(&mut jar, &site);
        assert!(sent.len() <= COOKIE_FIELD_BYTES_MAX && sent.split("; ").count() <= SENT_MAX);
        assert!(jar.cookies.iter().any(|cookie| cookie.name == b"keep"), "a Secure one outlives the flood");
        for n in 0..TOTAL_MAX {
            let host = format!("h{n}.example.org");
            receive(&mut jar, &at(&host, "/", true), &["a=b; Secure"]);
        }
        assert_eq!(jar.len(), TOTAL_MAX);
    }

    /// 6265-5.3-09, 6265-7.2-01; fault K16: rules hold for cookies from a file as well, and a session's are left out.
    #[test]
    fn netscape_files() {
        let text = "# Netscape HTTP Cookie File\r\n\
            .example.com\tTRUE\t/\tFALSE\t2000000\ta\t1\n\
            www.example.com\tFALSE\t/x\tTRUE\t0\tb\t2\n\
            #HttpOnly_www.example.com\tFALSE\t/\tFALSE\t2000000\tc\t3\n\
            www.example.com\tFALSE\t/\tFALSE\t5\told\t4\n\
            www.example.com\tFALSE\t/\tFALSE\t2000000\tempty\n\
            .com\tTRUE\t/\tFALSE\t2000000\tbad\tsuffix\n\
            www.example.com\tFALSE\t/\tFALSE\t2000000\t__Secure-x\tbad\n\
            www.example.com\tmaybe\t/\tFALSE\t2000000\tbad\tflag\n\
            www.example.com\tFALSE\t/\tFALSE\t+5\tbad\tnumber\n\
            too\tfew\n";
        let mut jar = Jar::new();
        let invalid: Vec<usize> = jar.read(text.as_bytes(), NOW).iter().map(|bad| bad.line).collect();
        assert_eq!(invalid, [7, 8, 9, 10, 11]);
        assert_eq!(field(&mut jar, &at("www.example.com", "/x/y", true)), "b=2; a=1; c=3; empty=");
        let written = jar.write(true, NOW);
        let mut again = Jar::new();
        assert!(again.read(&written, NOW).is_empty());
        assert_eq!(again.write(true, NOW), written);
        let persistent = String::from_utf8(jar.write(false, NOW)).unwrap();
        assert!(!persistent.contains("\tb\t2") && persistent.contains("#HttpOnly_www.example.com"));
    }

    /// Fault F29.
    #[test]
    fn saved_for_the_owner_only_and_whole() {
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("eleven-jar-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("cookies.txt");
        let mut jar = Jar::new();
        assert!(jar.load(&path, NOW).unwrap().is_empty());
        receive(&mut jar, &at("www.example.com", "/", true), &["a=b; Max-Age=100"]);
        jar.save(&path, true, NOW).unwrap();
        jar.save(&path, true, NOW).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut loaded = Jar::new();
        loaded.load(&path, NOW).unwrap();
        assert_eq!(field(&mut loaded, &at("www.example.com", "/", true)), "a=b");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// 6265-5.3-04, 6265-5.3-07, 6265-5.3-08: the expired go first, then those of a domain with too many, and among equals
    /// the one whose last sending is longest ago.
    #[test]
    fn who_goes_first() {
        let mut jar = Jar::new();
        let (crowded, other) = (at("www.example.com", "/", true), at("www.example.org", "/", true));
        receive(&mut jar, &other, &["oldest=1; Secure"]);
        receive(&mut jar, &crowded, &["short=1; Secure; Max-Age=5"]);
        let fill: Vec<String> = (0..PER_DOMAIN_MAX).map(|n| format!("c{n}=1; Secure; Path=/p{n}")).collect();
        let fill: Vec<&str> = fill.iter().map(String::as_str).collect();
        let has = |jar: &Jar, name: &str| jar.cookies.iter().any(|cookie| cookie.name == name.as_bytes());
        for chunk in fill.chunks(SET_COOKIES_MAX).take(3) {
            receive(&mut jar, &crowded, chunk);
        }
        // Later: the expired one is gone; the first one filled in was sent in between, the second was not.
        let later = NOW + 10;
        assert!(jar.field(&at("www.example.com", "/p0", true), true, later).is_some());
        jar.receive(fill[150..].iter().map(|value| value.as_bytes()), &crowded, later);
        assert!(!has(&jar, "short") && jar.len() == PER_DOMAIN_MAX + 1);
        jar.receive([&b"more=1; Secure"[..]].into_iter(), &crowded, later);
        assert!(has(&jar, "c0") && !has(&jar, "c1") && has(&jar, "more") && has(&jar, "oldest"));
        assert_eq!(jar.len(), PER_DOMAIN_MAX + 1);
    }

    #[test]
    fn cookies_given_by_the_user() {
        let mut jar = Jar::new();
        let before = jar.generation();
        jar.give(b"a=b; c=d", "www.example.com", NOW);
        assert_ne!(jar.generation(), before);
        assert_eq!(field(&mut jar, &at("www.example.com", "/", false)), "a=b; c=d");
        assert_eq!(field(&mut jar, &at("other.example.com", "/", false)), "");
    }
}
