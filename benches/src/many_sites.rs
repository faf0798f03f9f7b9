//! The configuration that costs are compared with: fifty sites of twenty routes each, an access log, and compression.
//! Every site serves the same files, so that a request can be put to this and to `eleven serve DIR` alike.

use std::path::Path;

/// A Host among the fifty.
pub const HOST: &str = "site25.example";

/// The text of the configuration.
pub fn configuration(root: &Path, log: &Path, listen: &str) -> String {
    let (root, log) = (root.to_string_lossy(), log.to_string_lossy());
    let mut text = format!("workers = 1\n[log]\naccess = {log:?}\n[[listener]]\naddress = {listen:?}\n");
    for number in 0..50 {
        text.push_str(&format!(
            "[[site]]\nnames = [\"site{number}.example\"]\nroot = {root:?}\ncompress = true\n"
        ));
        for route in 1..20 {
            text.push_str(&format!(
                "[[site.route]]\npath = \"/route{route}\"\nfixed = {{ status = 200, text = \"{route}\" }}\n"
            ));
        }
    }
    text
}
