//! `[site.redirects]`: many paths that lead elsewhere, in the configuration or in a file of their own, one to a line. Each
//! becomes a route of its own, found like any other by one lookup, so there may be many thousands of them.

use super::super::read_limited;
use super::{Builder, SIDE_FILE_BYTES_MAX};
use crate::config::raw::{Span, Table, Text};
use eleven_semantics::Status;
use eleven_server::before::redirect::Template;
use eleven_server::plan::{HandlerPlan, Policy, Route, SiteLogPlan};
use eleven_server::route::{Match, PathMatch, RouteMap};
use std::collections::HashMap;
use std::sync::Arc;

/// Most redirections of one site.
const REDIRECTS_MAX: usize = 200_000;

/// Mistakes of one file that are shown.
const MISTAKES_MAX: usize = 10;

/// One of them.
struct Redirection {
    path: PathMatch,
    to: Template,
    status: Status,
}

/// Where a path was written, to tell of the first when it is there twice.
enum Origin {
    Key(Span),
    Line(usize),
}

impl Builder<'_> {
    /// Puts the redirections of a site among its routes. `routes` are those before them.
    pub(super) fn redirects(
        &mut self,
        table: &Table,
        policy: &Policy,
        log: &SiteLogPlan,
        routes: &mut RouteMap<Arc<Route>>,
    ) {
        let status = redirect_status(table.text("status").map_or("308", |text| text.text));
        let Some(status) = status else { return };
        let mut all = Vec::new();
        let mut seen: HashMap<String, Origin> = routes
            .iter()
            .filter(|(at, _)| is_all(at))
            .map(|(at, _)| (at.path.to_string(), Origin::Line(0)))
            .collect();
        for (from, to) in table.map("paths") {
            let Some(to) = to.text() else { continue };
            let redirection = match redirection(from.text, to.text, status) {
                Ok(redirection) => redirection,
                Err((is_target, why)) => {
                    let span = if is_target { to.span } else { from.span };
                    self.complain(span, why);
                    continue;
                }
            };
            match seen.insert(redirection.path.to_string(), Origin::Key(from.span.clone())) {
                None => all.push(redirection),
                Some(Origin::Line(_)) => {
                    self.error(from.span, format!("`{}` is a route of this site already", from.text));
                }
                Some(Origin::Key(before)) => {
                    self.error(from.span, format!("`{}` is the same path as one before", from.text))
                        .related(before, "the first");
                }
            }
        }
        if let Some(file) = table.text("file") {
            self.redirects_of_file(file, status, &mut seen, &mut all);
        }
        if all.len() > REDIRECTS_MAX {
            self.complain(&table.span, format!("{} redirections are more than {REDIRECTS_MAX}", all.len()));
            return;
        }
        for Redirection { path, to, status } in all {
            let route = Route {
                name: path.to_string().into(),
                index: self.next_route(),
                strip_prefix: false,
                rewrite: None,
                tries: Box::default(),
                handler: HandlerPlan::Redirect(status, to),
                cache: None,
                policy: policy.clone(),
                log: log.clone(),
            };
            let condition = Match { path, pattern: None, methods: [].into(), hosts: [].into() };
            routes.push(condition, Arc::new(route));
        }
    }

    /// Lines `FROM TO [STATUS]`; empty ones and those that start with `#` say nothing.
    fn redirects_of_file(
        &mut self,
        file: Text<'_>,
        status: Status,
        seen: &mut HashMap<String, Origin>,
        all: &mut Vec<Redirection>,
    ) {
        let path = self.path(file);
        let text = match read_limited(&path, SIDE_FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                self.complain(file.span, format!("the redirections cannot be read: {error}"));
                return;
            }
        };
        let mut mistakes = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace();
            let Some(from) = words.next().filter(|from| !from.starts_with('#')) else { continue };
            let read = match (words.next(), words.next(), words.next()) {
                (Some(to), _, None) if line.trim_end().ends_with(';') => {
                    let to = to.trim_end_matches(';');
                    Err(format!("nothing ends with `;` here: write `{from} {to}`"))
                }
                (Some(to), code, None) => match code.map_or(Some(status), redirect_status) {
                    Some(status) => redirection(from, to, status).map_err(|(_, why)| why),
                    None => Err(format!("`{}` is none of 301, 302, 303, 307, 308", code.unwrap_or_default())),
                },
                _ => Err("a line is a path, where it leads, and a status if it is another".into()),
            };
            match read {
                Ok(redirection) => match seen.insert(redirection.path.to_string(), Origin::Line(number)) {
                    None => all.push(redirection),
                    Some(Origin::Line(before)) if before > 0 => {
                        mistakes.push((number, format!("`{from}` is in line {before} already")));
                    }
                    Some(_) => mistakes.push((number, format!("`{from}` is a route of this site already"))),
                },
                Err(why) => mistakes.push((number, why)),
            }
        }
        let hidden = mistakes.len().saturating_sub(MISTAKES_MAX);
        for (number, why) in mistakes.into_iter().take(MISTAKES_MAX) {
            self.complain(file.span, format!("line {number} of `{}`: {why}", file.text));
        }
        if hidden > 0 {
            self.complain(file.span, format!("and {hidden} more mistakes in `{}`", file.text));
        }
    }
}

/// Whether a route takes every request for its path.
fn is_all(condition: &Match) -> bool {
    condition.pattern.is_none() && condition.methods.is_empty() && condition.hosts.is_empty()
}

fn redirect_status(text: &str) -> Option<Status> {
    let code = match text {
        "301" => 301,
        "302" => 302,
        "303" => 303,
        "307" => 307,
        "308" => 308,
        _ => return None,
    };
    Status::new(code)
}

/// What two words mean, or why they mean nothing, and whether that is the second one's fault.
fn redirection(from: &str, to: &str, status: Status) -> Result<Redirection, (bool, String)> {
    let path = match from.strip_suffix("/*") {
        Some(prefix) => PathMatch::prefix(if prefix.is_empty() { "/" } else { prefix }),
        None => PathMatch::exact(from),
    };
    let path = path.map_err(|why| (false, format!("`{from}` is no path to lead away from: {why}")))?;
    let template = Template::parse(to).map_err(|why| (true, format!("`{to}`: {why}")))?;
    if template.highest_group() > 0 {
        return Err((true, format!("`{to}` names a group, and there is no pattern; use a route with one")));
    }
    // What leads to itself would go round for ever.
    if to == from {
        return Err((true, format!("`{to}` leads to itself")));
    }
    Ok(Redirection { path, to: template, status })
}
