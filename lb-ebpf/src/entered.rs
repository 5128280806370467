//! Programs of workload interfaces know the namespace that they run in: interface indexes repeat among namespaces, and before
//! 6.15 no helper tells one from the other. What is attached is a pair of programs for each namespace, with its number inside,
//! which write the number into the packet's control block and jump to the programs that do the work.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::abi::{JUMP_FROM_OVERLAY, JUMP_FROM_WORKLOAD, JUMP_TO_WORKLOAD, NAMESPACE_NODE};

use crate::{maps, verdict};

/// The agent puts the namespace's cookie here when it loads a pair; it stays 0 for the node's own.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
static NAMESPACE: u64 = 0;

#[inline(always)]
fn written(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the kernel passes a valid context.
    let [low, high, ..] = unsafe { (*skb).cb };
    u64::from(high) << 32 | u64::from(low)
}

/// What a program of a pair has written down.
#[inline(always)]
pub(crate) fn namespace(skb: *mut __sk_buff) -> Option<u64> {
    Some(written(skb))
}

/// As [`namespace`], of a program that runs in other namespaces than the node's alone: the compiler is to know it too.
#[inline(always)]
pub(crate) fn elsewhere(skb: *mut __sk_buff) -> Option<u64> {
    match written(skb) {
        NAMESPACE_NODE => None,
        namespace => Some(namespace),
    }
}

/// Of a program that runs in the node's own namespace alone.
#[inline(always)]
pub(crate) fn never(_: *mut __sk_buff) -> Option<u64> {
    Some(NAMESPACE_NODE)
}

/// Goes on in one program in the node's own namespace, in another one elsewhere.
#[inline(always)]
fn enter(ctx: &TcContext, node: u32, elsewhere: u32) -> i32 {
    // SAFETY: a constant of the object; volatile, because the agent has replaced it. The context is the kernel's.
    unsafe {
        let namespace = ptr::read_volatile(&raw const NAMESPACE);
        let program = if namespace == NAMESPACE_NODE { node } else { elsewhere };
        let skb: *mut __sk_buff = ctx.as_ptr().cast();
        (*skb).cb[0] = namespace as u32;
        (*skb).cb[1] = (namespace >> 32) as u32;
        maps::jumps.tail_call(ctx, program);
    }
    // Nobody is there: the packet goes its way.
    verdict::NEXT
}

/// Host side of a workload interface, tc ingress: on to `from_workload` or `from_overlay`.
#[classifier]
pub(crate) fn enter_from(ctx: TcContext) -> i32 {
    enter(&ctx, JUMP_FROM_WORKLOAD, JUMP_FROM_OVERLAY)
}

/// Host side of a workload interface, tc egress: on to `to_workload`.
#[classifier]
pub(crate) fn enter_to(ctx: TcContext) -> i32 {
    enter(&ctx, JUMP_TO_WORKLOAD, JUMP_TO_WORKLOAD)
}
