//! The agent's hand in the tables: it runs this program with the key of an entry that looks dead. Attached nowhere.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::abi::{COLLECT_OFFSET, COLLECT_OVERFLOW, COLLECT_REPLY, COLLECT_V6, Collect, NAMESPACE_NODE};
use lb_common::address::Address;
use lb_common::collect as rule;
use lb_common::tables::Table;
use lb_common::tuple::Tuple;
use lb_common::wire::Packet as _;

use crate::tables::Maps;
use crate::tc::TcPacket;

/// Words of a [`Collect`].
const WORDS: usize = size_of::<Collect>() / 4;

/// Returns 1 if it has removed the entry.
#[classifier]
pub(crate) fn collect(ctx: TcContext) -> i32 {
    i32::from(remove(ctx.skb.skb).unwrap_or(false))
}

#[inline(always)]
fn remove(skb: *mut __sk_buff) -> Option<bool> {
    let maps = Maps::<false>::new(skb.cast(), 0)?;
    let w = TcPacket::<false>::new(skb).load_words::<WORDS>(COLLECT_OFFSET)?;
    let (ports, network_protocol, unanswered, table) = (w[8], w[9], w[10], w[11]);
    // The tuple lies where the packet path has it: the stack has better uses.
    let work = maps.work();
    work.headers.tuple = Tuple {
        v6: table & COLLECT_V6 != 0,
        source: Address::from_words([w[0], w[1], w[2], w[3]]),
        destination: Address::from_words([w[4], w[5], w[6], w[7]]),
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        protocol: network_protocol as u8,
        network: network_protocol >> 8,
    };
    let tuple = &work.headers.tuple;
    let now = maps.env(NAMESPACE_NODE).now;
    let place = if table & COLLECT_OVERFLOW != 0 {
        Table::Overflow
    } else {
        Table::Main
    };
    Some(match (table & COLLECT_REPLY != 0, place) {
        (false, Table::Main) => rule::flow(&maps, tuple, Table::Main, now, unanswered),
        (false, Table::Overflow) => rule::flow(&maps, tuple, Table::Overflow, now, unanswered),
        (true, Table::Main) => rule::reply(&maps, tuple, Table::Main, now),
        (true, Table::Overflow) => rule::reply(&maps, tuple, Table::Overflow, now),
    })
}
