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
mod process;
mod service;
mod task;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cleanup::Guard;
use crate::netns::{Netns, within};

use build::Settings;
use engine::Engine;

pub use agents::Balanced;
pub use build::{Builder, Iptables};
pub use container::Container;
pub use image::{IMAGE, libraries_of};

pub use machine::Machine;
pub use network::Network;
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

/// A machine with a dockerd. Its network namespace stays when it is off.
#[derive(Debug)]
pub struct Node {
    // Before the namespace that its processes are in.
    inner: Mutex<Inner>,
    name: String,
    socket: PathBuf,
    directory: PathBuf,
    nameserver: IpAddr,
    host: Host,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    machine: Option<Machine>,
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

impl Node {
    /// `node1`, `node2` ...: its host name, and so its name in the Swarm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address on the underlay: advertised, and where VXLAN packets for it go.
    pub fn address(&self) -> IpAddr {
        self.host.address()
    }

    /// Both its addresses on the underlay.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.host.addresses
    }

    /// Its network namespace. For code that needs more of the node than that, see [`Node::on_machine`].
    pub fn netns(&self) -> &Netns {
        &self.host.netns
    }

    /// Its dockerd's socket, as this process can connect to it. On the node it is `/run/docker.sock`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The node's `/run`, as this process can open the files and sockets in it.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Where its dockerd writes, over restarts.
    pub fn log(&self) -> PathBuf {
        self.inner().engine.log().to_owned()
    }

    /// Its machine, held while `work` uses it.
    ///
    /// # Errors
    /// If it is off.
    pub fn on_machine<T>(&self, work: impl FnOnce(&Machine) -> T) -> Result<T> {
        Ok(work(self.inner().machine()?))
    }

    /// A program on the node, in all its namespaces, as a child of this process; see [`Machine::start`].
    ///
    /// # Errors
    /// If the node is off.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        self.on_machine(|machine| machine.command(program))
    }

    /// Starts what [`Node::command`] made; it ends with the node.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        self.on_machine(|machine| machine.start(command))?
    }

    /// Runs a program on the node to its end and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the message holds its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program)?;
        crate::netns::run(command.args(arguments), "").with_context(|| format!("on {}", self.name))
    }

    /// Runs `work` on a thread inside a network namespace of the node: a path on it such as
    /// `/run/docker/netns/ingress_sbox`.
    ///
    /// # Errors
    /// If there is none.
    pub fn within<T: Send>(&self, namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(within(&self.open_namespace(namespace)?, work))
    }

    /// A network namespace of the node, for [`spawn_within`](crate::netns::spawn_within).
    ///
    /// # Errors
    /// If there is none.
    pub fn open_namespace(&self, namespace: &str) -> Result<File> {
        let path = self.on_machine(|machine| machine.path(namespace))?;
        File::open(&path).with_context(|| format!("{}: {namespace}", self.name))
    }

    /// Runs a program of this host inside a network namespace of the node and returns its standard output as JSON;
    /// for `ip -json` and `bridge -json`.
    ///
    /// # Errors
    /// As [`Node::within`], or if the program fails or prints none.
    pub fn json_within(&self, namespace: &str, program: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(program);
        command.arg("-json").args(arguments);
        let text = self.within(namespace, || crate::netns::run(&mut command, ""))??;
        serde_json::from_str(&text).with_context(|| format!("{program} {arguments:?} printed no JSON: {text}"))
    }

    /// Runs `docker` against the node's dockerd and returns its standard output, without the last newline.
    ///
    /// # Errors
    /// If it fails; the message holds its standard error.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        // Not under the lock: it may take long.
        engine::docker(&self.socket, arguments).with_context(|| format!("on {}", self.name))
    }

    /// `GET` of a path of its dockerd's API, such as `/networks/ingress?verbose=true`.
    ///
    /// # Errors
    /// If the status is not 200.
    pub fn api(&self, path: &str) -> Result<Value> {
        engine::api(&self.socket, path).with_context(|| format!("on {}", self.name))
    }

    /// SIGTERM for its dockerd, which ends its containers with itself.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn stop_engine(&self) -> Result<()> {
        self.end_engine(Signal::SIGTERM)
    }

    /// SIGKILL for its dockerd. Its containers run on until it is started again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_engine(&self) -> Result<()> {
        self.end_engine(Signal::SIGKILL)
    }

    /// Pulls its plug: every process on it is gone, what was in `/run` too. See [`Swarm::turn_on`].
    ///
    /// # Errors
    /// If it is off.
    pub fn turn_off(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.machine()?;
        inner.machine = None;
        inner.engine.forget();
        Ok(())
    }

    fn turn_on(&self, settings: &Settings) -> Result<()> {
        let mut inner = self.inner();
        if inner.machine.is_some() {
            bail!("{} is on", self.name);
        }
        let machine = Machine::boot(&self.host.netns, &self.name, &self.directory, self.nameserver)?;
        inner.engine.spawn(&machine, settings)?;
        inner.machine = Some(machine);
        inner.engine.wait_ready()
    }

    fn start_engine(&self, settings: &Settings) -> Result<()> {
        let mut inner = self.inner();
        let Inner { engine, machine } = &mut *inner;
        engine.spawn(on(machine)?, settings)?;
        engine.wait_ready()
    }

    fn end_engine(&self, signal: Signal) -> Result<()> {
        let mut inner = self.inner();
        let Inner { engine, machine } = &mut *inner;
        engine.end(on(machine)?, signal)
    }

    fn wait_ready(&self) -> Result<()> {
        self.inner()
            .engine
            .wait_ready()
            .with_context(|| format!("on {}", self.name))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn machine(&self) -> Result<&Machine> {
        on(&self.machine)
    }
}

fn on(machine: &Option<Machine>) -> Result<&Machine> {
    machine.as_ref().context("the node is off")
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
