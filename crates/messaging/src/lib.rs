//! eleven messaging
