//! ICMP errors about packets that were translated.

mod clients;
mod inside;
mod refused;
mod tunnelled;

use std::format;
use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, icmp_error_at, tunnel};
use super::world::{Case, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac, node_mac, workload_mac};
use crate::abi::NETWORK_NODE;
use crate::tuple::Tuple;
use crate::verdict::{Action, Reason};

const FORWARD: u8 = 1;
const REPLY: u8 = 2;

/// Type, code and what stands behind the checksum: unreachable, too big, time exceeded, parameter problem.
fn kinds(case: Case) -> [(&'static str, (u8, u8), u32); 4] {
    let [unreachable, too_big, time, parameter] = if case.v6 {
        [(1, 4), (2, 0), (3, 0), (4, 1)]
    } else {
        [(3, 3), (3, 4), (11, 0), (12, 0)]
    };
    [
        ("unreachable", unreachable, 0),
        ("too_big", too_big, 1300),
        ("time", time, 0),
        ("parameter", parameter, if case.v6 { 6 } else { 0x0600_0000 }),
    ]
}

/// An error in the making.
#[derive(Clone)]
struct Error {
    case: Case,
    source: IpAddr,
    kind: (u8, u8),
    rest: u32,
    /// The packet that it is about.
    about: Frame,
    /// Bytes of it that are quoted behind its IP header; `None`: all.
    quoted: Option<usize>,
    ttl: u8,
    macs: (Mac, Mac),
}

impl Error {
    /// A port that is closed, told by `source`, about a packet from `from` to `to`.
    fn new(case: Case, source: IpAddr, from: SocketAddr, to: SocketAddr) -> Self {
        let (_, kind, rest) = kinds(case)[0];
        Self {
            case,
            source,
            kind,
            rest,
            about: case.frame(from, to).ttl(60),
            quoted: None,
            ttl: 64,
            macs: ([0; 6], [0; 6]),
        }
    }

    fn kind(mut self, kind: (u8, u8), rest: u32) -> Self {
        (self.kind, self.rest) = (kind, rest);
        self
    }

    fn quoted(mut self, bytes: Option<usize>) -> Self {
        self.quoted = bytes;
        self
    }

    fn source(mut self, source: IpAddr) -> Self {
        self.source = source;
        self
    }

    /// As another end knows the packet.
    fn about(mut self, from: SocketAddr, to: SocketAddr) -> Self {
        self.about = self.about.from(from).to(to);
        self
    }

    fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    fn macs(mut self, destination: Mac, source: Mac) -> Self {
        self.macs = (destination, source);
        self
    }

    /// The IP packet, to whom the quoted packet is from.
    fn packet(&self) -> Vec<u8> {
        let quote = self.about.packet();
        let header = if self.case.v6 { 40 } else { 20 };
        let end = self.quoted.map_or(quote.len(), |bytes| header + bytes);
        let to = match quote[0] >> 4 {
            6 => IpAddr::from(<[u8; 16]>::try_from(&quote[8..24]).expect("sixteen bytes")),
            _ => IpAddr::from(<[u8; 4]>::try_from(&quote[12..16]).expect("four bytes")),
        };
        icmp_error_at(self.ttl, self.source, to, self.kind, self.rest, &quote[..end])
    }

    fn build(&self) -> Vec<u8> {
        let kind = if self.case.v6 { 0x86dd } else { 0x0800 };
        ethernet(self.macs.0, self.macs.1, kind, &self.packet())
    }

    /// Between node 1 and another node, through the tunnel.
    fn tunnelled(&self, to: bool, node: u8, direction: u8, place: Place) -> Vec<u8> {
        let case = self.case;
        let (own, other) = (case.node(1), case.node(node));
        let packet = self.packet();
        let outer: (SocketAddr, SocketAddr) = if to {
            ((own, 0xc000 | self.port()).into(), (other, TUNNEL_PORT).into())
        } else {
            ((other, 50_000).into(), (own, TUNNEL_PORT).into())
        };
        let packet = tunnel(outer, direction, NETWORK, case.backend(place), &packet);
        let macs = if to {
            (node_mac(node), mac(NODE_IF))
        } else {
            (mac(NODE_IF), node_mac(node))
        };
        ethernet(macs.0, macs.1, if case.v6 { 0x86dd } else { 0x0800 }, &packet)
    }

    /// What its addresses add to the source port of the tunnel.
    fn port(&self) -> u16 {
        let packet = self.packet();
        let ip = |at: usize| match packet[0] >> 4 {
            6 => IpAddr::from(<[u8; 16]>::try_from(&packet[8 + at * 16..24 + at * 16]).expect("sixteen bytes")),
            _ => IpAddr::from(<[u8; 4]>::try_from(&packet[12 + at * 4..16 + at * 4]).expect("four bytes")),
        };
        (self.case.tuple((ip(0), 0).into(), (ip(1), 0).into(), 0).hash() & 0x3fff) as u16
    }
}

/// A router that is nobody's.
fn router(case: Case) -> IpAddr {
    case.node(200)
}

/// The flow is as it was.
fn untouched(step: Step, world: &World, tuple: Tuple) -> Step {
    let before = world.tables.flows()[&tuple];
    step.then(move |tables| {
        let after = tables.flows()[&tuple];
        assert_eq!(tables.flows().len(), 1);
        // The packet tests let the world's clock run.
        let moved = after.created.wrapping_sub(before.created);
        assert_eq!(after.last_seen.wrapping_sub(before.last_seen), moved);
        assert_eq!(
            (after.state, after.flags, after.timeout),
            (before.state, before.flags, before.timeout)
        );
    })
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(about_replies(case));
        all.extend(about_requests(case));
        all.extend(tunnelled::through_the_tunnel(case));
        all.extend(tunnelled::too_long(case));
        all.extend(inside::vips(case));
        all.extend(inside::hairpins(case));
        all.extend(clients::own_clients(case));
        all.extend(refused::passed(case));
        all.extend(refused::dropped(case));
    }
    for case in [Case::TCP[0], Case::UDP[0]] {
        all.extend(clients::masked(case));
    }
    all.push(no_checksum());
    all
}

/// A router, or the client, says something about a reply that left here.
fn about_replies(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let told = |source| Error::new(case, source, case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    let arrives = |error: &Error| {
        let error = error.clone().about(case.backend(Place::Here), case.client()).ttl(63);
        error.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build()
    };
    let to_backend = |frame: Vec<u8>, error: &Error| {
        Step::new(Entry::TcNode, NODE_IF, frame).redirects(
            Action::RedirectPeer,
            Reason::ErrorToBackend,
            ROUTED_IF,
            arrives(error),
        )
    };
    let mut all = Vec::new();
    for (what, kind, rest) in kinds(case) {
        let error = told(router(case)).kind(kind, rest);
        all.push(
            Fixture::new(
                format!("error_reply_{what}_{}", case.name()),
                "a router's error about a reply reaches the backend, which knows its packet again; XDP leaves it to tc",
                world(),
            )
            .step(Step::new(Entry::XdpNode, NODE_IF, error.build()).passes(Reason::PassIcmpError))
            .step(untouched(to_backend(error.build(), &error), &world(), tuple)),
        );
    }
    for (what, bytes) in [("eight_bytes", 8), ("odd", 13), ("header", 20)] {
        let error = told(router(case)).quoted(Some(bytes));
        all.push(
            Fixture::new(
                format!("error_reply_{what}_{}", case.name()),
                "whatever is quoted of the packet, ports or checksum too, is translated",
                world(),
            )
            .step(to_backend(error.build(), &error)),
        );
    }
    let error = told(case.client().ip());
    let mut tagged = error.build();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    all.push(
        Fixture::new(
            format!("error_reply_client_{}", case.name()),
            "so does what the client itself says, tagged too",
            world(),
        )
        .step(to_backend(error.build(), &error))
        .step(to_backend(tagged, &error)),
    );
    all
}

/// A backend, or somebody behind its interface, says something about a client's packet.
fn about_requests(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let backend = case.backend(Place::Here);
    let told = |source| Error::new(case, source, case.client(), backend).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let to_client = |error: &Error, source| {
        let sent = error
            .clone()
            .source(source)
            .about(case.client(), case.published(1))
            .ttl(63);
        Step::new(Entry::FromWorkload, ROUTED_IF, error.build()).redirects(
            Action::Redirect,
            Reason::ErrorToClient,
            NODE_IF,
            sent.macs(ROUTER, mac(NODE_IF)).build(),
        )
    };
    let frontend = case.published(1).ip();
    let mut all = Vec::new();
    for (what, kind, rest) in kinds(case) {
        let error = told(backend.ip()).kind(kind, rest);
        all.push(
            Fixture::new(
                format!("error_request_{what}_{}", case.name()),
                "a backend's error about a client's packet comes from the frontend, about what the client sent",
                world(),
            )
            .step(untouched(to_client(&error, frontend), &world(), tuple)),
        );
    }
    all.push(
        Fixture::new(
            format!("error_request_router_{}", case.name()),
            "a router behind the interface speaks for itself; eight bytes suffice",
            world(),
        )
        .step(to_client(&told(case.host(99)).quoted(Some(8)), case.host(99))),
    );
    if case.v6 {
        let error = told("fe99::7".parse().expect("an address of one link"));
        all.push(
            Fixture::new(
                format!("error_request_link_{}", case.name()),
                "what comes from an address of one link alone goes on to no other (RFC 4291 2.5.6)",
                world(),
            )
            .step(Step::new(Entry::FromWorkload, ROUTED_IF, error.build()).drops(Reason::DropForgedSource)),
        );
    }
    all
}

/// UDP without a checksum is quoted without one.
fn no_checksum() -> Fixture {
    let case = Case::UDP[0];
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let mut error = Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    error.about = error.about.unsummed();
    let out = error.clone().about(case.backend(Place::Here), case.client()).ttl(63);
    Fixture::new(
        "error_no_checksum_udp4",
        "UDP without a checksum goes on without one, in a quote too",
        World::new().flow(case, tuple, Place::Here, None),
    )
    .step(Step::new(Entry::TcNode, NODE_IF, error.build()).redirects(
        Action::RedirectPeer,
        Reason::ErrorToBackend,
        ROUTED_IF,
        out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
    ))
}
