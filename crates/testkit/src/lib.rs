//! eleven testkit
