//! [`Swarm`]: a real Docker Swarm on this machine, one dockerd per node, and clients outside of it.
//!
//! ```text
//!   client1                                             underlay: one bridge, 10.80.0.0/24 and fd80::/64, MTU 1500
//!      | 10.80.0.101
//!   ---+---------+--------------------+----------------------------+---
//!                | eth0 10.80.0.1     | eth0 10.80.0.2             | eth0 10.80.0.3     (fd80::1 ...)
//!             node1                 node2                        node3                  a dockerd in each
//!             manager               worker                       worker
//!          docker_gwbridge       docker_gwbridge              docker_gwbridge           172.18.0.1/16, on each node
//!          |          |          |          |                 |          |
//!          containers            containers                   containers                overlays 10.0.N.0/24 by VXLAN
//! ```
//!
//! Each node is a [`Machine`]: dockerd, its containers and what a test starts beside them share `/run`, `/etc`,
//! `/var/lib/docker`, `/sys/fs/bpf` and process ids with each other and with nobody else, at the usual paths. Dropped,
//! a node's first process is killed, and the kernel ends and unmounts the rest.
//!
//! Nodes do not reach the world: the only image is [`IMAGE`], made of the binary `lb-task`.

mod agents;
mod build;
mod container;
mod engine;
mod hierarchy;
mod image;
mod machine;
mod network;
mod node;
mod process;
mod service;
mod task;

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cleanup::Guard;
use crate::netns::Netns;

use build::Settings;

pub use agents::Balanced;
pub use build::{Builder, Iptables};
pub use container::Container;
pub use image::{IMAGE, libraries_of};

pub use machine::Machine;
pub use network::Network;
pub use node::Node;
pub use process::Process;
pub use service::Service;
pub use task::Task;

/// Where dockerd keeps namespaces, its sockets and containerd's, on every node.
pub const EXEC_ROOT: &str = "/run/docker";
/// How long the cluster may take to get where it was told to.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A whole Swarm. Dropped, nothing of it is left.
#[derive(Debug)]
pub struct Swarm {
    nodes: Vec<Node>,
    clients: Vec<Host>,
    underlay: Netns,
    settings: Settings,
    /// For names and ports that nobody else in this Swarm has.
    next: AtomicU16,
    _directory: Guard,
}

/// A network namespace on the underlay.
#[derive(Debug)]
pub struct Host {
    addresses: [IpAddr; 2],
    netns: Netns,
}

impl Swarm {
    /// Three nodes, of which the first is the manager, and one client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The Swarm that `shared` remembers, or a new one: tests that run at the same time share it, and it goes with
    /// the last of them.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn shared(shared: &Mutex<Weak<Self>>, builder: Builder) -> Result<Arc<Self>> {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(swarm) = shared.upgrade() {
            return Ok(swarm);
        }
        let swarm = Arc::new(builder.start()?);
        *shared = Arc::downgrade(&swarm);
        Ok(swarm)
    }

    /// All nodes, managers first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The first manager, whom the harness tells what to do.
    pub fn manager(&self) -> &Node {
        self.node(0)
    }

    /// All clients.
    pub fn clients(&self) -> &[Host] {
        &self.clients
    }

    /// One client, from 0.
    pub fn client(&self, index: usize) -> &Host {
        &self.clients[index]
    }

    /// The namespace of the bridge between the machines; its ports have the machines' names, so `link set node2 down`
    /// pulls a node's cable.
    pub fn underlay(&self) -> &Netns {
        &self.underlay
    }

    /// Turns a node on that was off, and waits for its dockerd; not until the Swarm takes it for ready.
    ///
    /// # Errors
    /// If it is on, or does not start.
    pub fn turn_on(&self, index: usize) -> Result<()> {
        self.node(index).turn_on(&self.settings)
    }

    /// Starts a node's dockerd that was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// If it runs, or does not start.
    pub fn start_engine(&self, index: usize) -> Result<()> {
        self.node(index).start_engine(&self.settings)
    }

    /// Waits until the manager takes every node for ready, and every node is on the ingress network.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_nodes_ready(&self) -> Result<()> {
        wait_until("all nodes are ready", || {
            let list = self.manager().api("/nodes")?;
            let states: Vec<_> = items(&list).map(|node| text(&node["Status"]["State"])).collect();
            let ready = states.len() == self.nodes.len() && states.iter().all(|state| state == "ready");
            Ok(if ready { Ok(()) } else { Err(format!("{states:?}")) })
        })?;
        // A node gets there some time after it has joined.
        self.on_every_node(|node| {
            wait_until(&format!("{} is on the ingress network", node.name), || {
                let network = node.api("/networks/ingress").map_err(|error| format!("{error:#}"));
                let missing = || "without ingress-sbox".to_owned();
                Ok(network.and_then(|network| {
                    network["Containers"]["ingress-sbox"]
                        .is_object()
                        .then_some(())
                        .ok_or_else(missing)
                }))
            })
        })
    }

    /// `docker node update --availability` for a node: `active`, `pause` or `drain`.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn set_availability(&self, index: usize, availability: &str) -> Result<()> {
        let arguments = [
            "node",
            "update",
            "--availability",
            availability,
            self.node(index).name(),
        ];
        self.manager().docker(&arguments).map(drop)
    }

    /// A number that nobody else in this Swarm has, from 1: part of names, offset of published ports.
    pub fn number(&self) -> u16 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Copies what every dockerd wrote to `directory`, for whoever looks at a failed test.
    pub fn save_logs(&self, directory: &Path) {
        let _ = std::fs::create_dir_all(directory);
        for node in &self.nodes {
            let _ = std::fs::copy(node.log(), directory.join(format!("{}-dockerd.log", node.name)));
        }
    }

    /// Does something on all nodes at a time.
    fn on_every_node(&self, work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // All are waited for, then the first error counts.
            results.collect::<Vec<_>>().into_iter().collect()
        })
    }
}

impl Host {
    /// Both its addresses on the underlay.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.addresses
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }
}

/// Waits until `look` says `Ok(Ok(_))`; meanwhile it says why not yet.
///
/// # Errors
/// If that takes longer than [`PATIENCE`], or `look` fails.
pub fn wait_until<T>(goal: &str, mut look: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look()? {
            Ok(value) => return Ok(value),
            Err(state) if start.elapsed() > PATIENCE => bail!("not within {PATIENCE:?}: {goal}; last seen: {state}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
