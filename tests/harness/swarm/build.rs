//! Builds a [`Swarm`]: machines, their dockerd, the image, who leads and who joins.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU16;

use anyhow::{Context as _, Result, ensure};

use super::engine::Engine;
use super::machine::Machine;
use super::node::Inner;
use super::{Host, Node, Swarm, image};
use crate::cleanup::{Guard, Resource, unique_name};
use crate::netns::Netns;
use crate::underlay;

/// `f_type` of an overlay, on which no other can be stacked.
const OVERLAYFS_MAGIC: i64 = 0x794c_7630;

/// Which of the kernel's two packet filters the `iptables` command of the nodes writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iptables {
    /// `iptables-nft`, Debian's choice.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// What a Swarm is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: u8,
    managers: u8,
    clients: u8,
    iptables: Iptables,
    forwarding: bool,
}

/// With what every dockerd is started.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) storage: &'static str,
    iptables: Iptables,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 3,
            managers: 1,
            clients: 1,
            iptables: Iptables::Nft,
            forwarding: true,
        }
    }
}

impl Builder {
    /// Number of nodes, 3 by default.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many of the nodes, from the first, are managers; 1 by default.
    #[must_use]
    pub fn managers(mut self, managers: u8) -> Self {
        self.managers = managers;
        self
    }

    /// Number of clients, 1 by default.
    #[must_use]
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// The packet filter of the nodes, [`Iptables::Nft`] by default.
    #[must_use]
    pub fn iptables(mut self, iptables: Iptables) -> Self {
        self.iptables = iptables;
        self
    }

    /// Whether nodes forward packets before dockerd starts, as they do by default. If not, dockerd turns it on and
    /// drops what it was not told to forward (policy of the filter's chain FORWARD), as on most real hosts.
    #[must_use]
    pub fn forwarding(mut self, forwarding: bool) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// Builds everything and waits until every node is ready.
    ///
    /// # Errors
    /// If something is not to be had, or a dockerd does not get ready; the message holds its log.
    pub fn start(self) -> Result<Swarm> {
        ensure!(
            (1..=self.nodes).contains(&self.managers),
            "{} of {} nodes cannot be managers",
            self.managers,
            self.nodes
        );
        let directory = std::env::temp_dir().join(unique_name());
        let directory_guard = Guard::new(Resource::Directory(directory.clone()));
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        let settings = Settings {
            storage: storage(&directory)?,
            iptables: self.iptables,
        };
        let underlay = underlay::bridge()?;
        let host = |number: u8, name: &str, address: u8| -> Result<Host> {
            let netns = Netns::new(name)?;
            let addresses = underlay::plug(&underlay, &netns, name, address + number)?;
            Ok(Host { addresses, netns })
        };
        let clients: Vec<_> = (1..=self.clients)
            .map(|number| host(number, &format!("client{number}"), 100))
            .collect::<Result<_>>()?;
        let nodes: Vec<_> = (1..=self.nodes)
            .map(|number| {
                let name = format!("node{number}");
                let host = host(number, &name, 0)?;
                self.node(host, name, &directory, &settings)
            })
            .collect::<Result<_>>()?;
        let swarm = Swarm {
            nodes,
            clients,
            underlay,
            settings,
            next: AtomicU16::new(0),
            _directory: directory_guard,
        };
        swarm.on_every_node(Node::wait_ready)?;
        let archive = image::archive(&directory)?;
        let archive = archive.to_str().context("a temporary directory with a readable name")?;
        swarm.on_every_node(|node| node.docker(&image::import(archive)).map(drop))?;
        self.join(&swarm)?;
        Ok(swarm)
    }

    fn node(&self, host: Host, name: String, directory: &Path, settings: &Settings) -> Result<Node> {
        if self.forwarding {
            host.netns.route()?;
        }
        let directory = directory.join(&name);
        // Names that Docker does not know are asked of the first client, where a test may answer.
        let nameserver = underlay::addresses(101)[0];
        let machine = Machine::boot(&host.netns, &name, &directory, nameserver)?;
        let mut engine = Engine::new(&machine, directory.join("dockerd.log"));
        engine.spawn(&machine, settings)?;
        let socket = engine.socket().to_owned();
        Ok(Node {
            name,
            socket,
            directory,
            nameserver,
            inner: Mutex::new(Inner {
                engine,
                machine: Some(machine),
            }),
            host,
        })
    }

    fn join(&self, swarm: &Swarm) -> Result<()> {
        let first = swarm.node(0);
        let address = |node: &Node| node.address().to_string();
        first.docker(&["swarm", "init", "--advertise-addr", &address(first)])?;
        let leader = format!("{}:2377", first.address());
        for (index, node) in swarm.nodes().iter().enumerate().skip(1) {
            let role = if index < usize::from(self.managers) {
                "manager"
            } else {
                "worker"
            };
            let token = first.docker(&["swarm", "join-token", "--quiet", role])?;
            node.docker(&[
                "swarm",
                "join",
                "--advertise-addr",
                &address(node),
                "--token",
                &token,
                &leader,
            ])?;
        }
        swarm.wait_nodes_ready()
    }
}

impl Settings {
    /// The search path of dockerd: first a directory where `iptables` is the wanted one.
    pub(super) fn path(&self, machine: &Machine) -> Result<String> {
        let variant = match self.iptables {
            Iptables::Nft => "nft",
            Iptables::Legacy => "legacy",
        };
        let script = format!(
            "mkdir -p /opt/iptables && for family in iptables ip6tables; do \
             ln -sf \"$(command -v $family-{variant})\" /opt/iptables/$family; done"
        );
        machine.output("sh", &["-ec", &script])?;
        Ok("/opt/iptables:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned())
    }
}

/// Docker's storage driver for what it keeps in `directory`.
fn storage(directory: &Path) -> Result<&'static str> {
    let kind = nix::sys::statfs::statfs(directory)?.filesystem_type().0;
    Ok(if kind == OVERLAYFS_MAGIC { "vfs" } else { "overlay2" })
}

impl Host {
    /// Its IPv4 address on the underlay.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }
}
