//! The cluster in the project's own words: no Docker, no maps, no I/O.
pub mod desired;
pub mod snapshot;
