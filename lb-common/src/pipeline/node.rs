//! Packets that arrive at the node from outside.

use super::{
    Found, What, Work, established, find_published, inside, leave_to_tc, proceed, publishes, tunnel, unbalanced,
    unresolved,
};
use crate::abi::UDP;
use crate::tables::{Env, Tables};
use crate::verdict::{Reason, Verdict};
use crate::wire::{Packet, parse};

/// A frame on a node interface, on XDP or tc ingress.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    if let Some(verdict) = established::send(packet, tables, env) {
        return verdict;
    }
    packet.look_again();
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    work.mask.on = 0;
    let h = &work.headers;
    if !h.balanced() {
        return unbalanced(h);
    }
    if h.tuple.protocol == UDP {
        let Some(settings) = tables.settings() else {
            return Verdict::pass(Reason::PassInterface);
        };
        if h.tuple.destination_port == settings.tunnel_port {
            return tunnel::receive(packet, tables, env, work);
        }
    }
    if let Some(verdict) = unresolved(packet, tables, env, &mut work.headers) {
        return verdict;
    }
    let h = &work.headers;
    let mut found = Found::NOTHING;
    let mut unfinished = None;
    if publishes(tables, h) {
        // Before anything is written down.
        unfinished = leave_to_tc(packet, h);
        found = find_published(tables, env, work);
    }
    if found.is(What::Nothing) {
        return inside::arrives(packet, tables, env, work);
    }
    match unfinished {
        Some(reason) => Verdict::pass(reason),
        None => proceed::<P, T, false>(packet, tables, env, work, found, None, 0),
    }
}
