//! Origin server, proxy and application host: the roles of RFC 9110 §3 that answer requests.

pub mod access_log;
pub mod acme;
pub mod admin;
pub mod admin_cache;
pub mod admin_upstreams;
pub mod after;
pub mod apps;
pub mod before;
pub mod echo;
pub mod files;
mod finished;
pub mod fixed;
pub mod handler;
pub mod metrics;
pub mod overload;
pub mod pattern;
pub mod plan;
pub mod proxy;
pub mod record;
pub mod refusal;
pub mod relayed;
pub mod request;
pub mod response;
pub mod route;
mod secure;
pub mod serve;
pub mod service;
mod session;
pub mod site;
mod site_log;
mod spool;
pub mod steps;
pub mod store;
pub mod worker;

pub use access_log::AccessLog;
pub use record::Record;
