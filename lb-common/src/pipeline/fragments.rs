//! Fragments: only the first one of a datagram has ports. It leaves them where the later ones find them, and all take the same way.
//!
//! A later fragment that comes before the first is not kept: where it can only be a service's it is dropped, else the kernel's
//! own stack gets it, because it may be the node's own. Then a mark is left, so that the first one, which tells whose they
//! are, has them counted as lost where they were a service's ([`count_early`]). It goes on itself, as do those behind it: the
//! mark may be of a datagram that has had this number before.

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
    h.early = 0;
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
    let mut known = Fragment::default();
    if let Some(there) = tables.fragment(&key)
        && env.now.wrapping_sub(there.seen) as i32 <= PATIENCE as i32
    {
        known = *there;
    }
    let marked = known.destination_port == 0;
    if !h.is_later::<P>() {
        if marked {
            h.early = known.source_port;
        }
        let fragment = Fragment {
            source_port: h.tuple.source_port,
            destination_port: h.tuple.destination_port,
            seen: env.now,
        };
        tables.note_fragment(&key, &fragment);
        return None;
    }
    if !marked {
        h.tuple.source_port = known.source_port;
        h.tuple.destination_port = known.destination_port;
        return None;
    }
    if h.tuple.network != NETWORK_NODE && tables.is_vip(&h.tuple.destination, h.tuple.network) {
        return Some(Reason::DropFragment);
    }
    // A first one that is noted at this moment on another CPU may be lost by this: its datagram is lost with this fragment.
    let mark = Fragment {
        source_port: known.source_port.saturating_add(1),
        destination_port: 0,
        seen: env.now,
    };
    tables.note_fragment(&key, &mark);
    Some(Reason::PassFragment)
}

/// Counts what came before the first fragment of a service's packet, which this is, and was left to the stack.
#[inline(always)]
pub(super) fn count_early<P: Packet, T: Tables>(tables: &T, h: &Headers) {
    if P::FRAGMENTS && h.early != 0 {
        tables.count_lost(Reason::DropFragmentEarly, h.early);
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
