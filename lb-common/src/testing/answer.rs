//! Packets that are turned into their own answers.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::drain::reset;
use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, icmp, icmp_error};
use super::world::{CLIENT_IF, Case, NODE_IF, STRANGER_IF, World, mac, workload_mac};
use crate::abi::BACKEND_GONE;
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<Fixture> = Case::ALL.into_iter().flat_map(refusals).collect();
    all.extend(arp());
    all.extend(neighbours());
    all.extend(Case::UDP.into_iter().flat_map(echo));
    all
}

fn kind(case: Case) -> u16 {
    if case.v6 { 0x86dd } else { 0x0800 }
}

/// What a refused first packet is answered with.
fn refusal(case: Case, frame: &Frame, (from, to): (SocketAddr, SocketAddr), macs: (Mac, Mac)) -> Vec<u8> {
    if case.tcp() {
        // The SYN's sequence number plus one is acknowledged (RFC 9293 3.5.2).
        let refused = reset(frame.clone(), (from, to));
        return refused.flags(0x14).numbers(0, 0x0102_0305).build();
    }
    let packet = frame.packet();
    let quote = &packet[..if case.v6 { 48 } else { 28 }];
    let code = if case.v6 { (1, 4) } else { (3, 3) };
    let error = icmp_error(from.ip(), to.ip(), code, 0, quote);
    ethernet(macs.0, macs.1, kind(case), &error)
}

fn refusals(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("answer_{what}_{}", case.name());
    let none = || World::new().serve(case, &[]);
    let (no_backend, no_port) = if case.tcp() {
        (Reason::ResetNoBackend, Reason::ResetNoPort)
    } else {
        (Reason::UnreachableNoBackend, Reason::UnreachableNoPort)
    };
    let published = case.opening();
    let outside = (super::world::ROUTER, mac(NODE_IF));
    let answer = refusal(case, &published, (case.published(1), case.client()), outside);
    let vip = case.vip_opening();
    let inside = (workload_mac(CLIENT_IF), mac(CLIENT_IF));
    let vip_answer = refusal(case, &vip, (case.vip(), case.inside()), inside);
    let closed: SocketAddr = (case.vip().ip(), 81).into();
    let port = case.vip_opening().to(closed);
    let port_answer = refusal(case, &port, (closed, case.inside()), inside);
    let tagged = case.opening().tag(0x8100, 7);
    vec![
        Fixture::new(
            name("no_backend_xdp"),
            "a service without a backend refuses at once, on XDP",
            none(),
        )
        .step(Step::new(Entry::XdpNode, NODE_IF, published.build()).transmits(no_backend, answer.clone())),
        Fixture::new(name("no_backend_tc"), "and on tc", none())
            .step(Step::new(Entry::TcNode, NODE_IF, published.build()).transmits(no_backend, answer.clone())),
        Fixture::new(
            name("no_backend_padded"),
            "bytes behind the packet are not part of the answer",
            none(),
        )
        .step(
            Step::new(Entry::TcNode, NODE_IF, published.clone().padding(9).build())
                .transmits(no_backend, answer.clone()),
        ),
        Fixture::new(name("no_backend_tagged"), "a tag does not survive", none())
            .step(Step::new(Entry::TcNode, NODE_IF, tagged.build()).transmits(no_backend, answer)),
        Fixture::new(name("no_backend_vip"), "a VIP refuses in the same way", none())
            .step(Step::new(Entry::FromWorkload, CLIENT_IF, vip.build()).transmits(no_backend, vip_answer)),
        Fixture::new(name("all_gone"), "slots that lead to nobody are no backend", {
            World::new().backend_state(case, super::world::Place::Here, BACKEND_GONE)
        })
        .step({
            let outside = (super::world::ROUTER, mac(NODE_IF));
            let answer = refusal(case, &published, (case.published(1), case.client()), outside);
            Step::new(Entry::TcNode, NODE_IF, published.build()).transmits(no_backend, answer)
        }),
        Fixture::new(
            name("no_port"),
            "a port that the VIP does not serve is refused",
            World::new(),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, port.build()).transmits(no_port, port_answer)),
    ]
}

/// ARP packet: operation, sender, target.
fn arp_packet(operation: u8, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender.0, &sender.1, &target.0, &target.1].concat()
}

fn arp() -> Vec<Fixture> {
    let asker = workload_mac(CLIENT_IF);
    let ask = |target: [u8; 4]| {
        let request = arp_packet(1, (asker, [10, 5, 0, 20]), ([0; 6], target));
        ethernet([0xff; 6], asker, 0x0806, &request)
    };
    let own = mac(CLIENT_IF);
    let answer = ethernet(
        asker,
        own,
        0x0806,
        &arp_packet(2, (own, [10, 5, 0, 2]), (asker, [10, 5, 0, 20])),
    );
    let said = ethernet(
        [0xff; 6],
        asker,
        0x0806,
        &arp_packet(2, (asker, [10, 5, 0, 20]), ([0; 6], [10, 5, 0, 2])),
    );
    let on = |ifindex, frame: &[u8]| Step::new(Entry::FromWorkload, ifindex, frame.to_vec());
    vec![
        Fixture::new(
            "answer_arp",
            "a request for a VIP is answered with the interface's MAC",
            World::new(),
        )
        .step(on(CLIENT_IF, &ask([10, 5, 0, 2])).transmits(Reason::AnswerArp, answer)),
        Fixture::new(
            "answer_arp_other",
            "other addresses answer for themselves",
            World::new(),
        )
        .step(on(CLIENT_IF, &ask([10, 5, 0, 11])).passes(Reason::PassProtocol)),
        Fixture::new(
            "answer_arp_isolation",
            "a VIP of another network is nobody here",
            World::new(),
        )
        .step(on(STRANGER_IF, &ask([10, 5, 0, 2])).passes(Reason::PassProtocol)),
        Fixture::new("answer_arp_reply", "a reply is not answered", World::new())
            .step(on(CLIENT_IF, &said).passes(Reason::PassProtocol)),
        Fixture::new("answer_arp_short", "a truncated request is left alone", World::new())
            .step(on(CLIENT_IF, &ask([10, 5, 0, 2])[..40]).passes(Reason::PassMalformed)),
    ]
}

fn neighbours() -> Vec<Fixture> {
    let case = Case::UDP[1];
    let asker = workload_mac(CLIENT_IF);
    let own = mac(CLIENT_IF);
    let option = |kind: u8, mac: Mac| [&[kind, 1][..], &mac].concat();
    let octets = |ip: std::net::IpAddr| crate::address::Address::from(ip).octets();
    let ask = |target: std::net::IpAddr, ttl: u8, option: &[u8]| {
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &octets(target), option].concat();
        ethernet(
            [0x33, 0x33, 0xff, 0, 0, 2],
            asker,
            0x86dd,
            &icmp(case.inside().ip(), solicited(), ttl, &message),
        )
    };
    let vip = case.vip().ip();
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &octets(vip), &option(2, own)].concat();
    let answer = ethernet(asker, own, 0x86dd, &icmp(vip, case.inside().ip(), 255, &message));
    let on = |ifindex, frame: Vec<u8>| Step::new(Entry::FromWorkload, ifindex, frame);
    let whole = option(1, asker);
    vec![
        Fixture::new(
            "answer_neighbour",
            "a solicitation for a VIP is answered with the interface's MAC",
            World::new(),
        )
        .step(on(CLIENT_IF, ask(vip, 255, &whole)).transmits(Reason::AnswerArp, answer)),
        Fixture::new(
            "answer_neighbour_other",
            "other addresses answer for themselves",
            World::new(),
        )
        .step(on(CLIENT_IF, ask(case.host(11), 255, &whole)).passes(Reason::PassProtocol)),
        Fixture::new(
            "answer_neighbour_isolation",
            "a VIP of another network is nobody here",
            World::new(),
        )
        .step(on(STRANGER_IF, ask(vip, 255, &whole)).passes(Reason::PassProtocol)),
        Fixture::new(
            "answer_neighbour_far",
            "a solicitation that was routed is a forgery",
            World::new(),
        )
        .step(on(CLIENT_IF, ask(vip, 254, &whole)).passes(Reason::PassProtocol)),
        Fixture::new(
            "answer_neighbour_probe",
            "duplicate address detection is not answered",
            World::new(),
        )
        .step(on(CLIENT_IF, ask(vip, 255, &[])).passes(Reason::PassProtocol)),
    ]
}

/// The solicited-node multicast address of the VIP.
fn solicited() -> std::net::IpAddr {
    std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2).into()
}

fn echo(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("answer_echo_{what}{}", if case.v6 { "6" } else { "4" });
    let macs = (mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let (request, reply) = if case.v6 { (128, 129) } else { (8, 0) };
    let message = |kind: u8| [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], b"how are you?!"].concat();
    let ask = |to, code| {
        let packet = icmp(case.inside().ip(), to, 61, &message(code));
        ethernet(macs.0, macs.1, kind(case), &packet)
    };
    let answer = icmp(case.vip().ip(), case.inside().ip(), 61, &message(reply));
    let on = |ifindex, frame: Vec<u8>| Step::new(Entry::FromWorkload, ifindex, frame);
    vec![
        Fixture::new(name("v"), "a VIP answers echo requests", World::new()).step(
            on(CLIENT_IF, ask(case.vip().ip(), request))
                .transmits(Reason::AnswerEcho, ethernet(macs.1, macs.0, kind(case), &answer)),
        ),
        Fixture::new(name("other_v"), "other addresses answer for themselves", World::new())
            .step(on(CLIENT_IF, ask(case.host(11), request)).passes(Reason::PassProtocol)),
        Fixture::new(name("reply_v"), "a reply is not answered", World::new())
            .step(on(CLIENT_IF, ask(case.vip().ip(), reply)).passes(Reason::PassProtocol)),
        Fixture::new(name("isolation_v"), "not to another network", World::new())
            .step(on(STRANGER_IF, ask(case.vip().ip(), request)).passes(Reason::PassProtocol)),
    ]
}
