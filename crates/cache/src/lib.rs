//! eleven cache
