//! [`Contender`]: two nodes, a client, backends; and on the nodes whoever carries the packets. All contenders' namespaces
//! exist at once, so that they can be measured in turn.
//!
//! A packet takes the same hops with each of them: client, node 1, (node 2,) backend, and back the same way. Where no agent
//! carries it, node 2 has a route that leads replies back to node 1.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aya::Ebpf;
use lb_tests::cluster::{Cluster, Family, Workload};
use lb_tests::netns::Netns;

use super::plan::{BACKENDS, Protocol, Way, backend, describe, node, published, v4, vip};
use super::proxy::Proxy;
use super::rules::{feed, iptables, nftables};
use super::serve::Server;
use crate::packages;

/// How long a contender may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// Who carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody: the client speaks to the backend, the nodes route.
    Direct,
    /// As `Direct`, without offloads.
    DirectBare,
    /// As `DirectBare`, with XDP on the nodes' interfaces that lets everything pass.
    DirectPass,
    /// This balancer at tc.
    OursTc,
    /// This balancer at XDP, without offloads.
    OursXdp,
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
    /// HAProxy, TCP mode.
    Haproxy,
    /// nginx, module stream.
    Nginx,
}

impl Kind {
    /// Whether clients and backends leave segmentation and checksums to their interfaces.
    const fn offload(self) -> bool {
        !matches!(self, Self::DirectBare | Self::DirectPass | Self::OursXdp)
    }

    /// Whether there is XDP on the nodes' interfaces, and so on the bridge's ends of their cables.
    const fn xdp(self) -> bool {
        matches!(self, Self::DirectPass | Self::OursXdp)
    }

    const fn ours(self) -> bool {
        matches!(self, Self::OursTc | Self::OursXdp)
    }

    const fn direct(self) -> bool {
        matches!(self, Self::Direct | Self::DirectBare | Self::DirectPass)
    }

    const fn proxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

/// One way to carry packets, ready.
pub(crate) struct Contender {
    /// As a subject of measurements.
    pub(crate) name: String,
    kind: Kind,
    cluster: Cluster,
    here: Server,
    there: Server,
    proxy: Option<Proxy>,
    _passing: Vec<Ebpf>,
}

impl Contender {
    /// Builds it, with as many services in all as wanted, and waits until it answers.
    ///
    /// # Errors
    /// If something is not to be had, or it does not answer.
    pub(crate) fn start(name: &str, kind: Kind, services: u16) -> Result<Self> {
        let builder = Cluster::builder()
            .nodes(2)
            .clients(1)
            .agents(kind.ours())
            .tables(1 << 20, 1 << 17)
            .log("warn");
        let xdp = if kind.xdp() { "native" } else { "off" };
        let cluster = builder.xdp(xdp).offload(kind.offload()).start()?;
        use_reno(&cluster)?;
        let serve = |workload: &Workload| Server::start(workload.netns(), v4(workload), &BACKENDS, 1);
        let (here, there) = (serve(backend(&cluster, true))?, serve(backend(&cluster, false))?);
        let fillers = services.saturating_sub(4);
        if !kind.ours() {
            lead_back(&cluster)?;
        }
        let (mut proxy, mut passing) = (None, Vec::new());
        match kind {
            Kind::Direct | Kind::DirectBare => {}
            Kind::DirectPass => {
                for node in cluster.nodes() {
                    passing.push(lb_tests::xdp::pass(node.netns(), "eth0")?);
                }
            }
            Kind::OursTc | Kind::OursXdp => cluster.edit(|document| describe(document, &cluster, fillers))?,
            Kind::Iptables => {
                let rules = iptables(&cluster, fillers);
                feed(
                    node(&cluster),
                    Command::new(packages::find("iptables-restore")?).arg("--noflush"),
                    &rules,
                )?;
            }
            Kind::Nftables => {
                let rules = nftables(&cluster, fillers);
                feed(
                    node(&cluster),
                    Command::new(packages::find("nft")?).args(["-f", "-"]),
                    &rules,
                )?;
            }
            Kind::Haproxy | Kind::Nginx => proxy = Some(Proxy::start(&cluster, kind)?),
        }
        let contender = Self {
            name: name.to_owned(),
            kind,
            cluster,
            here,
            there,
            proxy,
            _passing: passing,
        };
        contender.wait_ready()?;
        Ok(contender)
    }

    /// Whether it takes part.
    pub(crate) fn takes(&self, way: Way, protocol: Protocol) -> bool {
        let plain = !self.kind.proxy() && self.kind.offload();
        (way.published() || plain) && (protocol == Protocol::Tcp || self.kind != Kind::Haproxy)
    }

    /// What its client speaks to.
    pub(crate) fn target(&self, way: Way, protocol: Protocol) -> SocketAddr {
        if self.kind.direct() {
            return (v4(backend(&self.cluster, way.here())), BACKENDS[0]).into();
        }
        if way.published() {
            (
                self.cluster.node(0).address(Family::V4),
                published(way.here(), protocol),
            )
                .into()
        } else {
            (vip(way.here(), protocol), 80).into()
        }
    }

    /// Where its client is.
    pub(crate) fn client(&self, way: Way) -> &Netns {
        if way.published() {
            self.cluster.client(0).netns()
        } else {
            self.cluster.workload(0, "shop").netns()
        }
    }

    /// Who gets datagrams.
    pub(crate) fn server(&self, way: Way) -> &Server {
        if way.here() { &self.here } else { &self.there }
    }

    /// What the client's interface leaves to be done by others.
    pub(crate) fn offloads(&self, way: Way) -> Result<String> {
        let text = self.client(way).output("ethtool", &["-k", "eth0"])?;
        let wanted = [
            ("tx-checksumming", "tx checksum"),
            ("tcp-segmentation-offload", "TSO"),
            ("generic-receive-offload", "GRO"),
        ];
        let state = wanted.map(|(name, short)| {
            let on = text.lines().any(|line| line.trim().starts_with(&format!("{name}: on")));
            format!("{short} {}", if on { "on" } else { "off" })
        });
        Ok(state.join(", "))
    }

    /// What its proxy has written, for messages.
    fn said(&self) -> String {
        let log = self.proxy.as_ref().map(|proxy| proxy.directory.path().join("log"));
        log.and_then(|log| std::fs::read_to_string(log).ok())
            .map_or_else(String::new, |text| format!("\n{text}"))
    }

    fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        for way in Way::ALL.into_iter().filter(|way| self.takes(*way, Protocol::Tcp)) {
            let target = self.target(way, Protocol::Tcp);
            let ask = || super::load::latency(target, Duration::from_millis(1));
            while let Err(error) = self.client(way).run(ask) {
                ensure!(start.elapsed() < READY, "{}: {error:#}{}", way.name(), self.said());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

/// How fast sockets send follows from what is lost and acknowledged alone. The machine's own choice may be one that estimates
/// a rate and sends by a clock (BBR), and measures its estimate: the same path then carries a third as much, or all.
fn use_reno(cluster: &Cluster) -> Result<()> {
    let machines = [
        cluster.client(0).netns(),
        cluster.node(0).netns(),
        cluster.workload(0, "shop").netns(),
        backend(cluster, true).netns(),
        backend(cluster, false).netns(),
    ];
    // Every kernel has it, and allows it to every namespace.
    let reno = |netns: &&Netns| netns.sysctl("ipv4.tcp_congestion_control", "reno");
    machines.iter().try_for_each(reno)
}

/// Without an agent: the client knows the backends, VIPs are behind the gateway, and replies go back through node 1.
fn lead_back(cluster: &Cluster) -> Result<()> {
    let [node1, node2] = [0, 1].map(|index| cluster.node(index).address(Family::V4));
    let client = cluster.client(0);
    client.netns().ip(&format!("route add 10.1.0.0/16 via {node1}"))?;
    client.netns().sysctl("ipv4.conf.all.accept_redirects", "0")?;
    client.netns().sysctl("ipv4.conf.eth0.accept_redirects", "0")?;
    for index in [0, 1] {
        for interface in ["all", "eth0"] {
            let node = cluster.node(index).netns();
            node.sysctl(&format!("ipv4.conf.{interface}.send_redirects"), "0")?;
            node.sysctl(&format!("ipv4.conf.{interface}.accept_redirects"), "0")?;
        }
    }
    debug_assert_ne!(node1, node2);
    let back = format!("route add {}/32 via {node1}", client.address(Family::V4));
    cluster.node(1).netns().ip(&back)?;
    let inside = cluster.workload(0, "shop");
    inside.netns().ip("route del 10.1.0.0/24 dev eth0")
}

/// How many services' worth of rules somebody holds, for notes.
pub(crate) fn versions() -> Result<Vec<String>> {
    let line = |name: &str, argument: &str| packages::version(name, argument);
    let all = [
        ("iptables", "--version"),
        ("nft", "--version"),
        ("haproxy", "-v"),
        ("nginx", "-v"),
    ];
    let all = all.map(|(name, argument)| line(name, argument));
    all.iter().try_for_each(|text| {
        ensure!(
            !text.ends_with("not installed"),
            "{text}: `cargo xtask bench` installs it"
        );
        Ok(())
    })?;
    Ok(all.into())
}
