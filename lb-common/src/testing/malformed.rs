//! Headers that are truncated, contradict themselves, or name a sender that nobody is.

use std::collections::BTreeSet;
use std::format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::world::{Case, NODE_IF, ROUTER, World, mac};
use crate::verdict::Reason;

const L3: usize = 14;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(of).collect()
}

fn of(case: Case) -> Vec<Fixture> {
    let whole = case.opening().build();
    let l4 = L3 + if case.v6 { 40 } else { 20 };
    let set = |at: usize, value: &[u8]| {
        let mut frame = whole.clone();
        frame[at..at + value.len()].copy_from_slice(value);
        frame
    };
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("version".into(), set(L3, &[0x55])),
        ("one_short".into(), whole[..whole.len() - 1].to_vec()),
    ];
    for length in BTreeSet::from([14, 15, L3 + 11, L3 + 19, l4 - 1, l4, l4 + 1, l4 + 7]) {
        cases.push((format!("{length}_bytes"), whole[..length].to_vec()));
    }
    let senders: &[(&str, IpAddr)] = if case.v6 {
        &[
            ("group", IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xb))),
            ("mapped", IpAddr::V6(Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped())),
        ]
    } else {
        &[
            ("group", IpAddr::V4(Ipv4Addr::new(224, 0, 0, 5))),
            ("all", IpAddr::V4(Ipv4Addr::BROADCAST)),
            ("nobody", IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        ]
    };
    for (who, ip) in senders {
        let frame = case.first(SocketAddr::new(*ip, 40_001), case.published(1));
        cases.push((format!("from_{who}"), frame.macs(mac(NODE_IF), ROUTER).build()));
    }
    if case.v6 {
        cases.push(("payload_beyond".into(), set(L3 + 4, &[0xff, 0xff])));
        cases.push(("no_payload".into(), set(L3 + 4, &[0, 0])));
    } else {
        cases.push(("short_header".into(), set(L3, &[0x44])));
        cases.push(("length_beyond".into(), set(L3 + 2, &[0xff, 0xff])));
        cases.push(("length_below".into(), set(L3 + 2, &[0, 19])));
        cases.push(("length_header".into(), set(L3 + 2, &[0, 20])));
    }
    if case.tcp() {
        cases.push(("offset_below".into(), set(l4 + 12, &[0x40])));
        cases.push(("offset_beyond".into(), set(l4 + 12, &[0xf0])));
    } else {
        cases.push(("udp_below".into(), set(l4 + 4, &[0, 7])));
        cases.push(("udp_beyond".into(), set(l4 + 4, &[0xff, 0xff])));
    }
    let fixtures = cases.into_iter().map(|(what, frame)| {
        let on = |entry| Step::new(entry, NODE_IF, frame.clone()).passes(Reason::PassMalformed);
        Fixture::new(
            format!("malformed_{what}_{}", case.name()),
            "the kernel's stack decides what becomes of it",
            World::new(),
        )
        .step(on(Entry::XdpNode))
        .step(on(Entry::TcNode))
    });
    fixtures.collect()
}
