//! What agents send each other, once TLS has let them in.

use lb_userspace::stream::fuzz;

use crate::cluster::settles;

/// # Panics
/// If a frame is longer than allowed, changes when it is written again, or its snapshot leads to tables that are not as
/// desired.
pub fn run(bytes: &[u8]) {
    fuzz::frames(bytes).iter().for_each(settles);
}

/// A connection in both directions.
pub fn seeds() -> Vec<Vec<u8>> {
    fuzz::connections()
}
