//! A real Docker Swarm: what the harness gives, what Docker does that the load balancer relies on, and what the load
//! balancer does there.
//!
//! | module | what it holds to |
//! |---|---|
//! | `cluster` | nodes, tasks, names: tasks reach each other with no help of ours |
//! | `facts` | what Docker says and makes, as the load balancer relies on it |
//! | `lifecycle` | tasks and nodes that stop, die and come back; what is left of a Swarm |
//! | `provider` | what provider `docker` finds out, and how soon |
//! | `stack` | the load balancer as it is installed: its image, `deploy/swarm/stack.yml` |
//! | `agents` | agents on all nodes: they start, stop, die and leave |
//! | `published` | ports on every node |
//! | `vip` | addresses inside overlays |
//! | `host` | ports as processes of the nodes use them |
//! | `encrypted` | networks that no clear text may leave |
//! | `names` | DNS |
//! | `transfer` | large bodies, segment sizes |
//! | `update` | services and nodes that are changed, under traffic: nothing is lost |
//! | `failure` | tasks, nodes, engines and agents that die, under traffic |
//! | `load` | who asks meanwhile |

mod agents;
mod cluster;
mod encrypted;
mod facts;
mod failure;
mod host;
mod lifecycle;
mod load;
mod names;
mod provider;
mod published;
mod stack;
mod transfer;
mod update;
mod vip;

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};

use lb_tests::answers::{self, ask_seen, ask_udp_seen};
use lb_tests::client::{Answer, tally};
use lb_tests::require;
use lb_tests::swarm::{Balanced, Builder, Swarm, Task};

static SHARED: Mutex<Weak<Swarm>> = Mutex::new(Weak::new());
static BALANCED: Mutex<Weak<Balanced>> = Mutex::new(Weak::new());

/// The Swarm that tests share whose services do not get in each other's way; none where it cannot run.
fn shared() -> Option<Arc<Swarm>> {
    if !require::swarm() {
        return None;
    }
    Some(Swarm::shared(&SHARED, Swarm::builder()).expect("a Swarm"))
}

/// The Swarm with agents on all nodes that tests share whose services do not get in each other's way; none where it
/// cannot run.
fn balanced() -> Option<Scene> {
    if !require::swarm() {
        return None;
    }
    let start = || {
        let swarm = Balanced::new(Swarm::builder().start()?)?;
        (0..swarm.nodes().len()).for_each(|index| swarm.configure(index, names::configuration()));
        swarm.start_agents().map(|()| swarm)
    };
    Some(Scene(Balanced::shared(&BALANCED, start).expect("a Swarm with agents")))
}

/// A Swarm of the test's own, agents on all nodes; none where it cannot run.
fn own(builder: Builder) -> Option<Scene> {
    if !require::swarm() {
        return None;
    }
    Some(Scene(Arc::new(Balanced::start(builder).expect("a Swarm with agents"))))
}

/// As [`own`], the agents with these settings beside the usual.
fn own_with(builder: Builder, more: &toml::Table) -> Option<Scene> {
    if !require::swarm() {
        return None;
    }
    let start = || {
        let swarm = Balanced::new(builder.start()?)?;
        (0..swarm.nodes().len()).for_each(|index| swarm.configure(index, more.clone()));
        swarm.start_agents().map(|()| swarm)
    };
    Some(Scene(Arc::new(start().expect("a Swarm with agents"))))
}

/// A balanced Swarm while one test uses it. If the test fails, all logs are kept.
struct Scene(Arc<Balanced>);

impl Deref for Scene {
    type Target = Balanced;

    fn deref(&self) -> &Balanced {
        &self.0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let directory = require::artifacts();
            self.0.save_all_logs(&directory);
            eprintln!("--- logs of every agent and dockerd are in {}", directory.display());
        }
    }
}

/// Every task answered, as often as every other, give or take one, and no request failed.
#[track_caller]
fn assert_even(answers: Vec<io::Result<Answer>>, tasks: &[Task]) {
    let names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
    answers::assert_even(&tally(answers), &names);
}
