//! The agent's hand in the tables: it runs this program with the key of an entry that looks dead. Attached nowhere.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::abi::{COLLECT_OFFSET, NAMESPACE_NODE};
use lb_common::collect::{WORDS, run};
use lb_common::wire::Packet as _;

use crate::tables::Maps;
use crate::tc::TcPacket;

/// Returns 1 if it has removed the entry.
#[classifier]
pub(crate) fn collect(ctx: TcContext) -> i32 {
    i32::from(remove(ctx.skb.skb).unwrap_or(false))
}

#[inline(always)]
fn remove(skb: *mut __sk_buff) -> Option<bool> {
    let maps = Maps::<false>::collecting(skb.cast())?;
    let words = TcPacket::<false>::new(skb).load_words::<WORDS>(COLLECT_OFFSET)?;
    let tuple = &mut maps.work().headers.tuple;
    let now = maps.env(NAMESPACE_NODE).now;
    Some(run(&maps, &words, tuple, now))
}
