//! The kernel half: program entry points. Every decision is `lb_common::pipeline`'s.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "the only way to a fetching atomic add on this target")]
#![feature(core_intrinsics)]
#![allow(non_upper_case_globals, reason = "a map's static has the map's name")]

mod bytes;
mod entered;
mod maps;
mod tables;
mod tc;
mod verdict;
mod xdp;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::abi::{JUMP_FROM_ERRORS, JUMP_HOST_ERRORS, JUMP_NODE_ERRORS, JUMP_TO_ERRORS, NAMESPACE_NODE};
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
    let Some(maps) = Maps::new(ctx.ctx.cast(), ifindex) else {
        return XDP_PASS;
    };
    let mut packet = XdpPacket::new(ctx.ctx);
    let length = packet.len();
    let verdict = node::ingress(&mut packet, &maps, &maps.env(NAMESPACE_NODE), maps.work());
    count(verdict.reason, length);
    verdict::xdp(verdict)
}

macro_rules! classify {
    ($(#[$doc:meta])* $name:ident, $pipeline:path, $namespace:path, $count_passed:literal, $errors:expr) => {
        $(#[$doc])*
        #[classifier]
        pub(crate) fn $name(ctx: TcContext) -> i32 {
            let skb = ctx.skb.skb;
            // SAFETY: the kernel passes a valid context.
            let ifindex = unsafe { (*skb).ifindex };
            let Some(maps) = Maps::new(skb.cast(), ifindex) else { return verdict::NEXT };
            let mut packet = TcPacket::new(skb);
            let length = packet.len();
            let verdict = $pipeline(&mut packet, &maps, &maps.env($namespace(skb)), maps.work());
            if let (true, Some(errors)) = (verdict.is_for_errors(), $errors) {
                // SAFETY: the context is the program's own. It comes back only where nobody is there.
                unsafe { maps::jumps.tail_call(&ctx, errors) };
            }
            if $count_passed || verdict.action != Action::Pass {
                count(verdict.reason, length);
            }
            verdict::tc(verdict, ifindex)
        }
    };
}

classify! {
    /// Node interface, tc ingress.
    tc_node, node::ingress, entered::never, true, Some(JUMP_NODE_ERRORS)
}
classify! {
    /// Host side of a workload interface, tc ingress.
    from_workload, workload::from, entered::namespace, true, Some(JUMP_FROM_ERRORS)
}
classify! {
    /// Host side of a workload interface, tc egress. What passes here was counted where it came in.
    to_workload, workload::to, entered::namespace, false, Some(JUMP_TO_ERRORS)
}
classify! {
    /// The loopback interface, tc egress. All that the node says to itself passes here: only what is a service's is counted.
    from_host, host::egress, entered::never, false, Some(JUMP_HOST_ERRORS)
}

classify! {
    /// ICMP errors of `tc_node`.
    node_errors, errors::node, entered::never, true, None::<u32>
}
classify! {
    /// ICMP errors of `from_workload`.
    from_errors, errors::from, entered::namespace, true, None::<u32>
}
classify! {
    /// ICMP errors of `to_workload`.
    to_errors, errors::to, entered::namespace, false, None::<u32>
}
classify! {
    /// ICMP errors of `from_host`.
    host_errors, errors::host, entered::never, false, None::<u32>
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
