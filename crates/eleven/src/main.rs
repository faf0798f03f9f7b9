//! eleven
fn main() {}
