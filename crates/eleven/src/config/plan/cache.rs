//! `[cache]` and `cache = {…}` of routes: the store, and the rules under which a route uses it. The rules themselves
//! are `eleven_semantics::caching`.

use super::super::raw::{Table, Text};
use super::Builder;
use eleven_semantics::caching::directives::SECONDS_MAX;
use eleven_semantics::caching::key::KeyRules;
use eleven_semantics::caching::{Cookies, Policy};
use eleven_semantics::grammar;
use eleven_server::plan::{CachePlan, CacheRules};
use eleven_server::route::Match;
use std::sync::Arc;

impl Builder<'_> {
    /// `[cache]`. The directory is opened when the server starts, not here.
    pub(super) fn cache(&mut self, table: &Table) -> CachePlan {
        CachePlan {
            memory_bytes_max: table.number("memory_bytes_max"),
            directory: table
                .text("directory")
                .map(|text| (self.path(text), table.number("directory_bytes_max"))),
        }
    }

    /// What `[cache]` says for all routes.
    pub(super) fn cache_rules(&mut self, table: &Table) -> CacheRules {
        self.common(table, CacheRules::default())
    }

    /// `cache = {…}` of a route, or `proxy = { cache = true }`.
    pub(super) fn route_cache(&mut self, route: &Table, condition: &Match) -> Option<CacheRules> {
        let (holder, table) = match (route.section("cache"), route.section("proxy")) {
            (Some(table), _) => (route, Some(table)),
            (None, Some(proxy)) if proxy.flag("cache") => (proxy, None),
            _ => return None,
        };
        let Some(mut rules) = self.cache_rules.clone() else {
            self.error(&holder.span_of("cache"), "there is no `[cache]` to store in")
                .help("add `[cache]`, or at the top `cache = true`".into());
            return None;
        };
        let mut keys = KeyRules::default();
        if let Some(table) = table {
            rules = self.common(table, rules);
            let mut policy = (*rules.config.policy).clone();
            self.lifetimes(table, &mut policy);
            let methods: Vec<&str> = table.texts("methods").map(|text| text.text).collect();
            rules.bypass_get = !methods.contains(&"GET");
            rules.bypass_head = !methods.contains(&"HEAD");
            policy.store_post = methods.contains(&"POST");
            policy.statuses = table.texts("statuses").filter_map(|text| self.stored_statuses(text)).collect();
            policy.bypass_cookies = table.texts("bypass_cookies").map(|text| text.text.into()).collect();
            rules.config.policy = Arc::new(policy);
            keys.sort_query = table.flag("sort_query");
            keys.ignore_parameters = table.texts("ignore_parameters").map(|text| text.text.into()).collect();
            keys.fields = table.texts("key_fields").filter_map(|text| self.key_field(text)).collect();
            keys.cookies = table.texts("key_cookies").map(|text| text.text.into()).collect();
            keys.partition = table.text("partition").map_or("", |text| text.text).into();
        }
        if let Some(rewrite) = route.text("rewrite").filter(|_| keys.partition.is_empty()) {
            // Two routes may rewrite to the same path of different servers.
            keys.partition = format!("rewrite {} {}", condition.path, rewrite.text).into();
        }
        rules.config.keys = keys;
        Some(rules)
    }

    /// What both `[cache]` and a route may say.
    fn common(&mut self, table: &Table, mut rules: CacheRules) -> CacheRules {
        let mut policy = (*rules.config.policy).clone();
        if table.get("careful_with_cookies").is_some() {
            policy.cookies =
                if table.flag("careful_with_cookies") { Cookies::Careful } else { Cookies::PerRfc };
        }
        if table.get("targeted_fields").is_some() {
            policy.targets = table.texts("targeted_fields").filter_map(|text| self.key_field(text)).collect();
        }
        if table.get("cache_status").is_some() {
            rules.cache_status = table.flag("cache_status").then(|| "eleven".into());
        }
        if table.get("x_cache").is_some() {
            rules.x_cache = table.flag("x_cache");
        }
        rules.config.policy = Arc::new(policy);
        rules
    }

    fn lifetimes(&mut self, table: &Table, policy: &mut Policy) {
        let seconds =
            |name: &str| table.optional_number(name).map(|ms| (ms / 1000).min(SECONDS_MAX.into()) as u32);
        policy.default_seconds = seconds("default_lifetime");
        let set = |value: &mut u32, name: &str| *value = seconds(name).unwrap_or(*value);
        set(&mut policy.lifetime_seconds_max, "lifetime_max");
        set(&mut policy.heuristic_seconds_max, "heuristic_max");
        set(&mut policy.heuristic_error_seconds_max, "heuristic_error_max");
        set(&mut policy.stale_seconds_max, "stale_max");
        set(&mut policy.stale_while_revalidate_seconds, "stale_while_revalidate");
        set(&mut policy.stale_if_error_seconds, "stale_if_error");
        policy.heuristic_percent = table.number("heuristic_percent") as u32;
        policy.stale_when_disconnected = table.flag("stale_when_disconnected");
        policy.honour_requests = table.flag("honour_requests");
    }

    fn key_field(&mut self, text: Text<'_>) -> Option<Box<str>> {
        if grammar::is_token(text.text.as_bytes()) {
            return Some(text.text.to_ascii_lowercase().into());
        }
        self.error(text.span, format!("`{}` is no name of a field", text.text));
        None
    }

    /// `"200"`, `"2xx"` or `"200-299"`.
    fn stored_statuses(&mut self, text: Text<'_>) -> Option<(u16, u16)> {
        let code = |text: &str| {
            let code = grammar::decimal(text.as_bytes())?;
            (200..=599).contains(&code).then_some(code as u16)
        };
        let found = match text.text.strip_suffix("xx").and_then(|class| grammar::decimal(class.as_bytes())) {
            Some(class @ 2..=5) => Some((class as u16 * 100, class as u16 * 100 + 99)),
            _ => {
                let (first, last) = text.text.split_once('-').unwrap_or((text.text, text.text));
                code(first).zip(code(last)).filter(|(first, last)| first <= last)
            }
        };
        if found.is_none() {
            self.error(text.span, format!("`{}` is no final status", text.text))
                .help("one, a class, or from one to another: `\"200\"`, `\"2xx\"`, `\"200-299\"`".into());
        }
        found
    }
}
