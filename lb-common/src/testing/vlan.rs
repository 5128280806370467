//! Frames with VLAN tags.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, ethernet, tunnel};
use super::world::{
    CLIENT_IF, Case, NETWORK, NODE_IF, Place, ROUTED_IF, TUNNEL_PORT, World, mac, node_mac, workload_mac,
};
use crate::verdict::{Action, Reason};

const TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(of).collect()
}

fn of(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("vlan_{what}_{}", case.name());
    let out = case.opening().to(case.backend(Place::Here)).ttl(63);
    let out = out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build();
    let delivered = |step: Step| step.redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, out.clone());
    let tagged = case.opening().tag(TAG, 7).build();
    let double = case.opening().tag(SERVICE_TAG, 7).tag(TAG, 8).build();
    let other: Frame = case.opening().to((case.published(1).ip(), 9).into()).tag(TAG, 7);
    let on = |entry, frame: &[u8]| Step::new(entry, NODE_IF, frame.to_vec());
    let remote = {
        let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
        let inner = case.first(case.client(), case.published(2)).ttl(64);
        let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Here), &inner.packet());
        let mut frame = ethernet(
            mac(NODE_IF),
            node_mac(2),
            if case.v6 { 0x86dd } else { 0x0800 },
            &packet,
        );
        frame.splice(12..12, [0x81, 0, 0, 7]);
        frame
    };
    let inner_out = case.first(case.client(), case.backend(Place::Here)).ttl(63);
    let inner_out = inner_out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build();
    vec![
        Fixture::new(
            name("xdp"),
            "XDP leaves a tagged frame of a service to tc, and writes nothing down",
            World::new(),
        )
        .step(
            on(Entry::XdpNode, &tagged)
                .passes(Reason::PassVlan)
                .then(|tables| assert!(tables.flows().is_empty())),
        ),
        Fixture::new(name("xdp_other"), "a tagged frame of no service passes", World::new())
            .step(on(Entry::XdpNode, &other.build()).passes(Reason::PassNotService)),
        Fixture::new(name("tc"), "tc takes the tag off and delivers", World::new())
            .step(delivered(on(Entry::TcNode, &tagged))),
        Fixture::new(name("tc_service_tag"), "a service provider's tag too", World::new()).step(delivered(on(
            Entry::TcNode,
            &case.opening().tag(SERVICE_TAG, 7).build(),
        ))),
        Fixture::new(
            name("tc_beside"),
            "and one that the card has taken out already",
            World::new(),
        )
        .step(delivered(on(Entry::TcNode, &case.opening().build()).side_tagged())),
        Fixture::new(name("double"), "two tags are not ours", World::new())
            .step(on(Entry::XdpNode, &double).passes(Reason::PassProtocol))
            .step(on(Entry::TcNode, &double).passes(Reason::PassProtocol)),
        Fixture::new(
            name("double_beside"),
            "nor one in the frame and one beside it",
            World::new(),
        )
        .step(on(Entry::TcNode, &tagged).side_tagged().passes(Reason::PassProtocol)),
        Fixture::new(name("workload"), "a workload has no business with tags", World::new()).step(
            Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().tag(TAG, 7).build()).passes(Reason::PassVlan),
        ),
        Fixture::new(name("tunnel"), "tagged tunnel packets are for tc", World::new())
            .step(on(Entry::XdpNode, &remote).passes(Reason::PassVlan))
            .step(on(Entry::TcNode, &remote).redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                inner_out,
            )),
    ]
}
