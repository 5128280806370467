//! Bits of ports, by element, as `marks` and `ports` have them; and which of them flows and replies need.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::abi::{NETWORK_NODE, port_mark};
use crate::tuple::Tuple;

/// By element.
pub type Bits = BTreeMap<u32, u64>;

pub(super) fn set(bits: &mut Bits, protocol: u8, port: u16) {
    let (element, bit) = port_mark(protocol, port);
    *bits.entry(element).or_default() |= bit;
}

pub(super) fn has(bits: &Bits, protocol: u8, port: u16) -> bool {
    let (element, bit) = port_mark(protocol, port);
    bits.get(&element).is_some_and(|bits| bits & bit != 0)
}

/// The port that is noted for a flow: inside networks alone.
pub(super) fn of_flow(tuple: &Tuple) -> Option<(u8, u16)> {
    (tuple.network != NETWORK_NODE).then_some((tuple.protocol, tuple.destination_port))
}

/// The port that is noted for a reply.
pub(super) const fn of_reply(tuple: &Tuple) -> (u8, u16) {
    (tuple.protocol, tuple.source_port)
}

/// Flows and replies whose port was not noted: nobody would look for them. `bits`: the element of `ports`.
pub fn unnoted<'a>(
    flows: impl Iterator<Item = &'a Tuple>,
    replies: impl Iterator<Item = &'a Tuple>,
    bits: impl Fn(u32) -> u64,
) -> Vec<Tuple> {
    let flows = flows.filter_map(|tuple| Some((tuple, of_flow(tuple)?)));
    let replies = replies.map(|tuple| (tuple, of_reply(tuple)));
    let lacks = |(protocol, port)| {
        let (element, bit) = port_mark(protocol, port);
        bits(element) & bit == 0
    };
    let all = flows.chain(replies).filter(|(_, port)| lacks(*port));
    all.map(|(tuple, _)| *tuple).collect()
}
