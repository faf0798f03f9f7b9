//! What tests share: deliveries of wire bytes, scripted peers over real sockets, a strict reader that shares
//! no parser with the product, a seeded random number generator, and the repository as data (for the checks
//! in `tests/`). A development dependency only; it knows nothing of the crates it tests, so that no mistake of
//! theirs can hide here.

pub mod deliver;
pub mod reader;
pub mod repo;
pub mod rng;
pub mod script;
pub mod text;

pub use deliver::deliver;
pub use rng::Rng;
