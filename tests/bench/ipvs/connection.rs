//! The connections of a [`Scene`]: the client's frames, the backend's answers, and whether who tracks connections has
//! understood them.

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::FLOW_ESTABLISHED;
use lb_common::testing::frame::{Frame, Mac};
use lb_common::testing::world::{NODE_IF, ROUTED_IF, ROUTER, mac, workload_mac};

use super::port::send;
use super::scene::{BACKEND_PORTS, CASE, FAR, Scene, backend, published};
use super::{Kind, swarm};
use crate::program::frames;
use crate::program::template::{Client, Template};

const ETHERNET: usize = 14;
const SYN_ACK: u8 = 0x12;
/// First sequence numbers: of the client's SYN, as `Case::first` writes it, and of the answer.
const SEQUENCE: u32 = 0x0102_0304;
const ANSWER: u32 = 0x1234_5678;

impl Scene {
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
        Template::new(frame.macs(mac(NODE_IF), ROUTER).build(), ETHERNET, Client::Source, 0)
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
                let mut template = Template::new(answer.build(), ETHERNET, Client::Destination, 0);
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

    /// Who tracks connections must take the first client's for an established one.
    fn check(&self) -> Result<()> {
        if let Some(ours) = &self.ours {
            let flows = ours.state()?.flows;
            let states: Vec<u8> = flows.values().map(|flow| flow.state).collect();
            ensure!(states == [FLOW_ESTABLISHED], "flows in the states {states:?}");
        }
        let tables: &[(usize, &str)] = match self.kind {
            Kind::Iptables | Kind::Nftables => &[(0, "nf_conntrack")],
            Kind::Ipvs => &[(0, "ip_vs_conn")],
            Kind::IpvsConntrack => &[(0, "nf_conntrack"), (0, "ip_vs_conn")],
            Kind::Swarm => &[(0, "nf_conntrack"), (1, "nf_conntrack"), (1, "ip_vs_conn")],
            _ => &[],
        };
        for (place, table) in tables {
            let netns = if *place == 0 { &self.node } else { &self.more[place - 1] };
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
