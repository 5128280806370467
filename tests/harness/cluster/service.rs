//! [`Deployed`]: a service of a running cluster with real backends, and how a test changes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::BACKEND_GONE;
use serde_json::json;

use super::document::{Backend, Port, Published, Service};
use super::{Cluster, Family, Node, Workload, inside};
use crate::client::{Connection, Udp};
use crate::lbctl;
use crate::server::Server;

/// An agent that has not applied the cluster file after so long never will, also in a guest that is emulated on a busy host.
/// How soon it must is what tests measure themselves.
const SETTLED: Duration = Duration::from_secs(30);

/// What a service is to be: TCP, in `shop`, with a VIP, not published, without backends, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Spec {
    name: Option<String>,
    network: &'static str,
    protocol: &'static str,
    mode: &'static str,
    published: bool,
    aliases: Vec<String>,
    /// Node index and weight of each.
    backends: Vec<(usize, u16)>,
}

impl Spec {
    /// A TCP service.
    pub fn tcp() -> Self {
        Self {
            name: None,
            network: "shop",
            protocol: "tcp",
            mode: "vip",
            published: false,
            aliases: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// A UDP service.
    pub fn udp() -> Self {
        Self {
            protocol: "udp",
            ..Self::tcp()
        }
    }

    /// Its name, instead of a new one.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Its network.
    #[must_use]
    pub fn network(mut self, network: &'static str) -> Self {
        self.network = network;
        self
    }

    /// Answered by name alone.
    #[must_use]
    pub fn dnsrr(mut self) -> Self {
        self.mode = "dnsrr";
        self
    }

    /// On a port of every node.
    #[must_use]
    pub fn published(mut self) -> Self {
        self.published = true;
        self
    }

    /// A further name.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_owned());
        self
    }

    /// Backends on these nodes, of weight 1.
    #[must_use]
    pub fn on(mut self, nodes: &[usize]) -> Self {
        self.backends.extend(nodes.iter().map(|node| (*node, 1)));
        self
    }

    /// A backend on this node, of this weight.
    #[must_use]
    pub fn weighted(mut self, node: usize, weight: u16) -> Self {
        self.backends.push((node, weight));
        self
    }
}

/// A service with running backends. Dropped, it leaves the cluster file, and its servers end.
#[derive(Debug)]
pub struct Deployed<'a> {
    cluster: &'a Cluster,
    name: String,
    network: &'static str,
    vips: Vec<IpAddr>,
    port: u16,
    target: u16,
    published: Option<u16>,
    servers: Mutex<Vec<Task>>,
}

/// A backend's server, and the workload it runs in.
#[derive(Debug)]
struct Task {
    name: String,
    workload: String,
    port: u16,
    /// None once it was stopped.
    server: Option<Server>,
}

impl Cluster {
    /// Starts the backends, writes the service into the cluster file, and waits until every node has it.
    ///
    /// # Errors
    /// If a server cannot be started, or a node does not take the change.
    pub fn deploy(&self, spec: Spec) -> Result<Deployed<'_>> {
        let number = self.number();
        ensure!(number < 190, "more services than one cluster's address plan holds");
        let octet = if spec.network == "shop" { 1 } else { 2 };
        let vips = if spec.mode == "vip" {
            inside(octet, 0, 10 + number as u8).to_vec()
        } else {
            Vec::new()
        };
        let deployed = Deployed {
            cluster: self,
            name: spec.name.unwrap_or_else(|| format!("web{number}")),
            network: spec.network,
            vips,
            port: 80,
            target: 2000 + number,
            published: spec.published.then_some(8000 + number),
            servers: Mutex::default(),
        };
        let backends = spec
            .backends
            .iter()
            .map(|(node, weight)| deployed.serve(*node, *weight));
        let backend = backends.collect::<Result<_>>()?;
        let service = Service {
            name: deployed.name.clone(),
            network: spec.network.to_owned(),
            mode: spec.mode,
            vip: deployed.vips.clone(),
            aliases: spec.aliases,
            ports: vec![Port {
                port: deployed.port,
                target: deployed.target,
                protocol: spec.protocol,
                published: deployed.published.map(Published::On),
            }],
            backend,
            ..Service::default()
        };
        self.edit(|document| document.service.push(service))?;
        self.settle()?;
        Ok(deployed)
    }

    /// Waits until every running agent has applied the cluster file as it is now.
    ///
    /// # Errors
    /// If one has not within [`SETTLED`].
    pub fn settle(&self) -> Result<()> {
        let running = self.nodes.iter().filter(|node| node.agent().pid().is_some());
        std::thread::scope(|scope| {
            let waits: Vec<_> = running.map(|node| scope.spawn(|| self.settle_node(node))).collect();
            waits
                .into_iter()
                .try_for_each(|wait| wait.join().expect("a waiting thread"))
        })
    }

    fn settle_node(&self, node: &Node) -> Result<()> {
        let start = Instant::now();
        while let Some(lag) = self.lag(node)? {
            let patient = start.elapsed() < SETTLED;
            ensure!(patient, "{} does not take the cluster file: {lag}", node.name());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Deployed<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its VIP and port.
    pub fn vip(&self, family: Family) -> SocketAddr {
        SocketAddr::new(family.of(&self.vips), self.port)
    }

    /// Its published port on a node.
    ///
    /// # Panics
    /// If it is not published.
    pub fn on_node(&self, node: usize, family: Family) -> SocketAddr {
        self.cluster
            .node(node)
            .published(family, self.published.expect("a published port"))
    }

    /// Its published port on every node.
    pub fn on_every_node(&self, family: Family) -> Vec<SocketAddr> {
        (0..self.cluster.nodes().len())
            .map(|node| self.on_node(node, family))
            .collect()
    }

    /// Names of its backends.
    pub fn backends(&self) -> Vec<String> {
        self.servers().iter().map(|task| task.name.clone()).collect()
    }

    /// The workload in which a backend runs.
    ///
    /// # Panics
    /// If there is no such backend.
    pub fn workload(&self, backend: &str) -> &Workload {
        let servers = self.servers();
        let task = servers
            .iter()
            .find(|task| task.name == backend)
            .unwrap_or_else(|| panic!("no backend {backend}"));
        let workload = self
            .cluster
            .workloads
            .iter()
            .find(|workload| workload.name() == task.workload);
        workload.expect("a task's workload")
    }

    /// What the cluster file says of it.
    pub fn document(&self) -> Service {
        self.cluster.document().service(&self.name).clone()
    }

    /// Adds a backend on a node, and waits until every node knows it. Its name.
    ///
    /// # Errors
    /// As [`Cluster::deploy`].
    pub fn add(&self, node: usize) -> Result<String> {
        let backend = self.serve(node, 1)?;
        let name = backend.name.clone();
        self.change(|service| service.backend.push(backend))?;
        Ok(name)
    }

    /// Lets a backend drain, and waits until every node knows it.
    ///
    /// # Errors
    /// As [`Cluster::settle`].
    pub fn drain(&self, backend: &str) -> Result<()> {
        self.change(|service| {
            for entry in service.backend.iter_mut().filter(|entry| entry.name == backend) {
                entry.state = "draining";
            }
        })
    }

    /// Ends a backend's server and says nothing of it to the cluster: what asks it is refused by its kernel.
    ///
    /// # Panics
    /// If there is no such backend, or it goes on answering.
    pub fn stop(&self, backend: &str) {
        let workload = self.workload(backend);
        let mut servers = self.servers();
        let task = servers.iter_mut().find(|task| task.name == backend);
        let task = task.unwrap_or_else(|| panic!("no backend {backend}"));
        task.server = None;
        // A process that another test starts at this moment holds its sockets until it is itself.
        let start = Instant::now();
        for address in workload.addresses {
            let target = SocketAddr::new(address, task.port);
            let refused = |result: std::io::Result<_>| {
                result.is_err_and(|error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            };
            while !workload.netns().run(|| {
                refused(Connection::open(target).map(drop))
                    && refused(
                        Udp::open(target)
                            .and_then(|socket| socket.ask(Duration::from_millis(50)))
                            .map(drop),
                    )
            }) {
                let patient = start.elapsed() < Duration::from_secs(10);
                assert!(patient, "{backend} goes on answering at {target}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Removes a backend from the cluster file, and waits until every node knows it. Its server goes on.
    ///
    /// # Errors
    /// As [`Cluster::settle`].
    pub fn remove(&self, backend: &str) -> Result<()> {
        self.change(|service| service.backend.retain(|entry| entry.name != backend))
    }

    /// Waits until a backend that was removed, and is no other service's, is gone from every node's tables: a little later than
    /// every node knows it.
    ///
    /// # Errors
    /// As [`Cluster::settle`].
    ///
    /// # Panics
    /// If there was no such backend.
    pub fn wait_until_gone(&self, backend: &str) -> Result<()> {
        let addresses = self.workload(backend).addresses;
        let port = self
            .servers()
            .iter()
            .find(|task| task.name == backend)
            .map(|task| task.port);
        let ends: Vec<_> = addresses.iter().map(|address| (address.to_string(), port)).collect();
        let start = Instant::now();
        for node in self.cluster.nodes().iter().filter(|node| node.agent().pid().is_some()) {
            while holds(node, &ends)? {
                let patient = start.elapsed() < SETTLED;
                ensure!(patient, "{backend} stays in the tables of {}", node.name());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Changes what the cluster file says of it, and waits until every node knows it.
    ///
    /// # Errors
    /// As [`Cluster::settle`].
    pub fn change(&self, change: impl FnOnce(&mut Service)) -> Result<()> {
        self.cluster.edit(|document| change(document.service(&self.name)))?;
        self.cluster.settle()
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Task>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server on the node's workload that has the fewest of this service, and describes it.
    fn serve(&self, node: usize, weight: u16) -> Result<Backend> {
        let mut servers = self.servers();
        let here: Vec<&Workload> = self.cluster.workloads(node, self.network);
        let taken = |workload: &Workload| servers.iter().filter(|task| task.workload == workload.name()).count();
        let workload = here
            .iter()
            .min_by_key(|workload| taken(workload))
            .context("a workload")?;
        let count = taken(workload);
        let name = format!("{}.{}", self.name, servers.len() + 1);
        // The second on one workload needs a port of its own.
        let port = (count > 0).then(|| 30_000 + 200 * count as u16 + self.target % 200);
        let server = Server::start(
            workload.netns(),
            &name,
            &workload.addresses,
            port.unwrap_or(self.target),
        )?;
        servers.push(Task {
            name: name.clone(),
            workload: workload.name().to_owned(),
            port: port.unwrap_or(self.target),
            server: Some(server),
        });
        Ok(Backend {
            name,
            node: self.cluster.node(node).name().to_owned(),
            addresses: workload.addresses.to_vec(),
            port,
            weight,
            state: "ready",
        })
    }
}

impl Drop for Deployed<'_> {
    fn drop(&mut self) {
        let removed = self
            .cluster
            .edit(|document| document.service.retain(|service| service.name != self.name));
        if let Err(error) = removed {
            eprintln!("note: service {} stays in the cluster file: {error}", self.name);
        }
    }
}

/// Whether a backend with one of these addresses and ports is in a node's tables and not gone.
fn holds(node: &Node, ends: &[(String, Option<u16>)]) -> Result<bool> {
    let dump = lbctl::json(node, &["map", "dump", "backends"])?;
    let rows = dump["items"].as_array().context("rows of backends")?;
    Ok(rows.iter().map(|row| &row["value"]).any(|row| {
        row["state"] != BACKEND_GONE
            && ends
                .iter()
                .any(|(address, port)| row["address"] == address.as_str() && row["port"] == json!(port))
    }))
}
