//! Fragments: only the first one of a datagram has ports. It leaves them where the later ones find them, and all take the same way.
//!
//! A later fragment that comes before the first is not kept: where it can only be a service's it is dropped, else the kernel's
//! own stack gets it.

use crate::abi::{Fragment, FragmentKey, NETWORK_NODE, ticks};
use crate::tables::{Env, Tables};
use crate::verdict::Reason;
use crate::wire::Packet;
use crate::wire::parse::Headers;

/// As long as Linux waits for the rest of a datagram (`net.ipv4.ipfrag_time`).
const PATIENCE: u32 = ticks(30_000);

/// Notes the ports of a first fragment, or finds those of a later one; the network must be set. The reason says why a later
/// one goes no further.
#[inline(never)]
pub(super) fn resolve<P: Packet, T: Tables>(packet: &P, tables: &T, env: &Env, h: &mut Headers) -> Option<Reason> {
    let (id, fragmented) = identity(packet, h)?;
    if !fragmented {
        return None;
    }
    let key = FragmentKey {
        source: h.tuple.source,
        destination: h.tuple.destination,
        id,
        network_protocol: h.tuple.network_protocol(),
    };
    if !h.is_later::<P>() {
        let fragment = Fragment {
            source_port: h.tuple.source_port,
            destination_port: h.tuple.destination_port,
            seen: env.now,
        };
        tables.note_fragment(&key, &fragment);
        return None;
    }
    match tables.fragment(&key) {
        Some(first) if env.now.wrapping_sub(first.seen) as i32 <= PATIENCE as i32 => {
            h.tuple.source_port = first.source_port;
            h.tuple.destination_port = first.destination_port;
            None
        }
        _ if h.tuple.network != NETWORK_NODE && tables.is_vip(&h.tuple.destination, h.tuple.network) => {
            Some(Reason::DropFragment)
        }
        _ => Some(Reason::PassFragment),
    }
}

/// Identification of the datagram, and whether this is a fragment of it.
#[inline(always)]
fn identity<P: Packet>(packet: &P, h: &Headers) -> Option<(u32, bool)> {
    if !h.tuple.v6 {
        let head = packet.load::<4>(h.l3 + 4)?;
        let id = u16::from_be_bytes([head[0], head[1]]) as u32;
        return Some((id, u16::from_be_bytes([head[2], head[3]]) & 0x3fff != 0));
    }
    if h.l4 == h.l3 + 40 {
        return Some((0, false));
    }
    let head = packet.load::<8>(h.l3 + 40)?;
    Some((u32::from_be_bytes([head[4], head[5], head[6], head[7]]), true))
}
