//! [`Cluster`]: nodes with a real agent each, clients beside them, workloads behind them, one cluster file.
//!
//! ```text
//!   client1            client2                      underlay: one bridge, 10.80.0.0/24 and fd80::/64, MTU 1500
//!      | 10.80.0.101      | 10.80.0.102
//!   ---+---------+--------+-----------+----------------------------+---
//!                | eth0 10.80.0.1     | eth0 10.80.0.2             | eth0 10.80.0.3     (fd80::1 ...)
//!             node1                 node2                        node3                  lb-agent in each
//!        shop0 shop1 blog0     shop0 shop1 blog0            shop0 shop1 blog0           host sides
//!          |     |     |
//!          |     |     10.2.1.10  fd02:0:0:1::10      network blog: VIPs 10.2.0.0/24, behind the gateway
//!          |     10.1.1.11        fd01:0:0:1::11
//!          10.1.1.10              fd01:0:0:1::10      network shop: VIPs 10.1.0.0/24, on the link (ARP and ND)
//! ```
//!
//! Workload addresses are routed between the nodes, so a VIP's packet needs no tunnel once it has a backend; a published
//! port's does, because its client is outside.

mod build;
mod deployed;
mod document;
mod service;

use std::collections::BTreeSet;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::agent::{Agent, write_atomically};
use crate::cleanup::Guard;
use crate::netns::Netns;
use crate::require;

pub use build::Builder;
pub use deployed::Deployed;
pub use document::{Backend, Document, Network, Node as Machine, Port, Published, Service};
pub use service::Spec;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Which of these addresses is of this family.
    ///
    /// # Panics
    /// If none is.
    pub fn of(self, addresses: &[IpAddr]) -> IpAddr {
        let found = addresses.iter().find(|address| address.is_ipv4() == (self == Self::V4));
        *found.unwrap_or_else(|| panic!("no {self:?} address in {addresses:?}"))
    }
}

/// A whole cluster. Dropped, nothing of it is left.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    clients: Vec<Host>,
    workloads: Vec<Workload>,
    underlay: Netns,
    document: Mutex<Document>,
    /// For names, VIPs and ports that nobody else in this cluster has.
    next: AtomicU16,
    file: PathBuf,
    /// XDP programs on the bridge's ports.
    _far_ends: Vec<aya::Ebpf>,
    _bpffs: Guard,
    _directory: Guard,
}

/// A machine that runs an agent.
#[derive(Debug)]
pub struct Node {
    name: String,
    addresses: [IpAddr; 2],
    agent: Mutex<Agent>,
    socket: PathBuf,
    bpffs: PathBuf,
    netns: Netns,
}

/// A machine on the underlay that runs nothing of ours.
#[derive(Debug)]
pub struct Host {
    addresses: [IpAddr; 2],
    netns: Netns,
}

/// A namespace behind a node, with `eth0`.
#[derive(Debug)]
pub struct Workload {
    name: String,
    network: &'static str,
    node: usize,
    addresses: [IpAddr; 2],
    interface: String,
    netns: Netns,
}

impl Cluster {
    /// Three nodes, two clients, two workloads in `shop` and one in `blog` behind each node.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The cluster that `shared` remembers, or a new one: tests that run at the same time share it, and it goes with
    /// the last of them.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn shared(shared: &Mutex<Weak<Self>>, builder: Builder) -> Result<Arc<Self>> {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let cluster = Arc::new(builder.start()?);
        if require::slowness() > 1 {
            // Its agents take minutes to start: it stays, and the guest's end is its own.
            mem::forget(Arc::clone(&cluster));
        }
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    /// All clients.
    pub fn clients(&self) -> &[Host] {
        &self.clients
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// One client, from 0.
    pub fn client(&self, index: usize) -> &Host {
        &self.clients[index]
    }

    /// The workloads in `network` behind a node, in the order of their addresses.
    pub fn workloads(&self, node: usize, network: &str) -> Vec<&Workload> {
        self.workloads
            .iter()
            .filter(|workload| workload.node == node && workload.network == network)
            .collect()
    }

    /// The first workload in `network` behind a node.
    pub fn workload(&self, node: usize, network: &str) -> &Workload {
        self.workloads(node, network)[0]
    }

    /// The namespace of the bridge between the machines; the bridge ports have the machines' names.
    pub fn underlay(&self) -> &Netns {
        &self.underlay
    }

    /// The cluster file that all agents read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Changes the cluster file, in one atomic step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Document) -> T) -> Result<T> {
        let mut document = self.document();
        let result = change(&mut document);
        write_atomically(&self.file, &document.text())?;
        Ok(result)
    }

    /// Writes `text` in the place of the cluster file; the next [`Cluster::edit`] writes the document again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn overwrite(&self, text: &str) -> Result<()> {
        let _document = self.document();
        Ok(write_atomically(&self.file, text)?)
    }

    /// What the cluster file says.
    pub fn document(&self) -> MutexGuard<'_, Document> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of the cluster file a node's agent has not yet put into force.
    fn lag(&self, node: &Node) -> Result<Option<String>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut expected = BTreeSet::new();
        for service in &self.document().service {
            expected.insert(service.name.clone());
            let task = |backend: &Backend| format!("{}: {} {}", service.name, backend.name, backend.state);
            expected.extend(service.backend.iter().map(task));
        }
        let list = node.admin("/v1/services")?;
        let mut known: BTreeSet<_> = items(&list).map(|item| text(&item["name"])).collect();
        let list = node.admin("/v1/backends")?;
        known.extend(items(&list).map(|item| {
            format!(
                "{}: {} {}",
                text(&item["service"]),
                text(&item["task"]),
                text(&item["state"])
            )
        }));
        // Asked last: what was listed above is applied, or something newer.
        let status = node.admin("/v1/status")?;
        let provider = items(&status)
            .next()
            .map(|item| item["provider"].clone())
            .unwrap_or_default();
        if expected != known {
            return Ok(Some(format!(
                "it knows {known:?} instead of {expected:?}; provider: {provider}"
            )));
        }
        let applied = provider["generation"] == provider["applied"];
        Ok((!applied).then(|| format!("not applied; provider: {provider}")))
    }

    fn number(&self) -> u16 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Node {
    /// `node1`, `node2` ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the underlay.
    pub fn address(&self, family: Family) -> IpAddr {
        family.of(&self.addresses)
    }

    /// A published port on it.
    pub fn published(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// Where its agent answers DNS.
    pub fn dns(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address(family), 53)
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its agent's admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its agent pins maps and links.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Its agent; held while in use.
    pub fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts its agent and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start_agent(&self) -> Result<()> {
        let mut agent = self.agent();
        agent.spawn(&self.netns)?;
        agent.wait_ready()
    }

    /// `GET` of a path on its agent's admin socket.
    ///
    /// # Errors
    /// If the agent does not answer with status 200.
    pub fn admin(&self, path: &str) -> Result<Value> {
        let body = crate::client::get_local(&self.socket, path).with_context(|| format!("{}: {path}", self.name))?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// `GET` of a path on its metrics address, over TCP on its loopback.
    ///
    /// # Errors
    /// If nobody answers with status 200.
    pub fn metrics(&self, path: &str) -> Result<String> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, build::METRICS_PORT));
        let body = self.netns.run(|| crate::client::Connection::open(target)?.get(path))?;
        Ok(String::from_utf8(body)?)
    }
}

impl Host {
    /// Its address on the underlay.
    pub fn address(&self, family: Family) -> IpAddr {
        family.of(&self.addresses)
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }
}

impl Workload {
    /// `node1-shop0` ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of its node.
    pub fn node(&self) -> usize {
        self.node
    }

    /// Its address in its network.
    pub fn address(&self, family: Family) -> IpAddr {
        family.of(&self.addresses)
    }

    /// Name of the host side of its interface, in its node.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// `10.<network>.<node>.<host>` and `fd<network>:0:0:<node>::<host>`, the addresses of everything inside networks.
/// Node 0 are the VIPs. The host is written with the same digits in both.
fn inside(network: u8, node: u8, host: u8) -> [IpAddr; 2] {
    let digits = u16::from_str_radix(&host.to_string(), 16).expect("decimal digits are hexadecimal digits");
    let v6 = Ipv6Addr::new(0xfd00 + u16::from(network), 0, 0, node.into(), 0, 0, 0, digits);
    [Ipv4Addr::new(10, network, node, host).into(), v6.into()]
}
