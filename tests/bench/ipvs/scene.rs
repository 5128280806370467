//! [`Scene`]: a node with a port, a backend of its own, another node, and whoever carries the packets between them. The
//! addresses are those of a [`World`].
//!
//! ```text
//! frames ─▶ if10 (tap)  node  if20 (veth) ── backend on the node      far ends count what arrives, and drop it
//!                             if11 (veth) ── another node
//! ```

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use aya::Ebpf;
use aya::programs::TcAttachType;
use lb_common::testing::frame::Mac;
use lb_common::testing::world::{Case, NODE_IF, Place, ROUTED_IF, ROUTER, SECOND_IF, mac, node_mac, workload_mac};
use lb_tests::kernel::Kernel;
use lb_tests::netns::Netns;

use super::port::Port;
use super::programs::{self, attach_tc, attach_xdp};
use super::{Kind, rules, swarm};
use crate::frames::arrived;
use crate::yardstick::{self, TC_SINK, XDP_FORWARD, XDP_HASH, XDP_SINK};

/// TCP over IPv4.
pub(super) const CASE: Case = Case::TCP[0];
/// Ports of the backend that take flows in turn.
pub(super) const BACKEND_PORTS: [u16; 2] = [8000, 8001];
/// What is behind another interface has this number more.
pub(super) const FAR: u32 = 100;
/// What clients speak to.
pub(super) fn published() -> SocketAddr {
    CASE.published(1)
}

/// The backend's address.
pub(super) fn backend() -> IpAddr {
    CASE.backend(Place::Here).ip()
}

/// One way to carry packets, ready.
pub(super) struct Scene {
    pub(super) kind: Kind,
    pub(super) node: Netns,
    pub(super) far: Netns,
    pub(super) port: Port,
    sinks: Ebpf,
    /// This balancer's programs.
    pub(super) ours: Option<Kernel>,
    /// Of Swarm's chain: the sandbox and the overlay's namespace.
    pub(super) more: Vec<Netns>,
}

impl Scene {
    /// Builds it; `yardstick` is the object with the programs of far ends.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub(super) fn build(kind: Kind, yardstick: &[u8]) -> Result<Self> {
        let mut sinks = yardstick::load_stateless(yardstick)?;
        let (node, far) = (Netns::new("node")?, Netns::new("far")?);
        for netns in [&node, &far] {
            // Nobody else sends anything.
            netns.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        }
        node.route()?;
        let port = Port::open(&node, NODE_IF)?;
        node.ip(&format!("link set if{NODE_IF} address {} up", colons(mac(NODE_IF))))?;
        let mut more = Vec::new();
        far_end(&node, &format!("if{SECOND_IF}"), &far, SECOND_IF + FAR)?;
        if kind == Kind::Swarm {
            more = swarm::build(&node, &far, ROUTED_IF + FAR, workload_mac(ROUTED_IF))?;
        } else {
            far_end(&node, &format!("if{ROUTED_IF}"), &far, ROUTED_IF + FAR)?;
        }
        node.ip(&routes(kind))?;
        let xdp = matches!(kind, Kind::OursXdp | Kind::Forward | Kind::Hash);
        far.run(|| -> Result<()> {
            attach_tc(&mut sinks, TC_SINK, ROUTED_IF + FAR, TcAttachType::Ingress)?;
            if xdp {
                return attach_xdp(&mut sinks, XDP_SINK, SECOND_IF + FAR);
            }
            attach_tc(&mut sinks, TC_SINK, SECOND_IF + FAR, TcAttachType::Ingress)
        })?;
        let mut ours = None;
        match kind {
            Kind::Generator => node.run(|| attach_xdp(&mut sinks, XDP_SINK, NODE_IF))?,
            Kind::Plain => {}
            Kind::Forward => node.run(|| attach_xdp(&mut sinks, XDP_FORWARD, NODE_IF))?,
            Kind::Hash => {
                yardstick::serve(&mut sinks, 1)?;
                node.run(|| attach_xdp(&mut sinks, XDP_HASH, NODE_IF))?;
            }
            Kind::Iptables => rules::iptables(&node)?,
            Kind::Nftables => rules::nftables(&node)?,
            Kind::Ipvs => rules::ipvs(&node, false)?,
            Kind::IpvsConntrack => rules::ipvs(&node, true)?,
            Kind::Swarm => {}
            Kind::OursXdp | Kind::OursTc | Kind::OursTcHere => ours = Some(node.run(|| programs::ours(kind))?),
        }
        Ok(Self {
            kind,
            node,
            far,
            port,
            sinks,
            ours,
            more,
        })
    }

    /// How many packets came to the far ends.
    pub(super) fn arrived(&self) -> Result<u64> {
        arrived(&self.sinks)
    }
}

/// Addresses, routes and neighbours of the node.
fn routes(kind: Kind) -> String {
    let neighbour = |address: IpAddr, mac, index| {
        format!(
            "route add {address} dev if{index}\nneighbour add {address} lladdr {} dev if{index} nud permanent\n",
            colons(mac)
        )
    };
    let mut lines = format!("address add {}/32 dev if{NODE_IF}\n", CASE.node(1));
    lines += &neighbour(CASE.node(254), ROUTER, NODE_IF);
    lines += &format!("route add 198.51.100.0/24 via {} dev if{NODE_IF}\n", CASE.node(254));
    lines += &neighbour(CASE.node(2), node_mac(2), SECOND_IF);
    if kind != Kind::Swarm {
        lines += &neighbour(backend(), workload_mac(ROUTED_IF), ROUTED_IF);
    }
    lines
}

/// A veth pair to the far end, whose interface there is `if<index>`; both up.
pub(super) fn far_end(netns: &Netns, name: &str, far: &Netns, index: u32) -> Result<()> {
    let near = index - FAR;
    netns.ip(&format!(
        "link add {name} index {near} address {} type veth peer name if{index} index {index} netns {}\nlink set {name} up",
        colons(mac(near)),
        far.name()
    ))?;
    far.ip(&format!("link set if{index} up"))
}

/// As `ip` takes it.
pub(super) fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
