//! `[admin]`.

use super::{Builder, Table, Text, read_address};
use eleven_net::listener::ListenAddr;
use eleven_server::admin::{AdminPlan, Token};
use eleven_server::site::HostPattern;

impl Builder<'_> {
    /// The admin listener.
    pub(super) fn admin(&mut self, table: &Table) -> Option<AdminPlan> {
        let text = table.text("address")?;
        let address = match read_address(text.text, self.base(text.span)) {
            // Where the system chooses the port, it chooses another one.
            Ok(address)
                if self.listeners.contains(&address)
                    && !matches!(address, ListenAddr::Tcp { port: 0, .. }) =>
            {
                self.complain(text.span, format!("`{address}` is a listener of the sites already"));
                return None;
            }
            Ok(address) => address,
            Err(reason) => {
                self.complain(text.span, format!("`{}` is no address to listen on: {reason}", text.text));
                return None;
            }
        };
        let token = match table.text("token") {
            None => None,
            Some(Text { text, span }) => match Token::new(text) {
                Ok(token) => Some(token),
                Err(why) => {
                    self.complain(span, why.to_string());
                    return None;
                }
            },
        };
        let mut hosts = Vec::new();
        for text in table.texts("hosts") {
            match HostPattern::parse(text.text) {
                Ok(name) if !name.is_wildcard() => hosts.push(text.text.into()),
                _ => self.complain(text.span, format!("`{}` is no name of one host", text.text)),
            }
        }
        match AdminPlan::new(address, token, hosts) {
            Ok(plan) => Some(plan),
            Err(exposed) => {
                self.error(text.span, exposed.to_string()).help(
                    "add `token = { file = \"admin.token\" }`; `openssl rand -hex 16` makes one".into(),
                );
                None
            }
        }
    }
}
