//! What an agent keeps on disk: the last snapshot and the last reports.

use lb_userspace::stream::fuzz;

use crate::cluster::settles;

/// # Panics
/// If what is refused is not explained, what is accepted changes when it is written again, or its snapshot leads to tables
/// that are not as desired.
pub fn run(bytes: &[u8]) {
    fuzz::files(bytes).iter().for_each(settles);
}

/// Files of both kinds, and their contents alone.
pub fn seeds() -> Vec<Vec<u8>> {
    fuzz::kept_files()
}
