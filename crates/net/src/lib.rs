//! eleven net
