//! Packets of the node's own processes to the node's own addresses: all of them pass the loopback interface.

use super::{What, Work, deliver, find_published, masquerade, proceed, publishes, unbalanced};
use crate::abi::FLOW_FLAG_HOST;
use crate::answer::too_big;
use crate::tables::{Env, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::{Packet, parse};

/// A frame on its way into the loopback interface: tc egress there.
#[inline(always)]
pub fn egress<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    if !work.headers.balanced() {
        return unbalanced(&work.headers);
    }
    if !publishes(tables, &work.headers) {
        return Verdict::pass(Reason::PassNotService);
    }
    work.mask.on = 0;
    masquerade::put_on_tuple(tables, work, true);
    // What is left of them means nothing to a backend.
    if work.headers.tuple.source.is_loopback() {
        return Verdict::pass(Reason::PassNotService);
    }
    let found = find_published(tables, env, work);
    if found.is(What::Nothing) {
        return Verdict::pass(Reason::PassNotService);
    }
    let verdict = match oversized(packet, tables, work) {
        0 => proceed::<P, T, true>(packet, tables, env, work, found, None, FLOW_FLAG_HOST),
        mtu => {
            masquerade::forget(work);
            too_big(packet, &mut work.headers, mtu)
        }
    };
    from_loopback(packet, verdict)
}

/// The verdict as it can be carried out on the loopback interface.
#[inline(always)]
pub(super) fn from_loopback<P: Packet>(packet: &mut P, verdict: Verdict) -> Verdict {
    match verdict.action {
        Action::Transmit => deliver::to_host(packet, verdict.reason),
        // Into a pair's far end at once the kernel delivers only what comes in.
        Action::RedirectPeer => Verdict::redirect(Action::Redirect, verdict.reason, verdict.ifindex),
        _ => verdict,
    }
}

/// The loopback interface takes packets that no other one does: the MTU of the others if this is one of them, else 0.
#[inline(always)]
fn oversized<P: Packet, T: Tables>(packet: &P, tables: &T, work: &Work) -> u16 {
    match tables.settings() {
        Some(s) if packet.segment() == 0 && work.headers.ip_length > s.tunnel_mtu as usize => s.tunnel_mtu,
        _ => 0,
    }
}
