//! The packets that are measured: who sends them where, and what should become of them.

use std::net::SocketAddr;

use lb_common::abi::program;
use lb_common::testing::fixture::{Entry, Input};
use lb_common::testing::frame::{Frame, ethernet, tunnel};
use lb_common::testing::world::{
    CLIENT_IF, Case, NEIGHBOUR_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, mac, node_mac, workload_mac,
};

use super::template::{Client, Template};
use crate::yardstick;

const ETHERNET: usize = 14;
/// What the tunnel puts before a packet beside its IP header: UDP, Geneve, one option.
const TUNNEL: usize = 8 + 8 + 28;
const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// XDP's return codes.
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// tc's: go on, and redirect.
const NEXT: u32 = u32::MAX;
const REDIRECT: u32 = 7;

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    Tc,
}

impl Hook {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Tc => "tc",
        }
    }
}

/// The way of a packet through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// It is for no service.
    NotService,
    /// From a client to a published port, whose backend is on another node.
    ToNode,
    /// The same flows' replies.
    ReplyFromNode,
    /// From a client to a published port, whose backend is here.
    ToLocal,
    /// The same flows' replies.
    ReplyLocal,
    /// Through the tunnel to a backend here.
    FromNode,
    /// The same flows' replies.
    ReplyToNode,
    /// From a workload to a VIP.
    Vip,
    /// The same flows' replies.
    ReplyVip,
    /// From a workload to a VIP, both on routed veths of this node.
    Inside,
    /// The same flows' replies.
    ReplyInside,
    /// From a workload to another one, for no service of this node's: a backend's reply to another node's workload.
    Leaves,
    /// What such a reply answers, where it arrives.
    Arrives,
}

impl Path {
    pub(crate) const ALL: [Self; 13] = [
        Self::NotService,
        Self::ToNode,
        Self::ReplyFromNode,
        Self::ToLocal,
        Self::ReplyLocal,
        Self::FromNode,
        Self::ReplyToNode,
        Self::Vip,
        Self::ReplyVip,
        Self::Inside,
        Self::ReplyInside,
        Self::Leaves,
        Self::Arrives,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotService => "not a service",
            Self::ToNode => "published port, to another node",
            Self::ReplyFromNode => "published port, reply from another node",
            Self::ToLocal => "published port, to this node",
            Self::ReplyLocal => "published port, reply of this node",
            Self::FromNode => "tunnel, to this node",
            Self::ReplyToNode => "tunnel, reply of this node",
            Self::Vip => "VIP",
            Self::ReplyVip => "VIP, reply",
            Self::Inside => "VIP, between routed veths",
            Self::ReplyInside => "VIP, reply between routed veths",
            Self::Leaves => "between workloads, sent",
            Self::Arrives => "between workloads, received",
        }
    }
}

/// A packet for a program.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) program: &'static str,
    entry: Entry,
    ifindex: u32,
    pub(crate) template: Template,
    /// What the program should return.
    pub(crate) code: u32,
}

impl Packet {
    fn new(entry: Entry, ifindex: u32, template: Template, code: u32) -> Self {
        let program = entry.program();
        Self {
            program,
            entry,
            ifindex,
            template,
            code,
        }
    }

    /// The same packet, for the yardstick.
    pub(crate) fn into_yardstick(mut self) -> Self {
        if self.program == program::XDP_NODE {
            self.program = yardstick::XDP_DNAT;
        } else {
            self.program = yardstick::TC_DNAT;
        }
        self
    }

    /// The same packet, for a program that looks at nothing.
    pub(crate) fn into_bare(mut self) -> Self {
        if self.program == program::XDP_NODE {
            (self.program, self.code) = (yardstick::XDP_BARE, XDP_TX);
        } else {
            (self.program, self.code) = (yardstick::TC_BARE, NEXT);
        }
        self
    }

    /// The same packet, for a program of one step.
    pub(crate) fn into_step(mut self, step: &'static str) -> Self {
        (self.program, self.code) = (step, XDP_TX);
        self
    }

    /// As `BPF_PROG_TEST_RUN` takes it.
    pub(crate) fn input(&mut self) -> Input {
        Input {
            entry: self.entry,
            ifindex: self.ifindex,
            frame: self.template.of(0).to_vec(),
            segment: 0,
            namespace: 0,
            side_tag: false,
        }
    }
}

/// The first packet of flows, at the hook that takes all of them.
pub(crate) fn opening(case: Case, path: Path) -> Packet {
    packet(case, path, first_hook(path), SYN)
}

/// The backend's answer to it.
pub(crate) fn answer(case: Case, path: Path) -> Packet {
    let (back, hook) = match path {
        Path::ToNode => (Path::ReplyFromNode, Hook::Xdp),
        Path::ToLocal => (Path::ReplyLocal, Hook::Tc),
        Path::FromNode => (Path::ReplyToNode, Hook::Tc),
        Path::Inside => (Path::ReplyInside, Hook::Tc),
        _ => (Path::ReplyVip, Hook::Tc),
    };
    packet(case, back, hook, SYN_ACK)
}

/// The three packets of a handshake: the connection is established when the client has gone on.
pub(crate) fn handshake(case: Case, path: Path) -> [Packet; 3] {
    [
        opening(case, path),
        answer(case, path),
        data(case, path, first_hook(path)),
    ]
}

fn first_hook(path: Path) -> Hook {
    if path == Path::ToNode { Hook::Xdp } else { Hook::Tc }
}

/// A packet of an established connection.
pub(crate) fn data(case: Case, path: Path, hook: Hook) -> Packet {
    packet(case, path, hook, ACK)
}

/// A packet that opens a connection.
pub(crate) fn new(case: Case, path: Path, hook: Hook) -> Packet {
    packet(case, path, hook, SYN)
}

fn packet(case: Case, path: Path, hook: Hook, flags: u8) -> Packet {
    let node_entry = match hook {
        Hook::Xdp => Entry::XdpNode,
        Hook::Tc => Entry::TcNode,
    };
    let sent = if hook == Hook::Xdp { XDP_TX } else { REDIRECT };
    let backend = case.backend(Place::Here);
    let segment = |from, to| {
        let frame = case.frame(from, to);
        match flags {
            // 64 bytes over IPv4.
            ACK => frame.payload(b"ten bytes."),
            SYN => case.first(from, to),
            _ => frame.flags(flags).tcp_options(&[2, 4, 5, 0xb4]).payload(b""),
        }
    };
    let plain = |frame: Frame, client| Template::new(frame.build(), ETHERNET, client, 0);
    let from_tunnel = |direction, via, inner: Frame, client, first| {
        let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
        let bytes = tunnel(outer, direction, NETWORK, via, &inner.ttl(63).packet());
        let (kind, header) = if case.v6 { (0x86dd, 40) } else { (0x0800, 20) };
        let frame = ethernet(mac(NODE_IF), node_mac(2), kind, &bytes);
        Template::new(frame, ETHERNET + header + TUNNEL, client, first)
    };
    let reply_here = |first| {
        let frame = segment(backend, case.client()).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
        let template = Template::new(frame.build(), ETHERNET, Client::Destination, first);
        Packet::new(Entry::FromWorkload, ROUTED_IF, template, REDIRECT)
    };
    // Clients of other nodes are others: two connections of one client that look alike to a backend are kept apart.
    let elsewhere = 6_000_000;
    match path {
        Path::NotService => {
            let nobody = (case.published(1).ip(), 9).into();
            let frame = segment(case.client(), nobody).macs(mac(NODE_IF), ROUTER);
            let passed = if hook == Hook::Xdp { XDP_PASS } else { NEXT };
            Packet::new(node_entry, NODE_IF, plain(frame, Client::Source), passed)
        }
        Path::ToNode | Path::ToLocal => {
            let frame = segment(case.client(), case.published(1)).macs(mac(NODE_IF), ROUTER);
            Packet::new(node_entry, NODE_IF, plain(frame, Client::Source), sent)
        }
        Path::ReplyFromNode => {
            let inner = segment(case.published(1), case.client());
            let via = case.backend(Place::Node2);
            let template = from_tunnel(2, via, inner, Client::Destination, 0);
            Packet::new(node_entry, NODE_IF, template, sent)
        }
        Path::FromNode => {
            let inner = segment(case.client(), case.published(2));
            let template = from_tunnel(1, backend, inner, Client::Source, elsewhere);
            Packet::new(node_entry, NODE_IF, template, sent)
        }
        Path::ReplyLocal => reply_here(0),
        Path::ReplyToNode => reply_here(elsewhere),
        Path::Vip => {
            let frame = segment(case.inside(), case.vip()).macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
            Packet::new(Entry::FromWorkload, CLIENT_IF, plain(frame, Client::Source), NEXT)
        }
        Path::Inside => {
            let frame = segment(case.neighbour(), case.vip()).macs(mac(NEIGHBOUR_IF), workload_mac(NEIGHBOUR_IF));
            Packet::new(
                Entry::FromWorkload,
                NEIGHBOUR_IF,
                plain(frame, Client::Source),
                REDIRECT,
            )
        }
        Path::ReplyInside => {
            let frame = segment(backend, case.neighbour()).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
            Packet::new(
                Entry::FromWorkload,
                ROUTED_IF,
                plain(frame, Client::Destination),
                REDIRECT,
            )
        }
        Path::Leaves => {
            let peer = SocketAddr::new(case.backend(Place::Node2).ip(), case.inside().port());
            let frame = segment(backend, peer).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
            Packet::new(Entry::FromWorkload, ROUTED_IF, plain(frame, Client::Destination), NEXT)
        }
        Path::Arrives => {
            let peer = SocketAddr::new(case.backend(Place::Node2).ip(), case.inside().port());
            let frame = segment(peer, backend).macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
            Packet::new(Entry::ToWorkload, ROUTED_IF, plain(frame, Client::Source), NEXT)
        }
        Path::ReplyVip => {
            let frame = segment(backend, case.inside()).macs(workload_mac(CLIENT_IF), mac(CLIENT_IF));
            Packet::new(Entry::ToWorkload, CLIENT_IF, plain(frame, Client::Destination), NEXT)
        }
    }
}
