//! Builds a [`Cluster`]: namespaces, links, addresses, routes, configuration, agents.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU16;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::document::{self, Document};
use super::{Cluster, Host, Node, Workload, inside};
use crate::agent::{Agent, write_atomically};
use crate::cleanup::{Guard, Resource, unique_name};
use crate::netns::Netns;
use crate::underlay;

/// Of every agent, inside its node's namespace.
pub(super) const METRICS_PORT: u16 = 9464;
/// Networks: name, the number in their addresses, workloads behind each node.
const NETWORKS: [(&str, u8, u8); 2] = [("shop", 1, 2), ("blog", 2, 1)];

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: u8,
    clients: u8,
    xdp: &'static str,
    offload: bool,
    flows: u32,
    overflow: u32,
    hand_over: bool,
    upstreams: Vec<std::net::SocketAddr>,
    agents: bool,
    log: &'static str,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 3,
            clients: 2,
            xdp: "auto",
            offload: true,
            // Fast clients leave some ten thousand closed connections behind before their time is over.
            flows: 65_536,
            overflow: 4096,
            hand_over: true,
            upstreams: Vec::new(),
            agents: true,
            log: "debug",
        }
    }
}

/// `agent.toml`, as far as the tests set it.
#[derive(Serialize)]
struct AgentConfig<'a> {
    node: NodeSection<'a>,
    paths: Paths<'a>,
    provider: Provider<'a>,
    datapath: Datapath<'a>,
    workload: Vec<WorkloadSection>,
    dns: Dns<'a>,
    metrics: Metrics,
    admin: Admin<'a>,
    log: Log,
}

#[derive(Serialize)]
struct NodeSection<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Paths<'a> {
    bpffs: &'a Path,
    run: &'a Path,
}

#[derive(Serialize)]
struct Provider<'a> {
    kind: &'static str,
    path: &'a Path,
}

#[derive(Serialize)]
struct Datapath<'a> {
    interfaces: Vec<&'static str>,
    xdp: &'a str,
    flows: u32,
    overflow: u32,
    hand_over: bool,
}

#[derive(Serialize)]
struct WorkloadSection {
    interface: String,
    network: &'static str,
}

#[derive(Serialize)]
struct Dns<'a> {
    enabled: bool,
    listen: Vec<std::net::SocketAddr>,
    upstreams: &'a [std::net::SocketAddr],
}

#[derive(Serialize)]
struct Metrics {
    listen: String,
}

#[derive(Serialize)]
struct Admin<'a> {
    socket: &'a Path,
}

#[derive(Serialize)]
struct Log {
    level: &'static str,
}

impl Builder {
    /// Number of nodes, 3 by default.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Number of clients, 2 by default.
    #[must_use]
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// `datapath.xdp` of every agent, `auto` by default. With `native`, the far ends of the nodes' interfaces get a
    /// program that passes everything: without one, the kernel loses what XDP transmits into a veth.
    #[must_use]
    pub fn xdp(mut self, xdp: &'static str) -> Self {
        self.xdp = xdp;
        self
    }

    /// Whether clients and workloads leave checksums and segmentation to their interfaces, as they do by default.
    #[must_use]
    pub fn offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// Entries of each flow table and of each overflow table.
    #[must_use]
    pub fn tables(mut self, flows: u32, overflow: u32) -> Self {
        (self.flows, self.overflow) = (flows, overflow);
        self
    }

    /// `datapath.hand_over` of every agent, true by default.
    #[must_use]
    pub fn hand_over(mut self, hand_over: bool) -> Self {
        self.hand_over = hand_over;
        self
    }

    /// Where agents forward names that they do not know.
    #[must_use]
    pub fn upstreams(mut self, upstreams: &[std::net::SocketAddr]) -> Self {
        self.upstreams = upstreams.to_vec();
        self
    }

    /// Whether an agent runs on each node, as it does by default; without, nodes only route.
    #[must_use]
    pub fn agents(mut self, agents: bool) -> Self {
        self.agents = agents;
        self
    }

    /// What agents log; everything unless this says otherwise, and that takes them time.
    #[must_use]
    pub fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// Builds everything and waits until every agent is ready.
    ///
    /// # Errors
    /// If something is not to be had, or an agent does not get ready; the message holds its log.
    pub fn start(self) -> Result<Cluster> {
        let directory = std::env::temp_dir().join(unique_name());
        let directory_guard = Guard::new(Resource::Directory(directory.clone()));
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        let bpffs = directory.join("bpf");
        fs::create_dir(&bpffs)?;
        let bpffs_guard = Guard::new(Resource::Mount(bpffs.clone()));
        let none = None::<&Path>;
        nix::mount::mount(Some("bpf"), &bpffs, Some("bpf"), nix::mount::MsFlags::empty(), none)
            .with_context(|| format!("mount a BPF file system on {}", bpffs.display()))?;

        let mut far_ends = Vec::new();
        let underlay = underlay::bridge()?;
        let clients = (1..=self.clients)
            .map(|number| self.client(&underlay, number))
            .collect::<Result<_>>()?;
        let mut workloads = Vec::new();
        let mut nodes = Vec::new();
        let file = directory.join("cluster.toml");
        for number in 1..=self.nodes {
            let node = self.node(&underlay, number, &directory, &file)?;
            for (network, octet, count) in NETWORKS {
                for slot in 0..count {
                    let index = usize::from(number - 1);
                    workloads.push(self.workload(&node, index, network, octet, slot)?);
                }
            }
            if self.xdp == "native" {
                far_ends.push(crate::xdp::pass(&underlay, node.name())?);
            }
            nodes.push(node);
        }
        let document = document(&nodes);
        write_atomically(&file, &document.text())?;
        let cluster = Cluster {
            nodes,
            clients,
            workloads,
            underlay,
            document: Mutex::new(document),
            next: AtomicU16::new(0),
            file,
            _far_ends: far_ends,
            _bpffs: bpffs_guard,
            _directory: directory_guard,
        };
        if !self.agents {
            return Ok(cluster);
        }
        for node in &cluster.nodes {
            node.agent().spawn(&node.netns)?;
        }
        for node in &cluster.nodes {
            node.agent().wait_ready()?;
        }
        Ok(cluster)
    }

    fn client(&self, underlay: &Netns, number: u8) -> Result<Host> {
        let name = format!("client{number}");
        let netns = Netns::new(&name)?;
        let addresses = underlay::plug(underlay, &netns, &name, 100 + number)?;
        self.set_offload(&netns)?;
        Ok(Host { addresses, netns })
    }

    fn node(&self, underlay: &Netns, number: u8, directory: &Path, file: &Path) -> Result<Node> {
        let name = format!("node{number}");
        let netns = Netns::new(&name)?;
        netns.route()?;
        let addresses = underlay::plug(underlay, &netns, &name, number)?;
        let mut routes = String::new();
        for other in (1..=self.nodes).filter(|other| *other != number) {
            let [via4, via6] = underlay::addresses(other);
            for (_, octet, _) in NETWORKS {
                let [subnet4, subnet6] = inside(octet, other, 0);
                routes.push_str(&format!(
                    "route add {subnet4}/24 via {via4}\nroute add {subnet6}/64 via {via6}\n"
                ));
            }
        }
        netns.ip(&routes)?;
        let run = directory.join(&name);
        fs::create_dir(&run)?;
        let agent = Agent::new(&name, run.clone());
        let bpffs = directory.join("bpf").join(&name);
        let config = AgentConfig {
            node: NodeSection { name: &name },
            paths: Paths {
                bpffs: &bpffs,
                run: &run,
            },
            provider: Provider {
                kind: "file",
                path: file,
            },
            datapath: Datapath {
                interfaces: vec!["eth0"],
                xdp: self.xdp,
                flows: self.flows,
                overflow: self.overflow,
                hand_over: self.hand_over,
            },
            workload: NETWORKS
                .map(|(network, ..)| WorkloadSection {
                    interface: format!("{network}*"),
                    network,
                })
                .into(),
            dns: Dns {
                enabled: true,
                listen: addresses.map(|address| (address, 53).into()).into(),
                upstreams: &self.upstreams,
            },
            metrics: Metrics {
                listen: format!("127.0.0.1:{METRICS_PORT}"),
            },
            admin: Admin {
                socket: &agent.socket(),
            },
            log: Log { level: self.log },
        };
        fs::write(agent.config(), toml::to_string_pretty(&config)?)?;
        let socket = agent.socket();
        Ok(Node {
            name,
            addresses,
            agent: Mutex::new(agent),
            socket,
            bpffs,
            netns,
        })
    }

    fn workload(&self, node: &Node, index: usize, network: &'static str, octet: u8, slot: u8) -> Result<Workload> {
        let number = u8::try_from(index + 1)?;
        let interface = format!("{network}{slot}");
        let name = format!("{}-{interface}", node.name);
        let netns = Netns::new(&name)?;
        let addresses = inside(octet, number, 10 + slot);
        let [v4, v6] = addresses;
        let gateway = Ipv4Addr::new(10, octet, number, 1);
        node.netns.veth(&interface, &netns, "eth0")?;
        node.netns.ip(&format!(
            "address add {gateway}/32 dev {interface}\n\
             address add fe80::1/64 dev {interface} nodad\n\
             link set {interface} up\n\
             route add {v4}/32 dev {interface}\n\
             route add {v6}/128 dev {interface}",
        ))?;
        netns.ip(&format!(
            "address add {v4}/32 dev eth0\n\
             address add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {gateway} dev eth0\n\
             route add default via {gateway}\n\
             route add default via fe80::1 dev eth0",
        ))?;
        if network == "shop" {
            // Here VIPs are neighbours, and the agent's programs answer for them.
            let [subnet4, subnet6] = inside(octet, 0, 0);
            netns.ip(&format!(
                "route add {subnet4}/24 dev eth0\nroute add {subnet6}/64 dev eth0"
            ))?;
        }
        self.set_offload(&netns)?;
        Ok(Workload {
            name,
            network,
            node: index,
            addresses,
            interface,
            netns,
        })
    }

    fn set_offload(&self, netns: &Netns) -> Result<()> {
        if self.offload {
            return Ok(());
        }
        netns.offload(
            "eth0",
            &["tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"],
        )
    }
}

/// Nodes and networks; no service yet.
fn document(nodes: &[Node]) -> Document {
    let node = nodes.iter().map(|node| document::Node {
        name: node.name.clone(),
        addresses: node.addresses.into(),
    });
    let network = NETWORKS.map(|(name, octet, _)| document::Network {
        name: name.to_owned(),
        id: 0x1000 + u32::from(octet),
        subnets: vec![format!("10.{octet}.0.0/16"), format!("fd{octet:02}::/48")],
    });
    Document {
        node: node.collect(),
        network: network.into(),
        service: Vec::new(),
    }
}
