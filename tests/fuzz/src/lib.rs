//! What reads bytes from outside, and what must hold whatever they are.
//!
//! | target | reads |
//! |---|---|
//! | [`pipeline`] | frames, in every program, over every fixture's world |
//! | [`dns`] | questions of clients, answers of upstreams |
//! | [`cluster`] | the cluster document, down to the tables |
//! | [`docker`] | answers of the Engine API |
//! | [`stream`] | frames and messages between agents |
//! | [`disk`] | what an agent keeps on disk over a restart |
//!
//! A target is a function over bytes that panics when a promise is broken. `cargo test` runs each over its seeds, what was
//! once found, and damaged copies of both; `cargo xtask fuzz <target>` gives it to libFuzzer.

pub mod cluster;
pub mod damage;
pub mod disk;
pub mod dns;
pub mod docker;
pub mod pipeline;
pub mod stream;
mod sums;

use std::path::{Path, PathBuf};

/// One of the functions.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Where to begin: made of the project's fixtures.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Damaged inputs that `cargo test` tries: a few seconds' worth.
    pub cases: usize,
}

/// All.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "pipeline",
        run: pipeline::run,
        seeds: pipeline::seeds,
        cases: 20_000,
    },
    Target {
        name: "dns",
        run: dns::run,
        seeds: dns::seeds,
        cases: 10_000,
    },
    Target {
        name: "cluster",
        run: cluster::run,
        seeds: cluster::seeds,
        cases: 2_000,
    },
    Target {
        name: "docker",
        run: docker::run,
        seeds: docker::seeds,
        cases: 2_000,
    },
    Target {
        name: "stream",
        run: stream::run,
        seeds: stream::seeds,
        cases: 10_000,
    },
    Target {
        name: "disk",
        run: disk::run,
        seeds: disk::seeds,
        cases: 5_000,
    },
];

/// Inputs that once broke a promise, by the name of their file.
pub fn finds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("finds").join(target);
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| (entry.path(), std::fs::read(entry.path()).expect("a readable find")))
        .collect();
    found.sort();
    found
}

/// Writes the seeds of a target into the directory that `LB_FUZZ_SEEDS` names, if it names one.
///
/// # Panics
/// If they cannot be written.
pub fn save_seeds(name: &str) {
    let Some(directory) = std::env::var_os("LB_FUZZ_SEEDS") else {
        return;
    };
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let finds = finds(name).into_iter().map(|(_, bytes)| bytes);
    for (number, bytes) in (target.seeds)().into_iter().chain(finds).enumerate() {
        std::fs::write(Path::new(&directory).join(format!("seed-{number}")), bytes).expect("a writable directory");
    }
}
