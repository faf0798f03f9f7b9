//! Second pass, the applications: Python in worker processes, and scripts behind a FastCGI server. Nothing is started or
//! connected to here.

use super::Builder;
use crate::config::raw::Table;
use eleven_net::listener::ListenAddr;
use eleven_server::apps::fastcgi::{FastCgiAddress, FastCgiSettings};
use eleven_server::apps::pool::PoolLimits;
use eleven_server::apps::{AppSettings, Buffering, Interface};
use eleven_server::plan::HandlerPlan;
use std::sync::Arc;

impl Builder<'_> {
    /// `app = {…}`
    pub(super) fn application(&mut self, table: &Table) -> HandlerPlan {
        let word = |name| table.text(name).map_or("", |text| text.text);
        let mut settings = AppSettings::new(word("application"));
        settings.interface = match word("interface") {
            "wsgi" => Interface::Wsgi,
            "asgi" => Interface::Asgi,
            _ => Interface::Auto,
        };
        settings.buffering = match word("buffering") {
            "always" => Buffering::Always,
            "never" => Buffering::Never,
            _ => Buffering::Auto,
        };
        // The application's own files are where the configuration file is, unless it says otherwise.
        settings.directory = Some(match table.text("directory") {
            Some(text) => self.root_directory(text),
            None => self.base(&table.span).to_path_buf(),
        });
        if let Some(text) = table.text("python") {
            // A bare name is looked for in PATH.
            settings.python = if text.text.contains('/') { self.path(text) } else { text.text.into() };
        }
        settings.environment = self.variables(table, "environment");
        settings.workers = table.number("workers") as usize;
        settings.threads = table.number("threads") as usize;
        settings.tasks = table.number("tasks") as usize;
        settings.limits = PoolLimits {
            queue_requests_max: table.number("queue_requests_max") as usize,
            queue_timeout_ms: table.number("queue_timeout"),
            request_timeout_ms: table.number("timeout"),
            ..PoolLimits::default()
        };
        settings.drain_timeout_ms = table.number("drain_timeout");
        settings.requests_max = table.number("requests_max");
        settings.age_max_s = table.optional_number("age_max").map_or(0, |ms| ms.div_ceil(1000));
        settings.memory_bytes_max = table.optional_number("memory_bytes_max").unwrap_or(0);
        settings.preload = table.flag("preload");
        if let Some(probe) = table.text("probe") {
            if !probe.text.starts_with('/') {
                self.complain(probe.span, "the probe is a path: it starts with `/`");
            }
            settings.probe = Some(probe.text.to_owned());
        }
        HandlerPlan::Application(Arc::new(settings))
    }

    /// `fastcgi = {…}`
    pub(super) fn fastcgi(&mut self, table: &Table) -> Option<HandlerPlan> {
        let server = table.text("server")?;
        let address = match server.text.parse() {
            Ok(ListenAddr::Unix(path)) => FastCgiAddress::Unix(self.base(server.span).join(path)),
            _ => match server.text.parse() {
                Ok(address) => FastCgiAddress::Tcp(address),
                Err(_) => {
                    self.error(server.span, format!("`{}` is no FastCGI server", server.text)).help(
                        "write `\"unix:/run/php/php-fpm.sock\"` or an address with its port, `\"127.0.0.1:9000\"`"
                            .into(),
                    );
                    return None;
                }
            },
        };
        let root = self.root_directory(table.text("root")?);
        let script_root = match table.text("script_root") {
            Some(text) => text.text.into(),
            // Scripts are run by another process, in another directory.
            None => root.canonicalize().unwrap_or_else(|_| root.clone()),
        };
        let mut settings = FastCgiSettings::new(address, script_root);
        let text = |name| table.text(name).map_or(String::new(), |text| text.text.to_owned());
        (settings.index, settings.suffix) = (text("index"), text("suffix"));
        for name in ["index", "suffix"] {
            if let Some(text) = table.text(name)
                && (text.text.is_empty() || text.text.contains('/'))
            {
                self.complain(text.span, format!("`{name}` is a name, without slashes"));
            }
        }
        settings.connect_timeout_ms = table.number("connect_timeout");
        settings.response_timeout_ms = table.number("timeout");
        settings.idle_per_thread_max = table.number("idle_per_thread_max") as usize;
        settings.idle_timeout_ms = table.number("idle_timeout");
        settings.variables = self.variables(table, "variables");
        Some(HandlerPlan::FastCgi(Arc::new(settings), root))
    }

    fn variables(&mut self, table: &Table, key: &str) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for text in table.texts(key) {
            match text.text.split_once('=') {
                Some((name, value)) if !name.is_empty() && !text.text.contains('\0') => {
                    variables.push((name.to_owned(), value.to_owned()));
                }
                _ => self.complain(text.span, format!("`{}` is not NAME=VALUE", text.text)),
            }
        }
        variables
    }
}
