//! [`Deployed`]: a service of a running cluster with real backends, and how a test changes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::BACKEND_GONE;
use serde_json::json;

use super::document::{Backend, Service};
use super::service::SETTLED;
use super::{Cluster, Family, Node, Workload};
use crate::client::{Connection, Udp};
use crate::lbctl;
use crate::server::Server;

/// A service with running backends. Dropped, it leaves the cluster file, and its servers end.
#[derive(Debug)]
pub struct Deployed<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) name: String,
    pub(super) network: &'static str,
    pub(super) vips: Vec<IpAddr>,
    pub(super) port: u16,
    pub(super) target: u16,
    pub(super) published: Option<u16>,
    pub(super) servers: Mutex<Vec<Task>>,
}

/// A backend's server, and the workload it runs in.
#[derive(Debug)]
pub(super) struct Task {
    name: String,
    workload: String,
    port: u16,
    /// None once it was stopped.
    server: Option<Server>,
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
    pub(super) fn serve(&self, node: usize, weight: u16) -> Result<Backend> {
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
