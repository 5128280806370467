//! The kernel half: program entry points. Every decision is `lb_common::pipeline`'s.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "the only way to a fetching atomic add on this target")]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![allow(non_upper_case_globals, reason = "a map's static has the map's name")]

mod bytes;
mod collect;
mod entered;
mod entry;
mod maps;
mod open;
mod route;
mod scratch;
mod tables;
mod tc;
mod verdict;
mod xdp;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::abi::{
    JUMP_FROM_ERRORS, JUMP_FROM_FRAGMENTS, JUMP_HOST_ERRORS, JUMP_NODE_ERRORS, JUMP_NODE_FRAGMENTS, JUMP_TO_ERRORS,
    JUMP_TO_FRAGMENTS, NAMESPACE_NODE,
};
use lb_common::pipeline::{errors, host, node, workload};
use lb_common::verdict::Action;
use lb_common::wire::Packet;

use crate::tables::{Maps, count};
use crate::tc::TcPacket;
use crate::xdp::XdpPacket;

/// Node interface, XDP.
#[xdp]
pub(crate) fn xdp_node(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let Some(maps) = Maps::<true>::new(ctx.ctx.cast(), ifindex) else {
        return XDP_PASS;
    };
    let mut packet = XdpPacket::new(ctx.ctx);
    let length = packet.len_now();
    let verdict = node::ingress(&mut packet, &maps, &maps.env(NAMESPACE_NODE), maps.work());
    count(verdict.reason, length);
    verdict::xdp(verdict)
}

macro_rules! classify {
    ($(#[$doc:meta])* $name:ident, $fragments:literal, $keep:literal, $pipeline:path, $namespace:path, $count_passed:literal $(, $is:ident => $jump:ident)*) => {
        $(#[$doc])*
        #[classifier]
        // The kernel calls a function around this one, whose frame would count too.
        #[inline(always)]
        pub(crate) fn $name(ctx: TcContext) -> i32 {
            let skb = ctx.skb.skb;
            // SAFETY: the kernel passes a valid context.
            let ifindex = unsafe { (*skb).ifindex };
            let Some(maps) = Maps::<$keep>::new(skb.cast(), ifindex) else { return verdict::NEXT };
            let mut packet = TcPacket::<$fragments>::new(skb);
            let length = packet.len();
            let Some(namespace) = $namespace(skb) else { return verdict::NEXT };
            let verdict = $pipeline(&mut packet, &maps, &maps.env(namespace), maps.work());
            $(if verdict.$is() {
                // SAFETY: the context is the program's own. It comes back only where nobody is there.
                unsafe { maps::jumps.tail_call(&ctx, $jump) };
            })*
            if $count_passed || verdict.action != Action::Pass {
                count(verdict.reason, length);
            }
            verdict::tc(verdict, ifindex)
        }
    };
}

classify! {
    /// Node interface, tc ingress.
    tc_node, false, true, node::ingress, entered::never, true,
    is_for_errors => JUMP_NODE_ERRORS, is_for_fragments => JUMP_NODE_FRAGMENTS
}
classify! {
    /// Host side of a workload interface in the node's own namespace, tc ingress.
    from_workload, false, true, workload::from, entered::never, true,
    is_for_errors => JUMP_FROM_ERRORS, is_for_fragments => JUMP_FROM_FRAGMENTS
}
classify! {
    /// Host side of a workload interface in another namespace, tc ingress. It keeps no routes.
    from_overlay, false, false, workload::from, entered::elsewhere, true,
    is_for_errors => JUMP_FROM_ERRORS, is_for_fragments => JUMP_FROM_FRAGMENTS
}
classify! {
    /// Host side of a workload interface, tc egress. What passes here was counted where it came in.
    to_workload, false, true, workload::to, entered::namespace, false,
    is_for_errors => JUMP_TO_ERRORS, is_for_fragments => JUMP_TO_FRAGMENTS
}
classify! {
    /// The loopback interface, tc egress. All that the node says to itself passes here: only what is a service's is counted. It
    /// is too wide for fragments.
    from_host, false, true, host::egress, entered::never, false,
    is_for_errors => JUMP_HOST_ERRORS
}

classify! {
    /// ICMP errors of `tc_node`.
    node_errors, false, false, errors::node, entered::never, true
}
classify! {
    /// ICMP errors of `from_workload` and `from_overlay`.
    from_errors, false, false, errors::from, entered::namespace, true
}
classify! {
    /// ICMP errors of `to_workload`.
    to_errors, false, false, errors::to, entered::namespace, false
}
classify! {
    /// ICMP errors of `from_host`.
    host_errors, false, false, errors::host, entered::never, false
}

classify! {
    /// Fragments of `tc_node`.
    node_fragments, true, false, node::ingress, entered::never, true
}
classify! {
    /// Fragments of `from_workload` and `from_overlay`.
    from_fragments, true, false, workload::from, entered::namespace, true
}
classify! {
    /// Fragments of `to_workload`.
    to_fragments, true, false, workload::to, entered::namespace, false
}

/// The kernel gives GPL-only helpers to programs that say so.
// SAFETY: nothing else has this name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
