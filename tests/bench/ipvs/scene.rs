//! [`Scene`]: a node with a port, a backend of its own, another node, and whoever carries the packets between them. The
//! addresses are those of a [`World`].
//!
//! ```text
//! frames ─▶ if10 (tap)  node  if20 (veth) ── backend on the node      far ends count what arrives, and drop it
//!                             if11 (veth) ── another node
//! ```

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use lb_common::testing::frame::{Frame, Mac};
use lb_common::testing::world::{
    Case, NODE_IF, Place, ROUTED_IF, ROUTER, SECOND_IF, World, mac, node_mac, workload_mac,
};
use lb_tests::kernel::Kernel;
use lb_tests::netns::Netns;

use super::port::{Port, send};
use super::{Kind, rules, swarm};
use crate::frames::arrived;
use crate::program::frames;
use crate::program::template::{Client, Template};
use crate::yardstick::{self, TC_SINK, XDP_FORWARD, XDP_HASH, XDP_SINK};

const CASE: Case = Case::TCP[0];
/// Ports of the backend that take flows in turn.
pub(super) const BACKEND_PORTS: [u16; 2] = [8000, 8001];
/// What is behind another interface has this number more.
const FAR: u32 = 100;
/// Entries of this balancer's flow tables.
const FLOWS: u32 = 1 << 17;
const SYN_ACK: u8 = 0x12;
/// First sequence numbers: of the client's SYN, as [`Case::first`] writes it, and of the answer.
const SEQUENCE: u32 = 0x0102_0304;
const ANSWER: u32 = 0x1234_5678;

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
    node: Netns,
    far: Netns,
    port: Port,
    sinks: Ebpf,
    /// This balancer's programs, and further namespaces.
    _ours: Option<Kernel>,
    _more: Vec<Netns>,
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
            Kind::OursXdp | Kind::OursTc | Kind::OursTcHere => ours = Some(node.run(|| programs(kind))?),
        }
        Ok(Self {
            kind,
            node,
            far,
            port,
            sinks,
            _ours: ours,
            _more: more,
        })
    }

    /// The client's frames: the first of a connection, or one of an established one.
    pub(super) fn template(&self, first: bool) -> Template {
        let to = if self.kind == Kind::Plain {
            (backend(), BACKEND_PORTS[0]).into()
        } else {
            published()
        };
        let frame = if first {
            CASE.first(CASE.client(), to)
        } else {
            let frame = CASE.frame(CASE.client(), to);
            frame.numbers(SEQUENCE + 1, ANSWER + 1).payload(b"ten bytes.")
        };
        Template::new(frame.macs(mac(NODE_IF), ROUTER).build(), 14, Client::Source, 0)
    }

    /// Establishes the connection of the first client.
    ///
    /// # Errors
    /// If a frame cannot be sent.
    pub(super) fn establish(&self) -> Result<()> {
        self.receive(self.template(true).of(0))?;
        if matches!(self.kind, Kind::OursXdp | Kind::OursTc) {
            let mut answer = frames::answer(CASE, frames::Path::ToNode);
            self.receive(answer.template.of(0))?;
        } else if !matches!(self.kind, Kind::Generator | Kind::Forward | Kind::Hash) {
            for answer in answers(self.kind) {
                let mut template = Template::new(answer.build(), 14, Client::Destination, 0);
                send(&self.far, ROUTED_IF + FAR, template.of(0))?;
            }
        }
        self.receive(self.template(false).of(0))?;
        self.check()
    }

    /// The node receives a frame.
    pub(super) fn receive(&self, frame: &[u8]) -> Result<()> {
        self.port.receive(frame).context("the node's port")
    }

    /// How many packets came to the far ends.
    pub(super) fn arrived(&self) -> Result<u64> {
        arrived(&self.sinks)
    }

    /// Who tracks connections must take the first client's for an established one.
    fn check(&self) -> Result<()> {
        let tables: &[(usize, &str)] = match self.kind {
            Kind::Iptables | Kind::Nftables => &[(0, "nf_conntrack")],
            Kind::Ipvs => &[(0, "ip_vs_conn")],
            Kind::IpvsConntrack => &[(0, "nf_conntrack"), (0, "ip_vs_conn")],
            Kind::Swarm => &[(0, "nf_conntrack"), (1, "nf_conntrack"), (1, "ip_vs_conn")],
            _ => &[],
        };
        for (place, table) in tables {
            let netns = if *place == 0 {
                &self.node
            } else {
                &self._more[place - 1]
            };
            let text = netns.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")))?;
            ensure!(
                text.contains("ESTABLISHED"),
                "{table} holds no established connection:\n{text}"
            );
        }
        Ok(())
    }
}

/// The backend's answers to the first client; from either port, as it is not known which of them was chosen.
fn answers(kind: Kind) -> Vec<Frame> {
    let answer = |from, to, here: Mac| {
        let frame = CASE.frame(from, to).flags(SYN_ACK).numbers(ANSWER, SEQUENCE + 1);
        let frame = frame.tcp_options(&[2, 4, 5, 0xb4]).payload(b"");
        frame.macs(here, workload_mac(ROUTED_IF))
    };
    if kind == Kind::Swarm {
        let from = (swarm::TASK, published().port()).into();
        return vec![answer(from, (swarm::OWN, CASE.client().port()).into(), swarm::OWN_MAC)];
    }
    let ports = BACKEND_PORTS.map(|port| answer((backend(), port).into(), CASE.client(), mac(ROUTED_IF)));
    // To a balancer of this kind the second port is no backend's.
    let count = if matches!(kind, Kind::Plain | Kind::OursTcHere) {
        1
    } else {
        2
    };
    ports.into_iter().take(count).collect()
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

/// This balancer's programs where an agent attaches them, with one published service.
fn programs(kind: Kind) -> Result<Kernel> {
    let place = if kind == Kind::OursTcHere {
        Place::Here
    } else {
        Place::Node2
    };
    let world = World::new().serve(CASE, &[place]);
    let mut kernel = Kernel::load(FLOWS)?;
    kernel.fill(&world.tables)?;
    if kind == Kind::OursXdp {
        attach_xdp(&mut kernel.ebpf, "xdp_node", NODE_IF)?;
    }
    for index in [NODE_IF, SECOND_IF] {
        attach_tc(&mut kernel.ebpf, "tc_node", index, TcAttachType::Ingress)?;
    }
    attach_tc(&mut kernel.ebpf, "from_workload", ROUTED_IF, TcAttachType::Ingress)?;
    attach_tc(&mut kernel.ebpf, "to_workload", ROUTED_IF, TcAttachType::Egress)?;
    Ok(kernel)
}

fn attach_xdp(ebpf: &mut Ebpf, name: &str, index: u32) -> Result<()> {
    let program: &mut Xdp = ebpf.program_mut(name).context("an XDP program")?.try_into()?;
    let attached = program.attach(&format!("if{index}"), XdpMode::Driver);
    attached.with_context(|| format!("{name} at if{index}"))?;
    Ok(())
}

fn attach_tc(ebpf: &mut Ebpf, name: &str, index: u32, hook: TcAttachType) -> Result<()> {
    let interface = format!("if{index}");
    // It may be there, for the other direction.
    let _ = tc::qdisc_add_clsact(&interface);
    let program: &mut SchedClassifier = ebpf.program_mut(name).context("a tc program")?.try_into()?;
    let attached = program.attach(&interface, hook);
    attached.with_context(|| format!("{name} at {interface}"))?;
    Ok(())
}

pub(super) fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
