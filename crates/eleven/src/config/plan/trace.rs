//! `[trace]`: what requests are called, and where sampled traces are told.

use super::Builder;
use crate::config::raw::Table;
use eleven_semantics::uri::Uri;
use eleven_server::before::trace::{Context, TracePlan};
use eleven_server::plan::OtlpPlan;

impl Builder<'_> {
    /// What is done about the identity of requests.
    pub(super) fn trace(&mut self, root: &Table) -> (TracePlan, Option<OtlpPlan>) {
        let Some(table) = root.section("trace") else { return Default::default() };
        let context = match table.text("context").map(|text| text.text) {
            Some("continue") => Context::Continue,
            Some("restart") => Context::Restart,
            _ => Context::Pass,
        };
        let sampled_one_in = table.number("sampled_one_in");
        let plan = TracePlan { request_id: table.flag("request_id"), context, sampled_one_in };
        (plan, self.otlp(table, context))
    }

    fn otlp(&mut self, table: &Table, context: Context) -> Option<OtlpPlan> {
        let text = table.text("otlp")?;
        let endpoint = match Uri::parse(endpoint(text.text).as_bytes()) {
            Ok((uri, _)) => uri,
            Err(why) => {
                self.error(text.span, format!("`{}` is no URL of a collector: {why}", text.text))
                    .help("such as `\"http://127.0.0.1:4318\"`".into());
                return None;
            }
        };
        if context == Context::Pass {
            self.error(text.span, "there are no traces to tell of: `context` is \"pass\"")
                .help("write `context = \"restart\"` or `\"continue\"`".into());
        }
        if !cfg!(feature = "otlp") {
            self.error(text.span, "this eleven was built without the export of traces")
                .help("build it with the feature `otlp`, as it is by default".into());
        }
        let service_name = table.text("service_name").map_or("eleven", |text| text.text).into();
        Some(OtlpPlan { endpoint, service_name })
    }
}

/// The URL spans are sent to: of a collector without a path, the one that OTLP gives them.
fn endpoint(text: &str) -> String {
    let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if path.is_empty() { format!("{}/v1/traces", text.trim_end_matches('/')) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn endpoints() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/", "https://collector.example/v1/traces"),
            ("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
        ] {
            assert_eq!(super::endpoint(text), url);
        }
    }
}
