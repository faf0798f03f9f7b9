//! eleven server
