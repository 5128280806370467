//! A real Docker Swarm: what the harness gives, and what Docker does that the load balancer relies on.

mod cluster;

use std::sync::{Arc, Mutex, Weak};

use lb_tests::require;
use lb_tests::swarm::Swarm;

static SHARED: Mutex<Weak<Swarm>> = Mutex::new(Weak::new());

/// The Swarm that tests share whose services do not get in each other's way; none where it cannot run.
fn shared() -> Option<Arc<Swarm>> {
    if !require::swarm() {
        return None;
    }
    Some(Swarm::shared(&SHARED, Swarm::builder()).expect("a Swarm"))
}
