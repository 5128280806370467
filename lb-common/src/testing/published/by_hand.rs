//! Bytes that were worked out by hand.

use std::vec::Vec;

use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{Case, NODE_IF, Place, World};
use crate::verdict::Reason;

/// Bytes from text with blanks.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| pair.iter().collect::<std::string::String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).expect("hexadecimal"))
        .collect()
}

/// A datagram `hi` whose every byte, in and out, was worked out by hand, but for the outer source port (a hash).
pub(super) fn v4() -> Fixture {
    let case = Case::UDP[0];
    let inbound = bytes(
        "02000000010a 020000000401 0800
         45 00 001e 0000 4000 40 11 4e93 c6336407 c0000201
         9c41 1f90 000a ef62 6869",
    );
    Fixture::new(
        "published_remote_by_hand_udp4",
        "the tunnel's framing, byte for byte",
        World::new().serve(case, &[Place::Node2]),
    )
    .step(Step::new(Entry::XdpNode, NODE_IF, inbound).transmits(
        Reason::ForwardTunnel,
        bytes(
            "020000000302 02000000010a 0800
                 45 00 005e 0000 4000 40 11 b68b c0000201 c0000202
                 e600 12b5 004a 0000
                 07 40 0800 000005 00
                 ffb1 81 06 01 01 1f40 00000005 00000000 00000000 0000ffff 0a05000c
                 45 00 001e 0000 4000 3f 11 4f93 c6336407 c0000201
                 9c41 1f90 000a ef62 6869",
        ),
    ))
}

pub(super) fn v6() -> Fixture {
    let case = Case::UDP[1];
    let inbound = bytes(
        "02000000010a 020000000401 86dd
         6 0000000 000a 11 40 20010db8000c00000000000000000007 20010db8000000000000000000000001
         9c41 1f90 000a 8019 6869",
    );
    Fixture::new(
        "published_remote_by_hand_udp6",
        "the tunnel's framing, byte for byte",
        World::new().serve(case, &[Place::Node2]),
    )
    .step(Step::new(Entry::XdpNode, NODE_IF, inbound).transmits(
        Reason::ForwardTunnel,
        bytes(
            "020000000302 02000000010a 86dd
                 6 0000000 005e 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002
                 fef0 12b5 005e 0000
                 07 40 86dd 000005 00
                 ffb1 81 06 01 01 1f40 00000005 fd05000000000000 000000000000000c
                 6 0000000 000a 11 3f 20010db8000c00000000000000000007 20010db8000000000000000000000001
                 9c41 1f90 000a 8019 6869",
        ),
    ))
}
