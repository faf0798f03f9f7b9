//! How each program is started for a comparison: the same files, one worker, no access log, on one core. The
//! configuration of peers stands here in full, so that a reader can judge whether it is fair.

use crate::many_sites;
use crate::process::{LOAD_CORE, Program, SERVER_CORE, free_port};
use std::path::{Path, PathBuf};

/// The files that everybody serves.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
}

/// Octets of the small file.
pub const SMALL_BYTES: usize = 13;
/// Octets of the page.
pub const PAGE_BYTES: usize = 612;
/// Octets of the large file.
pub const LARGE_BYTES: u64 = 256 << 20;

impl Site {
    /// Makes the files in a new folder.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn make() -> std::io::Result<Site> {
        let folder = std::env::temp_dir().join(format!("eleven-benches-{}", std::process::id()));
        let root = folder.join("root");
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("small.txt"), vec![b'x'; SMALL_BYTES])?;
        std::fs::write(root.join("page.html"), vec![b'x'; PAGE_BYTES])?;
        // Written and not only declared long, so that it is in the page cache as a real file would be.
        let mut large = std::io::BufWriter::new(std::fs::File::create(root.join("large.bin"))?);
        let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        for _ in 0..LARGE_BYTES >> 20 {
            std::io::Write::write_all(&mut large, &block)?;
        }
        Ok(Site { folder })
    }

    /// The folder to serve.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A file beside the root, for configurations.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// The smallest program: this one, started again.
///
/// # Errors
/// As [`Program::start`].
pub fn smallest(manner: &str, body_bytes: usize) -> Result<Program, String> {
    let port = free_port();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let args = texts(&["smallest", &port.to_string(), manner, &body_bytes.to_string()]);
    Program::start("smallest", port, &own, &args)
}

/// The smallest relay in front of `origin`.
///
/// # Errors
/// As [`Program::start`].
pub fn relay(origin: u16) -> Result<Program, String> {
    let port = free_port();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    Program::start("smallest relay", port, &own, &texts(&["relay", &port.to_string(), &origin.to_string()]))
}

/// An origin server for proxies, on the core of the load.
///
/// # Errors
/// As [`Program::start`].
pub fn origin(core: &str) -> Result<Program, String> {
    let port = free_port();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let args = texts(&["smallest", &port.to_string(), "keep", &SMALL_BYTES.to_string()]);
    Program::start_on(core, "origin", port, &own, &args)
}

/// An origin server of responses of `body_bytes`, on the core of the load.
///
/// # Errors
/// As [`Program::start`].
pub fn large_origin(core: &str, body_bytes: u64) -> Result<Program, String> {
    let port = free_port();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let args = texts(&["stream", &port.to_string(), &body_bytes.to_string()]);
    Program::start_on(core, "origin", port, &own, &args)
}

/// An origin server that switches protocols and sends back what comes, on the core of the load.
///
/// # Errors
/// As [`Program::start`].
pub fn echo_origin(core: &str) -> Result<Program, String> {
    let port = free_port();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    Program::start_on(core, "origin", port, &own, &texts(&["echo", &port.to_string()]))
}

/// `eleven serve`.
///
/// # Errors
/// As [`Program::start`].
pub fn eleven(binary: &Path, site: &Site) -> Result<Program, String> {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let root = site.root();
    let args = texts(&["serve", &root.to_string_lossy(), "--quiet", "--workers", "1", "--listen", &listen]);
    Program::start("eleven", port, binary, &args)
}

/// `eleven serve` over TLS.
///
/// # Errors
/// As [`Program::start`].
pub fn eleven_secured(binary: &Path, site: &Site, certificate: &Path, key: &Path) -> Result<Program, String> {
    let port = free_port();
    let (listen, root) = (format!("127.0.0.1:{port}"), site.root());
    let mut args =
        texts(&["serve", &root.to_string_lossy(), "--quiet", "--workers", "1", "--listen", &listen]);
    args.extend(texts(&["--tls-cert", &certificate.to_string_lossy(), "--tls-key", &key.to_string_lossy()]));
    Program::start("eleven", port, binary, &args)
}

/// nginx over TLS, with the versions that eleven has, and everything else as it comes.
///
/// # Errors
/// As [`nginx`].
pub fn nginx_secured(site: &Site, certificate: &Path, key: &Path) -> Result<Program, String> {
    let location = format!("root {};", site.root().display());
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
        certificate.display(),
        key.display()
    );
    start_nginx_listening(SERVER_CORE, site, "nginx", "ssl", &tls, &location, "")
}

/// eleven with fifty sites of twenty routes each, an access log and compression.
///
/// # Errors
/// When the configuration cannot be written, and as [`Program::start`].
pub fn eleven_configured(binary: &Path, site: &Site) -> Result<Program, String> {
    let port = free_port();
    let log = site.beside("access.log");
    let config = many_sites::configuration(&site.root(), &log, &format!("127.0.0.1:{port}"));
    let path = site.beside("eleven.toml");
    std::fs::write(&path, config).map_err(|e| e.to_string())?;
    let args = texts(&["serve", "--config", &path.to_string_lossy()]);
    Program::start("eleven, 50 sites, log, compression", port, binary, &args)
}

/// `eleven proxy` in front of `origin`.
///
/// # Errors
/// As [`Program::start`].
pub fn eleven_gateway(binary: &Path, origin: u16) -> Result<Program, String> {
    let port = free_port();
    let (listen, server) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{origin}"));
    let args = texts(&["proxy", &server, "--quiet", "--workers", "1", "--listen", &listen]);
    Program::start("eleven", port, binary, &args)
}

/// nginx with one worker; `open_files` lets it keep descriptors open between requests.
///
/// # Errors
/// When it is not installed, and as [`Program::start`].
pub fn nginx(site: &Site, open_files: bool) -> Result<Program, String> {
    let location = format!("root {};", site.root().display());
    let cache = if open_files { "open_file_cache max=1000 inactive=60s;" } else { "" };
    let name = if open_files { "nginx, open_file_cache" } else { "nginx" };
    start_nginx(site, name, cache, &location, "")
}

/// nginx as a gateway with connections to `origin` kept open; as a tunnel for connections that switch protocols where
/// `switches`, which it does not do without being told.
///
/// # Errors
/// As [`nginx`].
pub fn nginx_gateway(site: &Site, origin: u16, switches: bool) -> Result<Program, String> {
    let connection = if switches {
        "proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;"
    } else {
        "proxy_set_header Connection \"\";"
    };
    let location = format!("proxy_pass http://origin; proxy_http_version 1.1; {connection}");
    let upstream = format!(
        "upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000000; }}"
    );
    start_nginx(site, "nginx", "", &location, &upstream)
}

/// nginx as the origin of downloads, on the core of the load; perhaps with so many octets a second for a connection.
///
/// # Errors
/// As [`nginx`].
pub fn nginx_origin(site: &Site, bytes_per_s: Option<u64>) -> Result<Program, String> {
    let limit = bytes_per_s.map_or(String::new(), |rate| format!("limit_rate {rate};"));
    let location = format!("root {};", site.root().display());
    start_nginx_on(LOAD_CORE, site, "nginx", &limit, &location, "")
}

/// nginx as the origin server of caches, on the core of the load: files that are fresh for a day, any name beneath
/// `/o/`; any name beneath `/brief/`, fresh for a second and sent in two; and a count of its requests at `/status`.
///
/// # Errors
/// As [`nginx`].
pub fn nginx_cacheable(site: &Site) -> Result<Program, String> {
    let location = format!(
        "root {root}; add_header Cache-Control max-age=86400; }} location = /status {{ stub_status; }} \
         location /brief/ {{ root {root}; try_files /object =404; add_header Cache-Control max-age=1; limit_rate 2k; }} \
         location /o/ {{ root {root}; try_files /object =404; add_header Cache-Control max-age=86400;",
        root = site.root().display()
    );
    start_nginx_on(LOAD_CORE, site, "origin", "", &location, "")
}

/// nginx as a cache in front of `origin`, its files in memory as far as the kernel keeps them there.
///
/// # Errors
/// As [`nginx`].
pub fn nginx_cache(site: &Site, origin: u16) -> Result<Program, String> {
    let folder = site.beside(&format!("nginx-cache-{}", free_port()));
    let http = format!(
        "proxy_cache_path {} levels=1:2 keys_zone=all:64m max_size=64m inactive=1d use_temp_path=off;",
        folder.display()
    );
    let location = "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                    proxy_cache all; proxy_cache_lock on; open_file_cache max=20000 inactive=60s;";
    let upstream = format!(
        "upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000000; }}"
    );
    start_nginx(site, "nginx", &http, location, &upstream)
}

fn start_nginx(
    site: &Site,
    name: &str,
    http: &str,
    location: &str,
    upstream: &str,
) -> Result<Program, String> {
    start_nginx_on(SERVER_CORE, site, name, http, location, upstream)
}

fn start_nginx_on(
    core: &str,
    site: &Site,
    name: &str,
    http: &str,
    location: &str,
    upstream: &str,
) -> Result<Program, String> {
    start_nginx_listening(core, site, name, "", http, location, upstream)
}

fn start_nginx_listening(
    core: &str,
    site: &Site,
    name: &str,
    how: &str,
    http: &str,
    location: &str,
    upstream: &str,
) -> Result<Program, String> {
    let port = free_port();
    let folder = site.beside(&format!("nginx-{port}"));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let config = format!(
        "daemon off;\nworker_processes 1;\nuser root;\npid {folder}/pid;\nerror_log {folder}/error.log crit;\n\
         worker_rlimit_nofile 20000;\nevents {{ worker_connections 20000; multi_accept on; }}\n\
         http {{\n access_log off; sendfile on; tcp_nopush on; keepalive_timeout 300s;\n\
         keepalive_requests 1000000000; types {{ text/plain txt; text/html html; }}\n\
         client_header_timeout 60s; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n\
         fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n {http}\n {upstream}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096 {how}; location / {{ {location} }} }}\n}}\n",
        folder = folder.display()
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config).map_err(|e| e.to_string())?;
    Program::start_on(core, name, port, Path::new("nginx"), &texts(&["-c", &path.to_string_lossy()]))
}

/// HAProxy as a gateway, one thread.
///
/// # Errors
/// When it is not installed, and as [`Program::start`].
pub fn haproxy_gateway(site: &Site, origin: u16) -> Result<Program, String> {
    let port = free_port();
    let config = format!(
        "global\n nbthread 1\n maxconn 9000\ndefaults\n mode http\n timeout client 300s\n timeout server 300s\n\
         timeout connect 5s\n http-reuse always\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\n\
         backend b\n server o 127.0.0.1:{origin}\n"
    );
    let path = site.beside("haproxy.cfg");
    std::fs::write(&path, config).map_err(|e| e.to_string())?;
    Program::start("haproxy", port, Path::new("haproxy"), &texts(&["-db", "-f", &path.to_string_lossy()]))
}
