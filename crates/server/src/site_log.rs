//! Logs of sites and routes that have their own: opened once for all that name the same file, kept over a reload that does not
//! change them, and held by whatever still runs under an older plan. How lines are written is `access_log`'s.

use crate::access_log::{self, AccessLog};
use crate::plan::{AccessLogPlan, Plan, SiteLogPlan};
use crate::record::SiteLog;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// A log and what it was made by.
pub(crate) type Opened = (AccessLogPlan, Arc<AccessLog>);

/// Whether some sites have logs of their own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SiteLogs {
    /// One at least.
    pub any: bool,
    /// One that tells times.
    pub timed: bool,
}

/// Opens the logs of sites that have their own. Those that were open before stay so.
///
/// # Errors
/// With the file that cannot be opened.
pub(crate) fn open(plan: &Plan, before: &[Opened]) -> Result<Vec<Opened>, (PathBuf, io::Error)> {
    let mut logs: Vec<Opened> = Vec::new();
    let of_sites = plan.sites.iter().map(|site| &site.log);
    for log in of_sites.chain(plan.routes().map(|route| &route.log)) {
        let SiteLogPlan::Own(own) = log else { continue };
        if logs.iter().any(|(known, _)| known == own) {
            continue;
        }
        let kept = before.iter().find(|(known, _)| known == own).map(|(_, log)| log.clone());
        let new = || match &own.path {
            None => AccessLog::stdout(own.format.clone()).map_err(|error| ("stdout".into(), error)),
            Some(path) => AccessLog::file(own.format.clone(), path).map_err(|error| (path.clone(), error)),
        };
        let log = match kept {
            Some(log) => log,
            None => Arc::new(new()?),
        };
        logs.push((own.clone(), log));
    }
    Ok(logs)
}

/// A worker's ends of the logs of sites. The logs themselves are held too: what runs still writes into them.
#[derive(Debug)]
pub(crate) struct Logs {
    ends: Vec<(AccessLogPlan, Rc<access_log::Worker>)>,
    _held: Vec<Arc<AccessLog>>,
    /// What there is.
    pub known: SiteLogs,
}

impl Logs {
    /// Those of one worker.
    pub fn new(logs: &[Opened]) -> Logs {
        let ends: Vec<_> = logs.iter().map(|(plan, log)| (plan.clone(), Rc::new(log.worker()))).collect();
        let timed = ends.iter().any(|(_, log)| log.is_timed());
        let known = SiteLogs { any: !ends.is_empty(), timed };
        Logs { ends, _held: logs.iter().map(|(_, log)| log.clone()).collect(), known }
    }

    /// Where the exchanges of a site or a route are logged.
    pub fn of(&self, plan: &SiteLogPlan) -> SiteLog {
        match plan {
            SiteLogPlan::Main => SiteLog::Main,
            SiteLogPlan::Off => SiteLog::Off,
            SiteLogPlan::Own(own) => match self.ends.iter().find(|(plan, _)| plan == own) {
                Some((_, log)) => SiteLog::Own(log.clone()),
                None => SiteLog::Main,
            },
        }
    }
}
