//! Steps after the handler, each in a file of its own. None of them knows another; their order stands in `steps.rs`.

pub mod compress;
pub mod error_page;
pub mod fields;
