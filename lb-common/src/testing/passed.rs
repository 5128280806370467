//! What is not the balancer's business: passed as it came, byte for byte.

use std::format;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{ethernet, icmp, ip};
use super::world::{Case, NODE_IF, ROUTER, World, mac};
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        let kind = if case.v6 { 0x86dd } else { 0x0800 };
        let (client, node) = (case.client().ip(), case.published(1).ip());
        let raw = |packet: &[u8]| ethernet(mac(NODE_IF), ROUTER, kind, packet);
        let ping = icmp(client, node, 64, &[if case.v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1]);
        let elsewhere = (case.node(200), case.published(1).port()).into();
        let unpublished = (case.published(1).ip(), 9).into();
        let options: &[u8] = if case.v6 { &[0, 1, 4, 0, 0, 0, 0] } else { &[1, 1, 1, 0] };
        for (what, why, frame, reason) in [
            (
                "port",
                "a port that nobody publishes",
                case.opening().to(unpublished).build(),
                Reason::PassNotService,
            ),
            (
                "address",
                "a published port at an address that is not this node's",
                case.opening().to(elsewhere).build(),
                Reason::PassNotService,
            ),
            (
                "other_node",
                "a published port of another node",
                case.opening().to(case.published(2)).build(),
                Reason::PassNotService,
            ),
            (
                "options",
                "IP options and extension headers go up the stack",
                case.opening().options(options).build(),
                Reason::PassOptions,
            ),
            (
                "later_fragment",
                "a later fragment, whose first bytes are no ports",
                case.opening().fragment(0x0010).build(),
                Reason::PassFragment,
            ),
            ("echo", "a ping to the node", raw(&ping), Reason::PassProtocol),
            (
                "protocol",
                "another protocol above IP",
                raw(&ip(client, node, 50, 64, &[0x55; 64])),
                Reason::PassProtocol,
            ),
            (
                "arp",
                "ARP on a node interface",
                ethernet([0xff; 6], ROUTER, 0x0806, &[0; 46]),
                Reason::PassProtocol,
            ),
            (
                "lldp",
                "what is not IP",
                ethernet(mac(NODE_IF), ROUTER, 0x88cc, &[7; 46]),
                Reason::PassProtocol,
            ),
        ] {
            let name = format!("passed_{what}_{}", case.name());
            let on = |entry| Step::new(entry, NODE_IF, frame.clone()).passes(reason);
            let nothing = |tables: &super::tables::MemoryTables| {
                assert!(tables.flows().is_empty() && tables.replies().is_empty());
            };
            all.push(
                Fixture::new(name, why, World::new())
                    .step(on(Entry::XdpNode).then(nothing))
                    .step(on(Entry::TcNode).then(nothing)),
            );
        }
    }
    all
}
