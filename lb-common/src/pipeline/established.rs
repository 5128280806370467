//! Most of what comes to XDP: a client's packet of a flow that goes on, to a backend on another node. In one function, which
//! keeps what it knows in registers, it does what the rest of the pipeline does for such a packet; whatever is special about a
//! packet, it leaves to the rest as it was.

use super::kept::{self, NOT_KEPT, REFUSED};
use super::masquerade;
use crate::abi::BACKEND_LOCAL;
use crate::flow;
use crate::tables::{Env, FlowEntry, Table, Tables};
use crate::verdict::Verdict;
use crate::wire::parse::Headers;
use crate::wire::{Packet, ethertype, plain, rewrite};

/// Sends the packet on, if nothing is special about it.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env) -> Option<Verdict> {
    kept::verdict(env, follow(packet, tables, env))
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
    // Before all else is read, which would have to be kept on the stack meanwhile.
    match plain::port::<P, V6>(packet) {
        Some((protocol, port)) if tables.publishes(protocol, port) => {}
        _ => return NOT_KEPT,
    }
    let mut headers = Headers::default();
    let h = &mut headers;
    match plain::read::<P, V6>(packet, h) {
        Some(field) if !rewrite::is_partial(h, field) => {}
        _ => return NOT_KEPT,
    }
    if masquerade::covers(tables, &h.tuple.source) {
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
    if !flow::goes_on(&flow, &backend, env.now) || backend.flags & BACKEND_LOCAL != 0 {
        return NOT_KEPT;
    }
    let Some(way) = kept::find(packet, tables, env, h, backend.node) else {
        return NOT_KEPT;
    };
    if flow.last_seen != env.now {
        entry.set_last_seen(env.now);
    }
    tables.count_service(flow.service, 0, h.ip_length, false);
    match kept::wrap::<P, V6>(packet, h, &way, &backend) {
        Some(()) => way.ifindex(),
        None => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;
    use crate::abi::{
        BACKEND_DRAINING, BACKEND_GONE, FLOW_ENDED, FLOW_ESTABLISHED, FLOW_NEW, Flow, NAMESPACE_NODE, NETWORK_NODE,
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

    /// A flow to another node, and a packet of it.
    fn begun(case: Case, change: impl FnOnce(&mut Flow)) -> (World, Vec<u8>) {
        let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
        let world = World::new().serve(case, &[Place::Node2]);
        let world = world.flow(case, tuple, Place::Node2, None).change(tuple, change);
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
    fn keeping(world: &World, frame: &[u8]) -> World {
        let world = world.clone();
        world.tables.ways.replace(Some(BTreeMap::new()));
        let (verdict, _) = ingress(&world, frame);
        assert_eq!(verdict.reason, Reason::ForwardTunnel);
        world
    }

    fn ingress(world: &World, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut packet = MemoryPacket::<true>::new(frame);
        let verdict = node::ingress(&mut packet, &world.tables, &ENV, &mut Work::default());
        (verdict, packet.bytes().to_vec())
    }

    /// Whether it was sent in one step; what is special about it must come out the same step by step.
    fn sent(case: Case, kept: &World, frame: &[u8]) -> bool {
        let (one, steps) = (kept.clone(), kept.clone());
        one.tables.ways.replace(kept.tables.ways.borrow().clone());
        steps.tables.ways.replace(None);
        let mut packet = MemoryPacket::<true>::new(frame);
        let verdict = send(&mut packet, &one.tables, &ENV);
        if let Some(verdict) = verdict {
            let expected = ingress(&steps, frame);
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
            let (world, frame) = begun(case, |flow| flow.last_seen = NOW - 3);
            assert!(!sent(case, &world, &frame), "no way is kept");
            let world = keeping(&world, &frame);
            assert!(sent(case, &world, &frame), "{}", case.name());
            let whole = case.frame(case.client(), case.published(1)).payload(b"more");
            assert!(
                !sent(case, &world, &whole.partial().build()),
                "tc finishes the checksum"
            );
            for state in [BACKEND_GONE, BACKEND_DRAINING] {
                let mut other = world.clone().backend_state(case, Place::Node2, state);
                other.tables.ways = world.tables.ways.clone();
                assert!(!sent(case, &other, &frame), "{} {state}", case.name());
            }
            let (verdict, _) = ingress(&world, &frame);
            assert_eq!(verdict.reason, Reason::ForwardTunnel);
            assert_eq!(flow(&world, case).map(|flow| flow.last_seen), Some(NOW));
        }
    }

    #[test]
    fn whatever_a_byte_says_both_do_the_same() {
        for case in Case::ALL {
            let (world, frame) = begun(case, |_| {});
            let world = keeping(&world, &frame);
            let mut special = 0;
            for at in 0..frame.len() {
                for value in [
                    0,
                    1,
                    0x7f,
                    0xff,
                    frame[at] ^ 1,
                    frame[at] ^ 2,
                    frame[at] ^ 4,
                    frame[at] ^ 0x10,
                    frame[at] ^ 0x80,
                ] {
                    let mut frame = frame.clone();
                    frame[at] = value;
                    special += u32::from(!sent(case, &world, &frame));
                }
            }
            assert!(special > 60, "{}: {special}", case.name());
            for length in 0..frame.len() {
                assert!(!sent(case, &world, &frame[..length]), "{}: {length} bytes", case.name());
            }
        }
    }

    #[test]
    fn whatever_a_flow_says_both_do_the_same() {
        for case in Case::ALL {
            for state in FLOW_NEW..=FLOW_ENDED {
                for flags in [0, 1, 2, 4, 8, 16, 32, 64] {
                    for silent in [0, 1, 900, 1_000, 4_000, 1 << 30] {
                        let (world, frame) = begun(case, |flow| {
                            (flow.state, flow.flags, flow.last_seen) = (state, flags, NOW.wrapping_sub(silent));
                        });
                        let (fresh, _) = begun(case, |_| {});
                        let ways = keeping(&fresh, &frame).tables.ways.take();
                        world.tables.ways.replace(ways);
                        let timeout = flow(&world, case).map_or(0, |flow| flow.timeout);
                        let done = sent(case, &world, &frame);
                        let may = match state {
                            FLOW_NEW => silent <= 900,
                            FLOW_ESTABLISHED => silent <= timeout,
                            _ => false,
                        };
                        assert_eq!(done, may && flags & 96 == 0, "{state} {flags} {silent}");
                    }
                }
            }
        }
    }
}
