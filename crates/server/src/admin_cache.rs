//! What the admin listener has beneath `/cache/`: the store in numbers, what is in it, and purging. Parameters stand in
//! the query, answers are JSON. Who may ask was decided before (`admin::Access`).
//!
//! - `GET /cache/stats`
//! - `GET /cache/list?url=…&prefix=…&tag=…&group=…&site=…&max=100`
//! - `POST /cache/purge?url=…|prefix=…|tag=…|group=…&site=…|everything=1&how=hard|soft|dry-run`

use crate::admin::{Mounted, Mounts};
use crate::handler::Handled;
use crate::metrics::Metrics;
use crate::request::Request;
use crate::response::Response;
use eleven_cache::Cache;
use eleven_cache::listing::Entry;
use eleven_cache::purge::{How, Selection};
use eleven_semantics::{Known, Method, Status, grammar};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where it is mounted.
pub const PREFIX: &str = "/cache/";

/// Stored responses in one answer, and how many if nothing is said.
const LISTED_MAX: usize = 100_000;
const LISTED_USUALLY: usize = 100;

/// Mounts it for the store that is in force.
pub fn mount(mounts: &mut Mounts, metrics: Arc<Metrics>) {
    let mounted: Mounted = Arc::new(move |request| match metrics.store() {
        Some(cache) => answer(cache, &metrics.cache_verdicts(), request),
        None => problem(Status::NOT_FOUND, "there is no cache here").into(),
    });
    mounts.add(PREFIX, mounted);
}

/// Answers a request about this cache. `verdicts` is what became of requests, in numbers.
pub fn answer(cache: Arc<Cache>, verdicts: &BTreeMap<&str, u64>, request: &mut Request) -> Handled {
    let path = request.head.target.path().to_vec();
    let query = request.head.target.query().map(<[u8]>::to_vec).unwrap_or_default();
    let (place, method) = match path.strip_prefix(PREFIX.as_bytes()).unwrap_or_default() {
        b"stats" => (Place::Stats, Method::Get),
        b"list" => (Place::List, Method::Get),
        b"purge" => (Place::Purge, Method::Post),
        _ => return problem(Status::NOT_FOUND, "the cache has stats, list and purge").into(),
    };
    if request.head.method != method {
        let mut response = problem(Status::METHOD_NOT_ALLOWED, &format!("this takes {method} only"));
        response.add(Known::Allow, method.as_str());
        return response.into();
    }
    let parameters = match Parameters::read(&query) {
        Ok(parameters) => parameters,
        Err(why) => return problem(Status::BAD_REQUEST, &why).into(),
    };
    match place {
        Place::Stats => answered(&stats(&cache, verdicts)).into(),
        Place::List => {
            let selection = parameters.selection.unwrap_or(Selection::All);
            Handled::later(async move {
                let (entries, total) = cache.list(&selection, parameters.max).await;
                let entries: Vec<Value> = entries.iter().map(entry).collect();
                answered(&json!({ "total": total, "entries": entries }))
            })
        }
        Place::Purge => {
            // Nobody purges everything by leaving something out.
            let Some(selection) = parameters.selection else {
                return problem(Status::BAD_REQUEST, "say what: url, prefix, tag, group, or everything=1")
                    .into();
            };
            Handled::later(async move {
                let count = cache.purge(&selection, parameters.how).await;
                tracing::info!(?selection, how = ?parameters.how, count, "purged");
                // What is on disk only is met when it is next looked for, and not counted before.
                let all_counted = parameters.how == How::DryRun || cache.store().disk().is_none();
                answered(&json!({ "purged": count, "counted_all": all_counted, "how": name(parameters.how) }))
            })
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Stats,
    List,
    Purge,
}

fn name(how: How) -> &'static str {
    match how {
        How::Hard => "hard",
        How::Soft => "soft",
        How::DryRun => "dry-run",
    }
}

fn stats(cache: &Cache, verdicts: &BTreeMap<&str, u64>) -> Value {
    let usage = cache.usage();
    json!({
        "requests": verdicts,
        "memory_bytes": usage.memory_bytes,
        "memory_keys": usage.memory_keys,
        "memory_bytes_max": cache.store().memory().limits().bytes_max,
        "disk_bytes": usage.disk_bytes,
        "disk_keys": usage.disk_keys,
        "disk_bytes_max": cache.store().disk().map(|disk| disk.limits().bytes_max),
        "corrupt_dropped": usage.corrupt,
        "disk_errors": usage.errors,
        "fetching": cache.flights(),
    })
}

fn entry(entry: &Entry) -> Value {
    json!({
        "url": entry.uri,
        "partition": entry.partition,
        "status": entry.status,
        "bytes": entry.bytes,
        "partial": entry.is_partial,
        "age_seconds": entry.age_seconds,
        "ttl_seconds": entry.ttl_seconds,
        "lifetime_from": entry.lifetime_from,
        "marked": entry.is_marked,
        "tags": entry.tags,
        "vary": entry.vary,
        "memory": entry.in_memory,
        "disk": entry.on_disk,
    })
}

pub(crate) fn answered(value: &Value) -> Response {
    let mut response = Response::text(Status::OK, "application/json", format!("{value}\n"));
    response.add(Known::CacheControl, "no-store");
    response
}

pub(crate) fn problem(status: Status, why: &str) -> Response {
    let mut response = Response::text(status, "application/json", format!("{}\n", json!({ "error": why })));
    response.add(Known::CacheControl, "no-store");
    response
}

/// What the query says.
struct Parameters {
    selection: Option<Selection>,
    how: How,
    max: usize,
}

impl Parameters {
    fn read(query: &[u8]) -> Result<Parameters, String> {
        let mut parameters = Parameters { selection: None, how: How::Hard, max: LISTED_USUALLY };
        let (mut site, mut group) = (None, None);
        for pair in query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
            let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let value = decoded(pair.get(at + 1..).unwrap_or_default())
                .ok_or_else(|| "a value is not UTF-8, or badly encoded".to_owned())?;
            let uri = |text: &str| Selection::uri(text).map_err(|why| format!("{text}: {why}"));
            let selection = match &pair[..at] {
                b"url" => uri(&value)?,
                b"prefix" => uri(&format!("{}*", value.trim_end_matches('*')))?,
                b"tag" => Selection::Tag(value.into()),
                b"everything" if value == "1" => Selection::All,
                b"group" => {
                    group = Some(value);
                    continue;
                }
                b"site" => {
                    site = Some(value);
                    continue;
                }
                b"how" => {
                    parameters.how = match &*value {
                        "hard" => How::Hard,
                        "soft" => How::Soft,
                        "dry-run" => How::DryRun,
                        _ => return Err("how is hard, soft or dry-run".into()),
                    };
                    continue;
                }
                b"max" => {
                    let max = grammar::decimal(value.as_bytes()).ok_or("max is a number")?;
                    parameters.max = (max as usize).min(LISTED_MAX);
                    continue;
                }
                _ => return Err(format!("{} means nothing here", String::from_utf8_lossy(&pair[..at]))),
            };
            if parameters.selection.replace(selection).is_some() {
                return Err("one selection at a time".into());
            }
        }
        match (group, site) {
            (Some(group), Some(site)) => {
                let Ok(Selection::Uri(site, _)) = Selection::uri(&site) else {
                    return Err("site is http://host[:port] or https://host[:port]".into());
                };
                if parameters.selection.replace(Selection::Group(site, group.into())).is_some() {
                    return Err("one selection at a time".into());
                }
            }
            (None, None) => {}
            _ => return Err("a group is one of a site: give both (RFC 9875)".into()),
        }
        Ok(parameters)
    }
}

/// A value of a query, percent-decoded.
pub(crate) fn decoded(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let b;
        (b, rest) = match first {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                let digit = |b: u8| char::from(b).to_digit(16);
                ((digit(digits[0])? * 16 + digit(digits[1])?) as u8, tail)
            }
            b'+' => (b' ', tail),
            _ => (first, tail),
        };
        out.push(b);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests;
