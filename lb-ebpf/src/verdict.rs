//! From [`Verdict`] to what the kernel wants to hear.

use core::ptr;

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use lb_common::verdict::{Action, Verdict};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` of clsact: the next program, then the stack.
pub(crate) const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

#[inline(always)]
pub(crate) fn xdp(verdict: Verdict) -> u32 {
    match verdict.action {
        Action::Pass | Action::Continue => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit => XDP_TX,
        // SAFETY: no pointers.
        Action::Redirect => unsafe { bpf_redirect(verdict.ifindex, 0) as u32 },
        // The pipeline gives these to tc alone.
        Action::RedirectNeighbour | Action::RedirectPeer | Action::DeliverHost => XDP_ABORTED,
    }
}

#[inline(always)]
pub(crate) fn tc(verdict: Verdict, ifindex: u32) -> i32 {
    // SAFETY: no pointers but a null that the helper allows.
    unsafe {
        match verdict.action {
            Action::Pass | Action::Continue => NEXT,
            Action::Drop => SHOT,
            Action::Transmit => bpf_redirect(ifindex, 0) as i32,
            Action::Redirect => bpf_redirect(verdict.ifindex, 0) as i32,
            Action::RedirectNeighbour => bpf_redirect_neigh(verdict.ifindex, ptr::null_mut(), 0, 0) as i32,
            Action::RedirectPeer => bpf_redirect_peer(verdict.ifindex, 0) as i32,
            Action::DeliverHost => bpf_redirect(verdict.ifindex, BPF_F_INGRESS as u64) as i32,
        }
    }
}
