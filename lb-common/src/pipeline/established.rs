//! Most of what comes from outside: a client's packet of a flow that goes on. In one function, which keeps what it knows in
//! registers, it does what the rest of the pipeline does for such a packet; whatever is special about a packet, it leaves to
//! the rest as it was. To other nodes they go on both hooks, to backends of this one on tc.

use super::kept::{self, NOT_KEPT, REFUSED};
use super::{inside, masquerade};
use crate::abi::{BACKEND_LOCAL, Backend, FLOW_FLAG_HAIRPIN, Flow, INTERFACE_PEER, UDP};
use crate::flow;
use crate::tables::{Env, FlowEntry, Table, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::{Hook, Packet, ethertype, plain, rewrite};

/// The packet is for no service.
const NOT_SERVICE: u32 = u32::MAX - 1;
/// Beside the interface: it leaves by its far end. The kernel's numbers of interfaces are positive as signed ones.
const HERE: u32 = 1 << 31;

/// Sends the packet on, or passes it, if nothing is special about it.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env) -> Option<Verdict> {
    if P::FRAGMENTS {
        return None;
    }
    match follow(packet, tables, env) {
        NOT_SERVICE => Some(Verdict::pass(Reason::PassNotService)),
        to if P::HOOK == Hook::Tc && to & HERE != 0 && to != REFUSED => Some(Verdict::redirect(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            to & !HERE,
        )),
        to => kept::verdict(env, to),
    }
}

/// The interface that it leaves by. A function of its own: the verifier need not know why it has left a packet alone.
#[inline(never)]
fn follow<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env) -> u32 {
    match packet.load_u16(12) {
        Some(ethertype::IPV4) => follow_in::<P, T, false>(packet, tables, env),
        Some(ethertype::IPV6) => follow_in::<P, T, true>(packet, tables, env),
        _ => NOT_KEPT,
    }
}

#[inline(always)]
fn follow_in<P: Packet, T: Tables, const V6: bool>(packet: &mut P, tables: &T, env: &Env) -> u32 {
    let Some((protocol, source_port, port)) = plain::ports::<P, V6>(packet) else {
        return NOT_KEPT;
    };
    // Before all else is read, which would have to be kept on the stack meanwhile.
    let published = tables.publishes(protocol, port);
    if !published && (is_tunnel(tables, protocol, port) || inside::may_arrive::<P, T>(tables, protocol, source_port)) {
        return NOT_KEPT;
    }
    let mut headers = Headers::default();
    let h = &mut headers;
    let Some(checksum) = plain::read::<P, V6>(packet, h) else {
        return NOT_KEPT;
    };
    if !published {
        return NOT_SERVICE;
    }
    // What a sender leaves to its network card XDP leaves to tc.
    let partial = P::HOOK == Hook::Xdp && rewrite::is_partial(h, checksum);
    if !plain::goes_on(h) || partial || packet.tagged() || masquerade::covers(tables, &h.tuple.source) {
        return NOT_KEPT;
    }
    let Some(entry) = tables.flow(&h.tuple, Table::Main) else {
        return NOT_KEPT;
    };
    let Some(backend) = tables.backend(entry.load().backend) else {
        return NOT_KEPT;
    };
    // Read behind the look-up, over which it would have to be kept on the stack.
    let flow = entry.load();
    if !flow::goes_on(&flow, &backend, env.now) {
        return NOT_KEPT;
    }
    match (P::HOOK, backend.flags & BACKEND_LOCAL != 0) {
        (_, false) => to_node::<P, T, V6>(packet, tables, env, h, &entry, &flow, &backend),
        (Hook::Tc, true) => to_local::<P, T, V6>(packet, tables, env, h, &entry, &flow, &backend),
        (Hook::Xdp, true) => NOT_KEPT,
    }
}

#[inline(always)]
fn is_tunnel<T: Tables>(tables: &T, protocol: u8, port: u16) -> bool {
    protocol == UDP && !matches!(tables.settings(), Some(s) if port != s.tunnel_port)
}

/// What is the same wherever a packet goes.
#[inline(always)]
fn note<T: Tables>(tables: &T, env: &Env, h: &Headers, entry: &T::Entry, flow: &Flow) {
    if flow.last_seen != env.now {
        entry.set_last_seen(env.now);
    }
    tables.count_service(flow.service, 0, h.ip_length, false);
}

/// Through the tunnel.
#[inline(always)]
fn to_node<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &Headers,
    entry: &T::Entry,
    flow: &Flow,
    backend: &Backend,
) -> u32 {
    let Some(way) = kept::find(packet, tables, env, h, backend.node) else {
        return NOT_KEPT;
    };
    note(tables, env, h, entry, flow);
    match kept::wrap::<P, V6>(packet, h, &way, backend) {
        Some(()) => way.ifindex(),
        None => REFUSED,
    }
}

/// Into the far end of the backend's veth.
#[inline(always)]
fn to_local<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &Headers,
    entry: &T::Entry,
    flow: &Flow,
    backend: &Backend,
) -> u32 {
    if backend.ifindex == 0 || backend.mac == [0; 6] || flow.flags & FLOW_FLAG_HAIRPIN != 0 || h.ttl <= 1 {
        return NOT_KEPT;
    }
    let interface = match tables.way_out(backend.ifindex) {
        Some(interface) if interface.flags & INTERFACE_PEER != 0 => interface,
        _ => return NOT_KEPT,
    };
    note(tables, env, h, entry, flow);
    let port = flow::target_port(backend, h.tuple.destination_port);
    let done = rewrite::set_macs(packet, backend.mac, interface.mac)
        .and_then(|()| rewrite::lead::<P, V6>(packet, h, &backend.delivery, flow.source_port, port));
    match done {
        Some(()) => backend.ifindex | HERE,
        None => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;
    use crate::abi::{
        BACKEND_DRAINING, BACKEND_GONE, FLOW_ENDED, FLOW_ESTABLISHED, FLOW_FLAG_ANSWERED, FLOW_FLAG_OVERFLOW, FLOW_NEW,
        NAMESPACE_NODE, NETWORK_NODE,
    };
    use crate::pipeline::{Work, node};
    use crate::testing::packet::MemoryPacket;
    use crate::testing::world::{Case, NODE_IF, NOW, Place, World};
    use crate::verdict::Reason;

    const ENV: Env = Env {
        now: NOW,
        ifindex: NODE_IF,
        namespace: NAMESPACE_NODE,
    };

    /// A flow to there, and a packet of it.
    fn begun(case: Case, place: Place, change: impl FnOnce(&mut Flow)) -> (World, Vec<u8>) {
        let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
        let world = World::new().serve(case, &[place]);
        let world = world.flow(case, tuple, place, None).change(tuple, change);
        (
            world,
            case.frame(case.client(), case.published(1)).payload(b"more").build(),
        )
    }

    fn flow(world: &World, case: Case) -> Option<Flow> {
        let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
        world.tables.flow(&tuple, Table::Main).map(|entry| entry.load())
    }

    /// A world in which the way to the backend's node is kept.
    fn keeping<const XDP: bool>(world: &World, place: Place, frame: &[u8]) -> World {
        let world = world.clone();
        world.tables.ways.replace(Some(BTreeMap::new()));
        let (verdict, _) = ingress::<XDP, false>(&world, frame);
        assert_eq!(verdict.reason, reason(place));
        world
    }

    fn reason(place: Place) -> Reason {
        if place == Place::Here {
            Reason::ForwardLocal
        } else {
            Reason::ForwardTunnel
        }
    }

    fn ingress<const XDP: bool, const FRAGMENTS: bool>(world: &World, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut packet = MemoryPacket::<XDP, FRAGMENTS>::new(frame);
        let verdict = node::ingress(&mut packet, &world.tables, &ENV, &mut Work::default());
        (verdict, packet.bytes().to_vec())
    }

    /// Whether it was sent in one step; what is special about it must come out the same step by step.
    fn sent<const XDP: bool>(case: Case, kept: &World, frame: &[u8]) -> bool {
        let (one, steps) = (kept.clone(), kept.clone());
        one.tables.ways.replace(kept.tables.ways.borrow().clone());
        let mut packet = MemoryPacket::<XDP>::new(frame);
        let verdict = send(&mut packet, &one.tables, &ENV);
        if let Some(verdict) = verdict {
            // Neither takes the one step: who keeps no way, nor who may be given a fragment.
            steps.tables.ways.replace(None);
            let expected = if XDP {
                ingress::<XDP, false>(&steps, frame)
            } else {
                ingress::<XDP, true>(&steps, frame)
            };
            assert_eq!(
                (verdict, packet.bytes().to_vec()),
                expected,
                "{}: {frame:02x?}",
                case.name()
            );
            assert_eq!(flow(&one, case), flow(&steps, case), "{}: {frame:02x?}", case.name());
        } else {
            assert_eq!(packet.bytes(), frame, "left as it was");
        }
        verdict.is_some()
    }

    #[test]
    fn a_flow_that_goes_on_is_sent_in_one_step() {
        for case in Case::ALL {
            let (world, frame) = begun(case, Place::Node2, |flow| flow.last_seen = NOW - 3);
            assert!(!sent::<true>(case, &world, &frame), "no way is kept");
            goes_on::<true>(case, Place::Node2);
            goes_on::<false>(case, Place::Node2);
            goes_on::<false>(case, Place::Here);
        }
    }

    fn goes_on<const XDP: bool>(case: Case, place: Place) {
        let (world, frame) = begun(case, place, |flow| flow.last_seen = NOW - 3);
        let world = keeping::<XDP>(&world, place, &frame);
        assert!(sent::<XDP>(case, &world, &frame), "{}", case.name());
        let whole = case.frame(case.client(), case.published(1)).payload(b"more");
        let partial = sent::<XDP>(case, &world, &whole.partial().build());
        assert_eq!(partial, !XDP, "tc finishes the checksum");
        for state in [BACKEND_GONE, BACKEND_DRAINING] {
            let mut other = world.clone().backend_state(case, place, state);
            other.tables.ways = world.tables.ways.clone();
            assert!(!sent::<XDP>(case, &other, &frame), "{} {state}", case.name());
        }
        let (world, _) = begun(case, place, |flow| flow.last_seen = NOW - 3);
        let (verdict, _) = ingress::<XDP, false>(&world, &frame);
        assert_eq!(verdict.reason, reason(place));
        assert_eq!(flow(&world, case).map(|flow| flow.last_seen), Some(NOW));
    }

    #[test]
    fn a_backend_that_is_not_behind_a_veth_is_left_to_the_rest() {
        for case in Case::ALL {
            let (world, frame) = begun(case, Place::Here, |_| {});
            let id = case.backend_id(Place::Here);
            let changes: [fn(&mut Backend); 3] = [|b| b.ifindex = 0, |b| b.mac = [0; 6], |b| b.flags = 0];
            for change in changes {
                let mut other = world.clone();
                other.tables.backends.entry(id).and_modify(change);
                assert!(!sent::<false>(case, &other, &frame), "{}", case.name());
            }
            let mut other = world.clone();
            for interface in other.tables.interfaces.values_mut() {
                interface.flags &= !INTERFACE_PEER;
            }
            assert!(!sent::<false>(case, &other, &frame), "{}", case.name());
            let mut tagged = MemoryPacket::<false>::new(&frame).side_tagged(true);
            assert_eq!(send(&mut tagged, &world.tables, &ENV), None, "{}", case.name());
        }
    }

    #[test]
    fn whatever_a_byte_says_both_do_the_same() {
        for case in Case::ALL {
            byte_by_byte::<true>(case, Place::Node2);
            byte_by_byte::<false>(case, Place::Node2);
            byte_by_byte::<false>(case, Place::Here);
        }
    }

    fn byte_by_byte<const XDP: bool>(case: Case, place: Place) {
        let (world, frame) = begun(case, place, |_| {});
        let world = keeping::<XDP>(&world, place, &frame);
        let mut special = 0;
        for at in 0..frame.len() {
            let was = frame[at];
            for value in [0, 1, 0x7f, 0xff, was ^ 1, was ^ 2, was ^ 4, was ^ 0x10, was ^ 0x80] {
                let mut frame = frame.clone();
                frame[at] = value;
                special += u32::from(!sent::<XDP>(case, &world, &frame));
            }
        }
        assert!(special > 60, "{}: {special}", case.name());
        for length in 0..frame.len() {
            assert!(
                !sent::<XDP>(case, &world, &frame[..length]),
                "{}: {length} bytes",
                case.name()
            );
        }
    }

    #[test]
    fn whatever_a_flow_says_both_do_the_same() {
        for case in Case::ALL {
            state_by_state::<true>(case, Place::Node2);
            state_by_state::<false>(case, Place::Node2);
            state_by_state::<false>(case, Place::Here);
        }
    }

    fn state_by_state<const XDP: bool>(case: Case, place: Place) {
        let (fresh, frame) = begun(case, place, |_| {});
        let kept = keeping::<XDP>(&fresh, place, &frame);
        for state in FLOW_NEW..=FLOW_ENDED {
            for flags in [0, 1, 2, 4, 8, 16, 32, 64] {
                for silent in [0, 1, 900, 1_000, 4_000, 1 << 30] {
                    let (world, frame) = begun(case, place, |flow| {
                        (flow.state, flow.flags, flow.last_seen) = (state, flags, NOW.wrapping_sub(silent));
                    });
                    world.tables.ways.replace(kept.tables.ways.borrow().clone());
                    let timeout = flow(&world, case).map_or(0, |flow| flow.timeout);
                    let done = sent::<XDP>(case, &world, &frame);
                    let may = match state {
                        FLOW_NEW => silent <= 900,
                        FLOW_ESTABLISHED => silent <= timeout,
                        _ => false,
                    };
                    let mut special = FLOW_FLAG_ANSWERED | FLOW_FLAG_OVERFLOW;
                    if place == Place::Here {
                        special |= FLOW_FLAG_HAIRPIN;
                    }
                    assert_eq!(done, may && flags & special == 0, "{state} {flags} {silent}");
                }
            }
        }
    }
}
