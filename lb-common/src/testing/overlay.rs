//! Networks that another driver carries (Swarm's overlays): backends behind a gateway bridge, services on every port,
//! interfaces of other namespaces.

use std::format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{ethernet, tunnel};
use super::world::{
    CLIENT_IF, Case, GATEWAY_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac, node_mac,
    reply_of, workload_mac,
};
use crate::abi::{Frontend, InterfaceKey, NETWORK_NODE};
use crate::verdict::{Action, Reason};

/// A namespace of another network.
const ELSEWHERE: u64 = 0x1_0000_0007;

/// Where the backend listens on the gateway bridge.
fn gateway(case: Case) -> SocketAddr {
    let ip: IpAddr = if case.v6 {
        Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 4).into()
    } else {
        Ipv4Addr::new(172, 18, 0, 4).into()
    };
    SocketAddr::new(ip, case.backend(Place::Here).port())
}

/// [`Place::Here`] is delivered to through the gateway bridge.
fn behind_gateway(case: Case) -> World {
    let mut world = World::new();
    let backend = world.tables.backends.get_mut(&case.backend_id(Place::Here));
    let backend = backend.expect("every place has a backend");
    backend.delivery = gateway(case).ip().into();
    backend.delivery_network = NETWORK_NODE;
    backend.ifindex = GATEWAY_IF;
    backend.mac = workload_mac(GATEWAY_IF);
    world
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(published(case));
        all.push(tunnelled(case));
        all.push(inside(case));
        all.extend(any_port(case));
        all.push(namespaces(case));
        all.extend(elsewhere(case));
    }
    all
}

fn published(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("gateway_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let back = case.tuple(gateway(case), case.client(), NETWORK_NODE);
    let delivered = case
        .opening()
        .to(gateway(case))
        .ttl(63)
        .macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    let answer = case
        .frame(gateway(case), case.client())
        .macs(mac(GATEWAY_IF), workload_mac(GATEWAY_IF));
    let answered = answer
        .clone()
        .from(case.published(1))
        .ttl(63)
        .macs(ROUTER, mac(NODE_IF));
    let stranger = SocketAddr::new(gateway(case).ip(), 9);
    vec![
        Fixture::new(
            name("published"),
            "a published port is delivered to the address on the bridge, and answered from there",
            behind_gateway(case),
        )
        .step(
            Step::new(Entry::TcNode, NODE_IF, case.opening().build())
                .redirects(
                    Action::RedirectPeer,
                    Reason::ForwardLocal,
                    GATEWAY_IF,
                    delivered.build(),
                )
                .then(move |tables| assert_eq!(tables.replies()[&back], reply_of(&tuple, false))),
        )
        .step(Step::new(Entry::FromWorkload, GATEWAY_IF, answer.build()).redirects(
            Action::Redirect,
            Reason::ReplyDirect,
            NODE_IF,
            answered.build(),
        )),
        Fixture::new(
            name("else"),
            "what else the workload says to the outside is none of ours",
            behind_gateway(case),
        )
        .step(
            Step::new(
                Entry::FromWorkload,
                GATEWAY_IF,
                case.frame(stranger, case.client()).build(),
            )
            .passes(Reason::PassNotService),
        ),
    ]
}

/// The entry node knows nothing of the bridge: it names the backend by its address in the network.
fn tunnelled(case: Case) -> Fixture {
    let inner = case.first(case.client(), case.published(2)).ttl(63);
    let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
    let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Here), &inner.packet());
    let kind = if case.v6 { 0x86dd } else { 0x0800 };
    let frame = ethernet(mac(NODE_IF), node_mac(2), kind, &packet);
    let delivered = case
        .first(case.client(), case.published(2))
        .to(gateway(case))
        .ttl(62)
        .macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    let step = || {
        Step::new(Entry::TcNode, NODE_IF, frame.clone()).redirects(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            GATEWAY_IF,
            delivered.build(),
        )
    };
    Fixture::new(
        format!("gateway_tunnel_{}", case.name()),
        "a tunnelled packet names the address in the network and is delivered to the one on the bridge",
        behind_gateway(case),
    )
    .step(step())
    .step(step())
}

/// The same backend behind a VIP keeps its address in the network.
fn inside(case: Case) -> Fixture {
    let sent = case
        .vip_opening()
        .to(case.backend(Place::Here))
        .macs(workload_mac(GATEWAY_IF), workload_mac(CLIENT_IF));
    Fixture::new(
        format!("gateway_vip_{}", case.name()),
        "a VIP leads to the address in the network",
        behind_gateway(case),
    )
    .step(
        Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build())
            .continues(Reason::ForwardNetwork, sent.build()),
    )
}

/// The VIP's service answers on every port; backends listen where the client knocks.
fn every_port(case: Case, place: Place) -> World {
    let mut world = World::new().serve(case, &[place]);
    let frontend = case.endpoint(case.vip().ip().into(), NETWORK, 0);
    let service = case.vip_service();
    world.tables.frontends.insert(frontend, Frontend { service, flags: 0 });
    let backend = world.tables.backends.get_mut(&case.backend_id(place));
    backend.expect("every place has a backend").port = 0;
    world
}

fn any_port(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("any_port_{what}_{}", case.name());
    let knock = SocketAddr::new(case.vip().ip(), 9_999);
    let target = |place| SocketAddr::new(case.backend(place).ip(), 9_999);
    let opening = case
        .first(case.inside(), knock)
        .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let answer = case
        .frame(target(Place::Node2), case.inside())
        .macs(workload_mac(CLIENT_IF), node_mac(2));
    let tuple = case.tuple(case.inside(), knock, NETWORK);
    let back = case.tuple(target(Place::Node2), case.inside(), NETWORK);
    let turned = case
        .first(case.inside(), knock)
        .from(SocketAddr::new(knock.ip(), case.inside().port()))
        .to(target(Place::Client))
        .macs(workload_mac(CLIENT_IF), mac(CLIENT_IF));
    vec![
        Fixture::new(
            name("vip"),
            "a port without a frontend of its own leads to the same port of a backend, and back",
            every_port(case, Place::Node2),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, opening.clone().build())
                .continues(Reason::ForwardNetwork, opening.clone().to(target(Place::Node2)).build())
                .then(move |tables| assert_eq!(tables.replies()[&back], reply_of(&tuple, false))),
        )
        .step(
            Step::new(Entry::ToWorkload, CLIENT_IF, answer.clone().build())
                .continues(Reason::ReplyVip, answer.from(knock).build()),
        ),
        Fixture::new(
            name("hairpin"),
            "also where the client is its own backend",
            every_port(case, Place::Client),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, opening.build()).transmits(Reason::Hairpin, turned.build())),
    ]
}

fn namespaces(case: Case) -> Fixture {
    let mut world = World::new();
    let interface = world.tables.interfaces[&InterfaceKey::node(CLIENT_IF)];
    let key = InterfaceKey::new(ELSEWHERE, ROUTED_IF);
    world.tables.interfaces.insert(key, interface);
    let sent = case.vip_opening().to(case.backend(Place::Node2)).build();
    let step =
        |namespace, ifindex| Step::new(Entry::FromWorkload, ifindex, case.vip_opening().build()).namespace(namespace);
    Fixture::new(
        format!("namespace_{}", case.name()),
        "an interface is known by its namespace and its index",
        world.serve(case, &[Place::Node2]),
    )
    .step(step(ELSEWHERE, ROUTED_IF).continues(Reason::ForwardNetwork, sent))
    .step(step(ELSEWHERE, CLIENT_IF).passes(Reason::PassInterface))
    .step(step(ELSEWHERE + 1, ROUTED_IF).passes(Reason::PassInterface))
}

/// What is attached in another namespace balances what stays inside the network, and nothing else.
fn elsewhere(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("elsewhere_{what}_{}", case.name());
    let world = |place| {
        let mut world = World::new();
        let interface = world.tables.interfaces[&InterfaceKey::node(CLIENT_IF)];
        let key = InterfaceKey::new(ELSEWHERE, CLIENT_IF);
        world.tables.interfaces.insert(key, interface);
        world.serve(case, &[place])
    };
    let step = |frame: Vec<u8>| Step::new(Entry::FromWorkload, CLIENT_IF, frame).namespace(ELSEWHERE);
    let asked = case.first(case.inside(), case.published(1)).build();
    let opening = case.opening().build();
    let answer = case.frame(case.backend(Place::Here), case.client()).build();
    let vip = case.vip();
    let turned = case
        .vip_opening()
        .from(SocketAddr::new(vip.ip(), case.inside().port()))
        .to(case.backend(Place::Client))
        .macs(workload_mac(CLIENT_IF), mac(CLIENT_IF));
    let back = case
        .frame(
            case.backend(Place::Client),
            SocketAddr::new(vip.ip(), case.inside().port()),
        )
        .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let returned = back
        .clone()
        .from(vip)
        .to(case.inside())
        .macs(workload_mac(CLIENT_IF), mac(CLIENT_IF));
    vec![
        Fixture::new(
            name("published"),
            "a node's published port is not balanced in another namespace: no route leads from there",
            world(Place::Node2),
        )
        .step(step(asked).passes(Reason::PassNotService))
        .step(step(answer.clone()).passes(Reason::PassNotService)),
        Fixture::new(
            name("reply"),
            "nor is the reply of a published flow sent on there",
            world(Place::Here),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, opening).sends(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF))
        .step(step(answer).passes(Reason::PassNotService)),
        Fixture::new(
            name("hairpin"),
            "a client that is its own backend speaks to itself inside the network",
            world(Place::Client),
        )
        .step(step(case.vip_opening().build()).transmits(Reason::Hairpin, turned.build()))
        .step(step(back.build()).transmits(Reason::Hairpin, returned.build())),
    ]
}
