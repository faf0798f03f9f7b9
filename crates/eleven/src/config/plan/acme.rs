//! `[acme]` and `acme = true` of sites: which certificates are ordered, from whom, and where they are kept.

use super::Builder;
use crate::config::raw::Table;
use eleven_net::tls_config::Identity;
use eleven_server::plan::{AcmeCertificate, AcmePlan};

/// Let's Encrypt's test system.
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

impl Builder<'_> {
    /// What is ordered, if anything is.
    pub(super) fn acme(&mut self, root: &Table) -> Option<AcmePlan> {
        let sites: Vec<&Table> = root.sections("site").filter(|site| site.flag("acme")).collect();
        let Some(table) = root.section("acme") else {
            for site in sites.iter().filter(|site| site.is_written("acme")) {
                self.error(&site.span_of("acme"), "there is no `[acme]` to order a certificate from")
                    .help("add `[acme]` with `store = \"/var/lib/eleven/acme\"`".into());
            }
            return None;
        };
        let directory = table.text("directory")?;
        if !directory.text.starts_with("https://") {
            self.complain(
                directory.span,
                format!("`{}` is no URL of an authority: it starts with `https://`", directory.text),
            );
        }
        let staging = table.flag("staging");
        if staging && table.is_written("directory") {
            self.complain(&table.span_of("staging"), "`staging` is Let's Encrypt's: leave out `directory`");
        }
        let ca = table.text("ca").map(|text| self.path(text));
        if let Some(file) = ca.as_ref().filter(|file| !file.is_file()) {
            let shown = file.display().to_string();
            self.complain(&table.span_of("ca"), format!("there is no file `{shown}`"));
        }
        let mut contact: Vec<Box<str>> = Vec::new();
        for text in table.texts("contact") {
            if text.text.contains(':') {
                contact.push(text.text.into());
            } else {
                self.error(text.span, format!("`{}` is no URL", text.text))
                    .help(format!("write `\"mailto:{}\"`", text.text));
            }
        }
        let store = table.text("store").map(|text| self.path(text))?;
        let mut certificates = Vec::new();
        for site in sites {
            let mut names: Vec<String> = Vec::new();
            for text in site.texts("names").chain(site.texts("redirect_names")) {
                let name = text.text.split(':').next().unwrap_or_default().to_ascii_lowercase();
                if name.starts_with("*.") {
                    self.error(text.span, format!("a certificate for `{name}` cannot be ordered"))
                        .help("wildcards are proved by DNS-01, which is not supported: give `certificate` and `key`".into());
                } else if name.parse::<std::net::IpAddr>().is_ok() || !name.contains('.') {
                    self.complain(
                        text.span,
                        format!("an authority gives no certificate for `{name}`: it is no name of the DNS"),
                    );
                } else if !names.contains(&name) {
                    names.push(name);
                }
            }
            if site.is_written("certificate") {
                self.complain(
                    &site.span_of("acme"),
                    "this site has a certificate of its own, and orders another",
                );
            }
            match names.first() {
                Some(first) => {
                    let file = store.join(format!("{}.pem", crate::acme::file_name(first)));
                    certificates.push(AcmeCertificate { names, file });
                }
                None => self
                    .complain(&site.span_of("acme"), "this site has no `names` to order a certificate for"),
            }
        }
        if certificates.is_empty() {
            return None;
        }
        let secured = root.sections("listener").any(|listener| listener.section("tls").is_some());
        if !secured {
            self.warning(&table.span, "no listener speaks TLS, so nobody sees the certificates")
                .help("give a `[[listener]]` `tls = true`".into());
        }
        Some(AcmePlan {
            directory: if staging { STAGING.into() } else { directory.text.into() },
            contact,
            store,
            ca,
            tls_alpn: table.text("challenge").is_some_and(|text| text.text == "tls-alpn-01"),
            certificates,
        })
    }
}

/// Those that are in files before anything was ordered, too: a certificate that stands in is made at the start.
pub(super) fn identities(plan: &AcmePlan) -> Vec<Identity> {
    plan.certificates.iter().map(crate::acme::identity).collect()
}
