//! Which proxy, if any, a request goes through: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` as
//! curl reads them, or what the user named (fault K45). Does not connect.
//!
//! `no_proxy` is a list separated by commas or white space. An entry is `*` (everything), an address, a network
//! (`10.0.0.0/8`), or a name, which also stands for all names below it; a leading dot changes nothing. Each may
//! end in `:port`, and then counts for that port only. Names are compared without regard to case.

use eleven_semantics::target::Scheme;
use eleven_semantics::uri::{Uri, Userinfo};
use std::net::IpAddr;

/// A proxy to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its scheme, host and port; the path is not used.
    pub uri: Uri,
    /// Credentials that stood in its URI.
    pub userinfo: Option<Userinfo>,
}

impl Proxy {
    /// Reads `[http[s]://][user:password@]host[:port]`. The port defaults to 80 or 443, as the scheme says.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Proxy, String> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        if full.to_ascii_lowercase().starts_with("socks") {
            return Err("SOCKS proxies are not supported; name an http:// or https:// proxy".into());
        }
        let (uri, userinfo) =
            Uri::parse(full.as_bytes()).map_err(|why| format!("the proxy's URI cannot be used: {why}"))?;
        Ok(Proxy { uri, userinfo })
    }
}

/// Everything that decides about proxies.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    no_proxy: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    what: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpAddr, u8),
    Name(String),
}

impl Proxies {
    /// No proxy for anything.
    pub fn none() -> Proxies {
        Proxies::default()
    }

    /// One proxy for everything but what `no_proxy` lists.
    ///
    /// # Errors
    /// As [`Proxy::parse`].
    pub fn one(proxy: &str, no_proxy: &str) -> Result<Proxies, String> {
        let proxy = Proxy::parse(proxy)?;
        Ok(Proxies { http: Some(proxy.clone()), https: Some(proxy), no_proxy: exceptions(no_proxy) })
    }

    /// From the environment. Only the lower-case `http_proxy` counts: the upper-case one is what a CGI host
    /// makes of a request's Proxy field. Of the others, lower case comes first.
    ///
    /// # Errors
    /// Which variable is wrong, and why.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Proxies, String> {
        let read = |names: &[&str]| -> Result<Option<Proxy>, String> {
            let found = names.iter().find_map(|name| get(name).filter(|v| !v.is_empty()).map(|v| (*name, v)));
            found
                .map(|(name, value)| Proxy::parse(&value).map_err(|why| format!("{name}: {why}")))
                .transpose()
        };
        let all = read(&["all_proxy", "ALL_PROXY"])?;
        let no_proxy = get("no_proxy").or_else(|| get("NO_PROXY")).unwrap_or_default();
        Ok(Proxies {
            http: read(&["http_proxy"])?.or_else(|| all.clone()),
            https: read(&["https_proxy", "HTTPS_PROXY"])?.or(all),
            no_proxy: exceptions(&no_proxy),
        })
    }

    /// The proxy for this URI, or none.
    pub fn select(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = match uri.scheme() {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }?;
        let exempt = self.no_proxy.iter().any(|exception| exception.matches(uri.host_bare(), uri.port()));
        (!exempt).then_some(proxy)
    }
}

fn exceptions(text: &str) -> Vec<Exception> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter_map(Exception::parse).collect()
}

impl Exception {
    /// `None` for an entry that names nothing; it then exempts nothing.
    fn parse(text: &str) -> Option<Exception> {
        if text == "*" {
            return Some(Exception { what: Hosts::All, port: None });
        }
        let number = |text: &str| eleven_semantics::grammar::decimal(text.as_bytes());
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = number(bits).filter(|&bits| bits <= width)?;
            return Some(Exception { what: Hosts::Network(address, bits as u8), port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Exception { what: Hosts::Network(address, 128), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(u16::try_from(number(port)?).ok()?)),
            None => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Exception { what: Hosts::Network(address, 128), port });
        }
        let name = host.trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Exception { what: Hosts::Name(name), port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match &self.what {
            Hosts::All => true,
            Hosts::Network(network, bits) => {
                host.parse().is_ok_and(|address| in_network(address, *network, u32::from(*bits)))
            }
            Hosts::Name(name) => {
                host == name
                    || (host.parse::<IpAddr>().is_err()
                        && host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.')))
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let shift = 32u32.saturating_sub(bits);
            a.to_bits().checked_shr(shift).unwrap_or(0) == n.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let shift = 128u32.saturating_sub(bits);
            a.to_bits().checked_shr(shift).unwrap_or(0) == n.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text.as_bytes()).unwrap().0
    }

    fn from(pairs: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::from_env(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn chosen(proxies: &Proxies, target: &str) -> Option<String> {
        proxies.select(&uri(target)).map(|proxy| proxy.uri.host_and_port())
    }

    #[test]
    fn the_environment_by_scheme() {
        let proxies = from(&[
            ("http_proxy", "p:3128"),
            ("HTTPS_PROXY", "https://user:pw@s"),
            ("HTTP_PROXY", "evil:1"),
            ("no_proxy", ""),
        ])
        .unwrap();
        assert_eq!(chosen(&proxies, "http://a/").as_deref(), Some("p:3128"));
        assert_eq!(chosen(&proxies, "https://a/").as_deref(), Some("s:443"));
        assert_eq!(proxies.select(&uri("https://a/")).unwrap().userinfo.as_ref().unwrap().user, b"user");
        let proxies = from(&[("HTTP_PROXY", "evil:1")]).unwrap();
        assert_eq!(chosen(&proxies, "http://a/"), None);
        let proxies = from(&[("all_proxy", "x"), ("http_proxy", "")]).unwrap();
        assert_eq!(chosen(&proxies, "http://a/").as_deref(), Some("x:80"));
        assert_eq!(chosen(&Proxies::none(), "http://a/"), None);
        for (name, value) in
            [("http_proxy", "socks5://p"), ("https_proxy", "http://p:x"), ("all_proxy", "a b")]
        {
            let error = from(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }

    /// Fault K45.
    #[test]
    fn exceptions_by_name_address_network_and_port() {
        for (no_proxy, target, exempt) in [
            ("*", "http://a/", true),
            ("example.com", "http://example.com/", true),
            ("example.com", "http://www.example.com/", true),
            (".example.com", "http://example.com/", true),
            ("EXAMPLE.com", "http://www.Example.COM/", true),
            ("example.com", "http://notexample.com/", false),
            ("www.example.com", "http://example.com/", false),
            ("a, b c,,d", "http://c/", true),
            ("a, b c,,d", "http://e/", false),
            ("a:8080", "http://a:8080/", true),
            ("a:8080", "http://a/", false),
            ("a:80", "http://a/", true),
            ("a:+80", "http://a/", false),
            ("127.0.0.1", "http://127.0.0.1:99/", true),
            ("127.0.0.1:80", "http://127.0.0.1:99/", false),
            ("10.0.0.0/8", "http://10.200.3.4/", true),
            ("10.0.0.0/8", "http://11.0.0.1/", false),
            ("10.0.0.0/33", "http://10.0.0.1/", false),
            ("0.0.0.0/0", "http://9.9.9.9/", true),
            ("0.0.0.0/0", "http://a/", false),
            ("::1", "http://[::1]/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("fd00::/8", "http://[fe12::1]/", false),
            ("0.0.1", "http://127.0.0.1/", false),
            (".", "http://a/", false),
            ("", "http://a/", false),
        ] {
            let proxies = Proxies::one("p:1", no_proxy).unwrap();
            assert_eq!(chosen(&proxies, target).is_none(), exempt, "{no_proxy} {target}");
        }
    }
}
