//! ICMP errors about packets that were translated.

use std::format;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, icmp_error_at, tunnel};
use super::world::{
    CLIENT_IF, Case, GATEWAY_IF, LOOPBACK_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac,
    node_mac, workload_mac,
};
use crate::abi::{FLOW_FLAG_HOST, NETWORK_NODE};
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
        all.extend(through_the_tunnel(case));
        all.extend(too_long(case));
        all.extend(vips(case));
        all.extend(hairpins(case));
        all.extend(own_clients(case));
        all.extend(passed(case));
        all.extend(dropped(case));
    }
    for case in [Case::TCP[0], Case::UDP[0]] {
        all.extend(masked(case));
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
    all
}

fn through_the_tunnel(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_tunnel_{what}_{}", case.name());
    let own = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let entry = || World::new().flow(case, own, Place::Node2, None);
    let behind = || World::new().flow(case, foreign, Place::Here, Some(1));
    let here = case.backend(Place::Here);

    // About replies: from the entry node to the backend's.
    let told = Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    let inner = Error::new(case, router(case), case.published(2), case.client()).ttl(63);
    let finished = inner.clone().about(here, case.client()).ttl(62);
    let finished = finished.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    // About requests: from the backend's node to the entry node.
    let refused = Error::new(case, here.ip(), case.client(), here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let back = refused
        .clone()
        .source(case.published(2).ip())
        .about(case.client(), case.published(2))
        .ttl(63);
    let came = Error::new(case, case.published(1).ip(), case.client(), case.published(1)).ttl(63);
    let left = came.clone().ttl(62).macs(ROUTER, mac(NODE_IF));

    let forward = |frame: Vec<u8>| Step::new(Entry::TcNode, NODE_IF, frame);
    vec![
        Fixture::new(
            name("to_backend"),
            "an error about a reply goes on to the backend's node as it came",
            entry(),
        )
        .step(untouched(
            forward(told.build()).transmits(
                Reason::ErrorToBackend,
                told.clone().ttl(63).tunnelled(true, 2, FORWARD, Place::Node2),
            ),
            &entry(),
            own,
        )),
        Fixture::new(name("delivered"), "which finishes it", behind())
            .step(
                Step::new(Entry::XdpNode, NODE_IF, inner.tunnelled(false, 2, FORWARD, Place::Here))
                    .passes(Reason::PassToTc),
            )
            .step(untouched(
                forward(inner.tunnelled(false, 2, FORWARD, Place::Here)).redirects(
                    Action::RedirectPeer,
                    Reason::ErrorToBackend,
                    ROUTED_IF,
                    finished.build(),
                ),
                &behind(),
                foreign,
            )),
        Fixture::new(
            name("to_client"),
            "an error about a client's packet goes back to the entry node, translated",
            behind(),
        )
        .step(untouched(
            Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).redirects(
                Action::Redirect,
                Reason::ErrorToClient,
                NODE_IF,
                back.tunnelled(true, 2, REPLY, Place::Here),
            ),
            &behind(),
            foreign,
        )),
        Fixture::new(name("sent"), "which sends it on; XDP leaves it to tc", entry())
            .step(
                Step::new(Entry::XdpNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2))
                    .passes(Reason::PassIcmpError),
            )
            .step(untouched(
                forward(came.tunnelled(false, 2, REPLY, Place::Node2)).transmits(Reason::ErrorToClient, left.build()),
                &entry(),
                own,
            )),
        Fixture::new(
            name("foreign"),
            "who is not the flow's other node says nothing about it, and nobody about a flow that is not",
            behind(),
        )
        .step(forward(inner.tunnelled(false, 3, FORWARD, Place::Here)).drops(Reason::DropTunnelFrontend))
        .step(forward(inner.tunnelled(false, 2, FORWARD, Place::Switched)).drops(Reason::DropTunnelFrontend))
        .step(forward(came.tunnelled(false, 2, REPLY, Place::Node2)).drops(Reason::DropTunnelFrontend))
        .step(
            forward(inner.clone().quoted(Some(7)).tunnelled(false, 2, FORWARD, Place::Here))
                .drops(Reason::DropTunnelMalformed),
        ),
    ]
}

/// Routers quote more than the tunnel has room for.
fn too_long(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_tunnel_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = |mtu| {
        let mut world = World::new().flow(case, tuple, Place::Node2, None);
        world.tables.settings.tunnel_mtu = mtu;
        world
    };
    let (_, kind, rest) = kinds(case)[2];
    // The length of the quote, of which what follows it takes no part, is told in the header (RFC 4884).
    let length = if case.v6 { 0x0800_0000 } else { 0x0010_0000 };
    let whole = |rest| {
        let mut error = Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
        error.about = error.about.payload(&[0x5a; 1180]);
        error.kind(kind, rest)
    };
    let kept = if case.tcp() { 20 } else { 8 };
    let cut = whole(rest).quoted(Some(kept)).ttl(63);
    vec![
        Fixture::new(
            name("cut"),
            "what does not fit is cut to what every sender needs",
            world(1280),
        )
        .step(
            Step::new(Entry::TcNode, NODE_IF, whole(rest | length).build())
                .transmits(Reason::ErrorToBackend, cut.tunnelled(true, 2, FORWARD, Place::Node2)),
        ),
        Fixture::new(name("no_room"), "and what then does not fit is no path", world(100))
            .step(Step::new(Entry::TcNode, NODE_IF, whole(rest).build()).drops(Reason::DropTooBig)),
    ]
}

fn vips(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_vip_{what}_{}", case.name());
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let world = |place| World::new().flow(case, tuple, place, None);
    let here = case.backend(Place::Here);
    let refused = |source| Error::new(case, source, case.inside(), here);
    let told = Error::new(case, case.inside().ip(), case.vip(), case.inside());
    let told = told.macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let there = case.backend(Place::Node2);
    vec![
        Fixture::new(
            name("to_client"),
            "a backend's error comes from the VIP, where the client receives it",
            world(Place::Here),
        )
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, refused(here.ip()).build()).passes(Reason::PassNetwork))
        .step(untouched(
            Step::new(Entry::ToWorkload, CLIENT_IF, refused(here.ip()).build()).continues(
                Reason::ErrorToClient,
                refused(case.vip().ip()).about(case.inside(), case.vip()).build(),
            ),
            &world(Place::Here),
            tuple,
        )),
        Fixture::new(
            name("router"),
            "who carries the network speaks for himself",
            world(Place::Here),
        )
        .step({
            let (_, kind, rest) = kinds(case)[1];
            let error = refused(case.host(1)).kind(kind, rest).quoted(Some(8));
            Step::new(Entry::ToWorkload, CLIENT_IF, error.build()).continues(
                Reason::ErrorToClient,
                error.clone().about(case.inside(), case.vip()).build(),
            )
        }),
        Fixture::new(
            name("to_backend"),
            "a client's error about a reply goes to the backend's MAC, and quotes what the backend has sent",
            world(Place::Here),
        )
        .step(untouched(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).continues(
                Reason::ErrorToBackend,
                told.clone()
                    .about(here, case.inside())
                    .macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF))
                    .build(),
            ),
            &world(Place::Here),
            tuple,
        )),
        Fixture::new(
            name("to_remote"),
            "to one on another node too, by the network itself",
            world(Place::Node2),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build())
                .continues(Reason::ErrorToBackend, told.clone().about(there, case.inside()).build()),
        ),
        Fixture::new(
            name("unknown"),
            "about other packets of the network nobody has anything to say",
            World::new(),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).passes(Reason::PassIcmpError))
        .step(Step::new(Entry::ToWorkload, CLIENT_IF, refused(here.ip()).build()).passes(Reason::PassIcmpError)),
    ]
}

fn hairpins(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let world = || World::new().flow(case, tuple, Place::Client, None);
    let backend = case.backend(Place::Client);
    let as_vip: SocketAddr = (case.vip().ip(), case.inside().port()).into();
    let macs = (mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let own = case.inside().ip();
    let refused = Error::new(case, own, as_vip, backend).macs(macs.0, macs.1);
    let told = Error::new(case, own, case.vip(), case.inside()).macs(macs.0, macs.1);
    let turned = |error: &Error| error.clone().source(case.vip().ip()).macs(macs.1, macs.0);
    vec![
        Fixture::new(
            format!("error_hairpin_{}", case.name()),
            "a backend that was chosen itself hears its own errors, from either side",
            world(),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, refused.build()).transmits(
            Reason::ErrorToClient,
            turned(&refused).about(case.inside(), case.vip()).build(),
        ))
        .step(untouched(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build())
                .transmits(Reason::ErrorToBackend, turned(&told).about(backend, as_vip).build()),
            &world(),
            tuple,
        )),
    ]
}

/// Workloads and the node's own processes as clients of published ports.
fn own_clients(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_{what}_{}", case.name());
    let here = case.backend(Place::Here);
    let inside = case.tuple(case.inside(), case.published(1), NETWORK_NODE);
    let told = Error::new(case, case.inside().ip(), case.published(1), case.inside());
    let told = told.macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let mut all = vec![
        Fixture::new(
            name("workload"),
            "a workload's error about the reply of a published port reaches the backend",
            World::new().flow(case, inside, Place::Here, None),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).redirects(
                Action::RedirectPeer,
                Reason::ErrorToBackend,
                ROUTED_IF,
                told.clone()
                    .about(here, case.inside())
                    .ttl(63)
                    .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                    .build(),
            ),
        ),
    ];
    let own: SocketAddr = (case.node(1), 40_001).into();
    let mut talks = vec![("host", own, case.published(1), own)];
    if !case.v6 {
        let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mask = (Ipv4Addr::new(198, 18, 0, 0), 40_001).into();
        talks.push((
            "localhost",
            localhost(40_001),
            localhost(case.published(1).port()),
            mask,
        ));
    }
    for (what, client, frontend, known) in talks {
        let tuple = case.tuple(known, case.published(1), NETWORK_NODE);
        let world = |place| {
            World::new()
                .flow(case, tuple, place, None)
                .change(tuple, |flow| flow.flags = FLOW_FLAG_HOST)
        };
        let told = Error::new(case, client.ip(), frontend, client);
        let refused = Error::new(case, here.ip(), known, here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
        let masked = told.clone().source(known.ip());
        all.push(
            Fixture::new(
                name(what),
                "a process of the node and a backend hear each other's errors",
                world(Place::Here),
            )
            .step(
                Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).redirects(
                    Action::Redirect,
                    Reason::ErrorToBackend,
                    ROUTED_IF,
                    masked
                        .clone()
                        .about(here, known)
                        .ttl(63)
                        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                        .build(),
                ),
            )
            .step(
                Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).redirects(
                    Action::DeliverHost,
                    Reason::ErrorToClient,
                    LOOPBACK_IF,
                    refused
                        .clone()
                        .source(frontend.ip())
                        .about(client, frontend)
                        .ttl(63)
                        .macs([0; 6], [0; 6])
                        .build(),
                ),
            ),
        );
        let told_on = masked.about(case.published(1), known).ttl(63);
        let came = Error::new(case, case.published(1).ip(), known, case.published(1)).ttl(63);
        all.push(
            Fixture::new(
                name(&format!("{what}_remote")),
                "with one on another node too",
                world(Place::Node2),
            )
            .step(Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).redirects(
                Action::Redirect,
                Reason::ErrorToBackend,
                NODE_IF,
                told_on.tunnelled(true, 2, FORWARD, Place::Node2),
            ))
            .step(
                Step::new(Entry::TcNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2)).redirects(
                    Action::DeliverHost,
                    Reason::ErrorToClient,
                    LOOPBACK_IF,
                    came.source(frontend.ip()).about(client, frontend).ttl(62).build(),
                ),
            ),
        );
        if what == "host" {
            let pass = Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).passes(Reason::PassIcmpError);
            all.push(
                Fixture::new(
                    name("host_other"),
                    "the node says nothing about flows that are not its own",
                    World::new().flow(case, tuple, Place::Here, None),
                )
                .step(pass),
            );
        }
    }
    all
}

/// Clients behind the gateway bridge.
fn masked(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_gateway_{what}_{}", case.name());
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    let world = |place| World::new().flow(case, tuple, place, None);
    let here = case.backend(Place::Here);
    let told = Error::new(case, case.gateway().ip(), case.published(1), case.gateway());
    let told = told.macs(mac(GATEWAY_IF), workload_mac(GATEWAY_IF));
    let masked = told
        .clone()
        .source(case.masked().ip())
        .about(case.published(1), case.masked());
    let refused = Error::new(case, here.ip(), case.masked(), here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let came = Error::new(case, case.published(1).ip(), case.masked(), case.published(1)).ttl(63);
    let bare = |error: &Error| {
        let error = error.clone().source(case.published(1).ip());
        let error = error.about(case.gateway(), case.published(1));
        error.macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF))
    };
    let to_gateway =
        |step: Step, out: Error| step.redirects(Action::Redirect, Reason::ErrorToClient, GATEWAY_IF, out.build());
    vec![
        Fixture::new(
            name("here"),
            "a masked client and a backend hear each other's errors",
            world(Place::Here),
        )
        .step(
            Step::new(Entry::FromWorkload, GATEWAY_IF, told.build()).redirects(
                Action::RedirectPeer,
                Reason::ErrorToBackend,
                ROUTED_IF,
                masked
                    .clone()
                    .about(here, case.masked())
                    .ttl(63)
                    .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                    .build(),
            ),
        )
        .step(to_gateway(
            Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()),
            bare(&refused).ttl(63),
        )),
        Fixture::new(name("remote"), "with one on another node too", world(Place::Node2))
            .step(Step::new(Entry::FromWorkload, GATEWAY_IF, told.build()).redirects(
                Action::Redirect,
                Reason::ErrorToBackend,
                NODE_IF,
                masked.clone().ttl(63).tunnelled(true, 2, FORWARD, Place::Node2),
            ))
            .step(to_gateway(
                Step::new(Entry::TcNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2)),
                bare(&came).ttl(62),
            )),
        Fixture::new(
            name("forged"),
            "nobody else speaks about their flows",
            world(Place::Here),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, masked.build()).passes(Reason::PassIcmpError))
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, masked.build()).passes(Reason::PassIcmpError)),
    ]
}

/// Nothing is said about what is no live flow's, and nothing but an error in order says something.
fn passed(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let error = || Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    let header = if case.v6 { 40 } else { 20 };
    let quote = 14 + header + 8;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = error().build();
        change(&mut frame);
        frame
    };
    let mut all = vec![
        ("no_flow", World::new(), error().build(), Reason::PassIcmpError),
        (
            "expired",
            world().change(tuple, |flow| flow.timeout = 100),
            error().build(),
            Reason::PassIcmpError,
        ),
        (
            "reused",
            world().change(tuple, |flow| flow.generation -= 1),
            error().build(),
            Reason::PassIcmpError,
        ),
        ("short", world(), error().quoted(Some(7)).build(), Reason::PassIcmpError),
        (
            "elsewhere",
            world(),
            // To another address than that of the quoted packet's sender.
            changed(&|frame| frame[14 + header - 1] ^= 1),
            Reason::PassIcmpError,
        ),
        (
            "of_error",
            world(),
            changed(&|frame| frame[quote + if case.v6 { 6 } else { 9 }] = if case.v6 { 58 } else { 1 }),
            Reason::PassIcmpError,
        ),
        (
            "version",
            world(),
            changed(&|frame| frame[quote] ^= 0x10),
            Reason::PassIcmpError,
        ),
        (
            // A redirect; in ICMPv6 as well.
            "redirect",
            world(),
            error().kind(if case.v6 { (137, 0) } else { (5, 1) }, 0).build(),
            Reason::PassProtocol,
        ),
    ];
    if !case.v6 {
        all.push((
            "later_fragment",
            world(),
            changed(&|frame| frame[quote + 7] = 1),
            Reason::PassIcmpError,
        ));
    }
    let fixture = |(what, world, frame, reason)| {
        Fixture::new(
            format!("error_{what}_{}", case.name()),
            "only an error in order about a live flow is touched",
            world,
        )
        .step(Step::new(Entry::TcNode, NODE_IF, frame).passes(reason))
    };
    all.into_iter().map(fixture).collect()
}

fn dropped(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let told = Error::new(case, router(case), case.published(1), case.client());
    let here = case.backend(Place::Here);
    let refused = Error::new(case, here.ip(), case.client(), here);
    let own: SocketAddr = (case.node(1), 40_001).into();
    let forged = case.tuple(own, case.published(1), NETWORK_NODE);
    vec![
        Fixture::new(name("ttl"), "no hop left", world())
            .step(Step::new(Entry::TcNode, NODE_IF, told.ttl(1).build()).drops(Reason::DropTtl)),
        Fixture::new(
            name("no_route"),
            "no way to the client",
            world().unroutable(case.client().ip()),
        )
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).drops(Reason::DropNoRoute)),
        Fixture::new(
            name("forged_host"),
            "no way into this node's own sockets for who writes its address as his own",
            World::new().flow(case, forged, Place::Here, None),
        )
        .step(
            Step::new(
                Entry::FromWorkload,
                ROUTED_IF,
                Error::new(case, here.ip(), own, here).build(),
            )
            .drops(Reason::DropForgedSource),
        ),
    ]
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
