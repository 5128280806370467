//! VIPs inside networks, and published ports as workloads use them.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::ethernet;
use super::world::{
    CLIENT_IF, Case, NETWORK, NODE_IF, NOW, Place, ROUTED_IF, STRANGER_IF, World, mac, reply_of, workload_mac,
};
use crate::abi::{FLOW_ESTABLISHED, FLOW_NEW, NETWORK_NODE};
use crate::verdict::{Action, Reason};

/// An interface that every namespace has, and no table.
const LOOPBACK: u32 = 1;

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(forward(case));
        all.extend(back(case));
        all.extend(apart(case));
        all.extend(collisions(case));
    }
    all
}

fn forward(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("vip_{what}_{}", case.name());
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let sent = |place| case.vip_opening().to(case.backend(place));
    let step = || Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build());
    let routed = SocketFrom(case);
    vec![
        Fixture::new(
            name("forward"),
            "the network carries it on to the backend's MAC, with its TTL",
            World::new(),
        )
        .step(
            step()
                .continues(
                    Reason::ForwardNetwork,
                    sent(Place::Here)
                        .macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF))
                        .build(),
                )
                .then(move |tables| {
                    assert_eq!(tables.flows()[&tuple].state, FLOW_NEW);
                    let back = case.tuple(case.backend(Place::Here), case.inside(), NETWORK);
                    assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
                }),
        ),
        Fixture::new(
            name("forward_remote"),
            "to a backend on another node by the network itself; the MAC is the network's business",
            World::new().serve(case, &[Place::Node2]),
        )
        .step(step().continues(Reason::ForwardNetwork, sent(Place::Node2).build())),
        Fixture::new(
            name("forward_routed"),
            "a routed interface keeps the router's MAC; this backend is one to whom the node has no route yet",
            World::new().serve(case, &[Place::Node3]),
        )
        .step(
            Step::new(Entry::FromWorkload, ROUTED_IF, routed.frame().build()).continues(
                Reason::ForwardNetwork,
                routed.frame().to(case.backend(Place::Node3)).build(),
            ),
        ),
        Fixture::new(
            name("published"),
            "a workload reaches a published port on its own node",
            World::new(),
        )
        .step({
            let frame = case
                .first(case.inside(), case.published(1))
                .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
            let out = frame.clone().to(case.backend(Place::Here)).ttl(63);
            Step::new(Entry::FromWorkload, CLIENT_IF, frame.build()).redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
            )
        }),
    ]
}

/// The routed backend as a client.
struct SocketFrom(Case);

impl SocketFrom {
    fn frame(&self) -> super::frame::Frame {
        let source = (self.0.backend(Place::Here).ip(), 40_001).into();
        let frame = self.0.first(source, self.0.vip());
        frame.macs(mac(ROUTED_IF), workload_mac(ROUTED_IF))
    }
}

fn back(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("vip_{what}_{}", case.name());
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let macs = (workload_mac(CLIENT_IF), workload_mac(ROUTED_IF));
    let reply = case
        .frame(case.backend(Place::Here), case.inside())
        .macs(macs.0, macs.1);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let arrives = || Step::new(Entry::ToWorkload, CLIENT_IF, reply.build());
    vec![
        Fixture::new(
            name("reply"),
            "the client hears the VIP; the flow is established",
            world().change(tuple, |flow| flow.state = FLOW_NEW),
        )
        .step(
            arrives()
                .continues(Reason::ReplyVip, reply.clone().from(case.vip()).build())
                .then(move |tables| {
                    let flow = tables.flows()[&tuple];
                    assert_eq!(flow.state, FLOW_ESTABLISHED);
                    assert!(flow.last_seen >= NOW);
                }),
        ),
        Fixture::new(
            name("reply_remote"),
            "of a backend on another node too",
            World::new().flow(case, tuple, Place::Node2, None),
        )
        .step({
            let reply = case
                .frame(case.backend(Place::Node2), case.inside())
                .macs(macs.0, macs.1);
            Step::new(Entry::ToWorkload, CLIENT_IF, reply.build())
                .continues(Reason::ReplyVip, reply.from(case.vip()).build())
        }),
        Fixture::new(
            name("reply_leaves"),
            "where the backend sends it, it stays as it is",
            world(),
        )
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, reply.build()).passes(Reason::PassNetwork)),
        Fixture::new(
            name("reply_unknown"),
            "what belongs to no flow is not translated",
            World::new(),
        )
        .step(arrives().passes(Reason::PassNotService)),
        Fixture::new(
            name("reply_published"),
            "nor the reply of a published port, which is translated where it leaves",
            World::new().flow(
                case,
                case.tuple(case.inside(), case.published(1), NETWORK_NODE),
                Place::Here,
                None,
            ),
        )
        .step(arrives().passes(Reason::PassNotService)),
        Fixture::new(
            name("reply_expired"),
            "nor what belongs to a flow past its time",
            world().change(tuple, |flow| flow.timeout = 100),
        )
        .step(arrives().passes(Reason::PassNotService)),
    ]
}

fn apart(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("vip_{what}_{}", case.name());
    let stranger = case
        .first(case.stranger(), case.vip())
        .macs(mac(STRANGER_IF), workload_mac(STRANGER_IF));
    let unknown = Step::new(Entry::FromWorkload, LOOPBACK, case.vip_opening().build());
    let outside = case
        .first(case.client(), case.vip())
        .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let arp = ethernet(mac(NODE_IF), workload_mac(CLIENT_IF), 0x88cc, &[0; 46]);
    vec![
        Fixture::new(
            name("isolation"),
            "the VIP of one network is nothing in another",
            World::new(),
        )
        .step(Step::new(Entry::FromWorkload, STRANGER_IF, stranger.build()).passes(Reason::PassNotService)),
        Fixture::new(name("from_outside"), "nor on the node's own interfaces", World::new())
            .step(Step::new(Entry::TcNode, NODE_IF, outside.build()).passes(Reason::PassNotService)),
        Fixture::new(
            name("interface"),
            "an interface that is not in the tables is left alone",
            World::new(),
        )
        .step(unknown.passes(Reason::PassInterface))
        .step(Step::new(Entry::ToWorkload, LOOPBACK, case.vip_opening().build()).passes(Reason::PassInterface))
        .step(Step::new(Entry::FromWorkload, NODE_IF, case.vip_opening().build()).passes(Reason::PassInterface)),
        Fixture::new(name("protocol"), "what is not IP passes", World::new())
            .step(Step::new(Entry::FromWorkload, CLIENT_IF, arp.clone()).passes(Reason::PassProtocol))
            .step(Step::new(Entry::ToWorkload, CLIENT_IF, arp).passes(Reason::PassProtocol)),
    ]
}

fn collisions(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("vip_{what}_{}", case.name());
    let published = case.tuple(case.inside(), case.published(1), NETWORK_NODE);
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let taken = || World::new().flow(case, published, Place::Here, None);
    let step = || Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build());
    let translated = case
        .frame(case.inside(), case.vip())
        .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let port = (case.inside().ip(), 51_234).into();
    // The port that an earlier collision gave to the flow.
    let moved = || {
        let world = World::new().flow(case, tuple, Place::Here, None);
        let world = world.change(tuple, |flow| flow.source_port = 51_234);
        let back = case.tuple(case.backend(Place::Here), port, NETWORK);
        world.tables.put_reply(back, reply_of(&tuple, false));
        world
    };
    let sent = case.vip_opening().to(case.backend(Place::Here));
    let sent = sent.macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF)).build();
    vec![
        Fixture::new(
            name("collision"),
            "two frontends of one client at one backend: the second flow gets another source port",
            taken(),
        )
        .step(
            step()
                .sends(Action::Continue, Reason::ForwardNetwork, 0)
                .then(move |tables| {
                    let flow = tables.flows()[&tuple];
                    assert_ne!(flow.source_port, tuple.source_port);
                    assert!(flow.source_port >= 1024);
                    let port = (case.inside().ip(), flow.source_port).into();
                    let back = case.tuple(case.backend(Place::Here), port, NETWORK);
                    assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
                    let first = case.tuple(case.backend(Place::Here), case.inside(), NETWORK);
                    assert_eq!(
                        tables.replies()[&first],
                        reply_of(&published, false),
                        "the first keeps its own"
                    );
                }),
        ),
        Fixture::new(name("collision_forward"), "its packets go out with that port", moved()).step(
            Step::new(Entry::FromWorkload, CLIENT_IF, translated.build()).continues(
                Reason::ForwardNetwork,
                translated
                    .clone()
                    .from(port)
                    .to(case.backend(Place::Here))
                    .macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF))
                    .build(),
            ),
        ),
        Fixture::new(name("collision_reply"), "and come back with the client's own", moved()).step({
            let reply = case.frame(case.backend(Place::Here), port);
            let out = reply.clone().from(case.vip()).to(case.inside());
            Step::new(Entry::ToWorkload, CLIENT_IF, reply.build()).continues(Reason::ReplyVip, out.build())
        }),
        Fixture::new(
            name("collision_ended"),
            "a flow past its time is in nobody's way",
            taken().change(published, |flow| flow.timeout = 100),
        )
        .step(step().continues(Reason::ForwardNetwork, sent).then(move |tables| {
            let back = case.tuple(case.backend(Place::Here), case.inside(), NETWORK);
            assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
        })),
    ]
}
