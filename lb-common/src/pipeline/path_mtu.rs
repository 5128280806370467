//! Routers between nodes say that a packet of the tunnel was too big for their next link: what the way to that node takes is
//! remembered, and from then on who sends more is answered as if the tunnel itself were so narrow.
//!
//! It is remembered by node, because a router quotes as little as eight bytes behind the outer header (RFC 792), which do
//! not say whose packet was inside. After [`EXPIRES`] the full width is tried again (RFC 1191 6.3, RFC 8201 4).

use super::is_local;
use crate::abi::{NODE_LOCAL, PathMtu, UDP};
use crate::tables::{Env, Tables};
use crate::tuple::Tuple;
use crate::verdict::{Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::{Packet, icmp};

/// Ten minutes, in ticks: as long as the kernel remembers (`ip_rt_mtu_expires`, net/ipv4/route.c).
pub const EXPIRES: u32 = (600_000_000_000_u64 >> crate::abi::TICK_SHIFT) as u32;
/// Less than this nobody is believed: of IPv4 the kernel's own least (`ip_rt_min_pmtu`), of IPv6 that of the protocol.
const LEAST: [u32; 2] = [552, 1280];

/// Whether an error is about a packet of ours in the tunnel, `quoted`; then what it says of the width is noted. What else it
/// says is counted: it goes to no client, who did not send that packet.
#[inline(always)]
pub(super) fn learn<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    env: &Env,
    h: &Headers,
    quoted: &Tuple,
) -> Option<Verdict> {
    let settings = tables.settings()?;
    if quoted.protocol != UDP || quoted.destination_port != settings.tunnel_port || !is_local(tables, &quoted.source) {
        return None;
    }
    let node = match tables.address(&quoted.destination) {
        Some(a) if a.flags & NODE_LOCAL == 0 => a.node,
        _ => return None,
    };
    let Some(mtu) = icmp::next_mtu(packet, h) else {
        return Some(Verdict::pass(Reason::PassTunnelError));
    };
    let mtu = mtu.max(LEAST[h.tuple.v6 as usize]);
    if mtu >= u32::from(settings.tunnel_mtu) {
        return None;
    }
    tables.note_path_mtu(node, PathMtu { mtu, since: env.now });
    Some(Verdict::pass(Reason::PassPathMtu))
}

/// What the tunnel to a node takes, outer headers included; `widest`: what this node's own links take.
#[inline(always)]
pub(super) fn width<T: Tables>(tables: &T, env: &Env, node: u32, widest: u16) -> usize {
    match tables.path_mtu(node) {
        Some(path) if path.mtu != 0 && path.mtu < u32::from(widest) && env.now.wrapping_sub(path.since) < EXPIRES => {
            path.mtu as usize
        }
        _ => widest as usize,
    }
}
