//! A client's packet on a way to another node that this CPU keeps ([`crate::way`]): what [`super::tunnel::send`] does,
//! without working out what is the same for most packets.

use super::Work;
use crate::abi::{Backend, TCP};
use crate::tables::{Env, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::way::KeptWay;
use crate::wire::parse::Headers;
use crate::wire::tunnel::{self, Direction, Label};
use crate::wire::{ETHERNET, Hook, Packet, mss, rewrite, tcp};

/// Nothing was done: the packet needs more than is kept.
pub(super) const NOT_KEPT: u32 = 0;
/// The kernel has refused to change the packet.
pub(super) const REFUSED: u32 = u32::MAX;

/// Encapsulates a packet to its backend's node, if the way there is kept.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    backend: &Backend,
) -> Option<Verdict> {
    if P::FRAGMENTS {
        return None;
    }
    verdict(env, follow(packet, tables, env, work, backend))
}

/// What becomes of a packet that leaves by `ifindex`, which may say [`NOT_KEPT`] or [`REFUSED`].
#[inline(always)]
pub(super) fn verdict(env: &Env, ifindex: u32) -> Option<Verdict> {
    match ifindex {
        NOT_KEPT => None,
        REFUSED => Some(Verdict::drop(Reason::DropRewrite)),
        ifindex if ifindex == env.ifindex => Some(Verdict::transmit(Reason::ForwardTunnel)),
        ifindex => Some(Verdict::redirect(Action::Redirect, Reason::ForwardTunnel, ifindex)),
    }
}

/// The interface that it leaves by. A function of its own, that returns a number: its callers have no room for it.
#[inline(never)]
fn follow<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work, backend: &Backend) -> u32 {
    let h = &mut work.headers;
    let Some(way) = find(packet, tables, env, h, backend.node) else {
        return NOT_KEPT;
    };
    if h.tuple.protocol == TCP && h.flags & tcp::SYN != 0 {
        let headers = h.l4 - h.l3 + 20;
        match mss::clamp_first(packet, h, way.room().saturating_sub(headers) as u16) {
            Some(true) => {}
            Some(false) => return NOT_KEPT,
            None => return REFUSED,
        }
    }
    tables.count_service(work.opening.chosen.service, 0, h.ip_length, false);
    let done = if way.is_v6() {
        wrap::<P, true>(packet, h, &way, backend)
    } else {
        wrap::<P, false>(packet, h, &way, backend)
    };
    match done {
        Some(()) => way.ifindex(),
        None => REFUSED,
    }
}

/// The way to `node`, if it is kept and the packet takes it as it is.
#[inline(always)]
pub(super) fn find<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    env: &Env,
    h: &Headers,
    node: u32,
) -> Option<T::Ref<KeptWay>> {
    let way = tables.kept_way(node)?;
    if !way.serves(&h.tuple, node, env.ifindex, env.now) || h.tagged || h.ttl <= 1 {
        return None;
    }
    if P::HOOK == Hook::Xdp && !way.is_for_xdp(env.ifindex) {
        return None;
    }
    // What a router has said is not kept.
    let told = matches!(tables.path_mtu(node), Some(path) if path.mtu != 0);
    if told || h.sent_length(packet.segment()) > way.room() {
        return None;
    }
    Some(way)
}

/// Encapsulates a packet; both headers are of one family.
#[inline(always)]
pub(super) fn wrap<P: Packet, const V6: bool>(
    packet: &mut P,
    h: &Headers,
    way: &KeptWay,
    backend: &Backend,
) -> Option<()> {
    let (length, ttl, source_port) = (packet.len() - ETHERNET, h.ttl, tunnel::source_port(&h.tuple));
    packet.insert(tunnel::overhead(V6), V6, true)?;
    rewrite::lower_ttl(packet, ETHERNET + tunnel::overhead(V6), ttl, V6)?;
    tunnel::write_headers::<P, V6>(packet, length, way, source_port, || Label {
        direction: Direction::Forward,
        port: backend.port,
        network: backend.network,
        backend: backend.address,
    })
}

/// Keeps the way that was worked out for a packet.
#[inline(never)]
pub(super) fn keep<T: Tables>(tables: &T, env: &Env, work: &Work, node: u32) {
    let way = &work.way;
    let overhead = tunnel::overhead(!way.outer.destination.is_v4());
    let widest = matches!(tables.settings(), Some(s) if way.room + overhead == s.tunnel_mtu as usize);
    if widest && KeptWay::takes(&way.outer, &way.route, work.headers.tuple.v6) {
        tables.keep_way(node, &KeptWay::new(node, env.ifindex, &way.outer, &way.route, way.room));
    }
}
