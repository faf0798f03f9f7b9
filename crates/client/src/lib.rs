//! eleven client
