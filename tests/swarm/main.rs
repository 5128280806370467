//! A real Docker Swarm: what the harness gives, and what Docker does that the load balancer relies on.

//!
//! | module | what it holds to |
//! |---|---|
//! | `cluster` | nodes, tasks, names: tasks reach each other with no help of ours |
//! | `facts` | what Docker says and makes, as the load balancer relies on it |
//! | `lifecycle` | tasks and nodes that stop, die and come back; what is left of a Swarm |
//! | `provider` | what provider `docker` finds out, and how soon |
//! | `stack` | the load balancer as it is installed: its image, `deploy/swarm/stack.yml` |

mod cluster;
mod facts;
mod lifecycle;
mod provider;
mod stack;

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
