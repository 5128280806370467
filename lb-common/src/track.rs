//! Life of a flow: its states, and how long it lives in each.

use crate::abi::{
    FLOW_CLOSED, FLOW_CLOSING, FLOW_ENDED, FLOW_ESTABLISHED, FLOW_FLAG_ANSWERED, FLOW_FLAG_FIN_BACKEND,
    FLOW_FLAG_FIN_CLIENT, FLOW_FLAG_REFUSED, FLOW_NEW, Flow, Service, Settings, TCP, ticks,
};
use crate::tables::{Env, FlowEntry, Tables};
use crate::wire::parse::Headers;
use crate::wire::tcp;

/// Who sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

/// State and flags after a packet.
#[inline(always)]
pub const fn next(state: u8, flags: u8, protocol: u8, tcp_flags: u8, side: Side) -> (u8, u8) {
    let answered = matches!(side, Side::Backend);
    if protocol == TCP {
        if tcp_flags & tcp::RST != 0 {
            // The mark of a closed flow is for the SYN that it waits for.
            let spent = if state == FLOW_NEW { FLOW_FLAG_REFUSED } else { 0 };
            return (FLOW_CLOSED, flags & !spent);
        }
        if tcp_flags & tcp::FIN != 0 {
            let fin = if answered {
                FLOW_FLAG_FIN_BACKEND
            } else {
                FLOW_FLAG_FIN_CLIENT
            };
            let flags = flags & !FLOW_FLAG_REFUSED | fin;
            let both = FLOW_FLAG_FIN_BACKEND | FLOW_FLAG_FIN_CLIENT;
            return (
                if flags & both == both {
                    FLOW_CLOSED
                } else {
                    FLOW_CLOSING
                },
                flags,
            );
        }
    }
    let syn = protocol == TCP && tcp_flags & tcp::SYN != 0;
    if state == FLOW_NEW && answered {
        let flags = flags & !FLOW_FLAG_REFUSED;
        if syn {
            (FLOW_NEW, flags | FLOW_FLAG_ANSWERED)
        } else {
            (FLOW_ESTABLISHED, flags & !FLOW_FLAG_ANSWERED)
        }
    } else if state == FLOW_NEW && flags & FLOW_FLAG_ANSWERED != 0 && !syn {
        // The mark of a handshake that is not done.
        (FLOW_ESTABLISHED, flags & !FLOW_FLAG_ANSWERED)
    } else {
        (state, flags)
    }
}

/// Ticks that a flow in `state` lives without a packet.
#[inline(always)]
pub fn timeout(state: u8, protocol: u8, settings: &Settings, service: Option<&Service>) -> u32 {
    let (own, setting) = match (protocol == TCP, state) {
        (_, FLOW_NEW) => return new_timeout(protocol, settings),
        (true, FLOW_CLOSING) => return settings.tcp_closing,
        (true, FLOW_CLOSED) => return settings.tcp_closed,
        (true, _) => (service.map_or(0, |s| s.tcp_timeout), settings.tcp_established),
        (false, _) => (service.map_or(0, |s| s.udp_timeout), settings.udp_established),
    };
    if own != 0 { own } else { setting }
}

/// Ticks that a flow lives whose first packet was just seen.
#[inline(always)]
pub const fn new_timeout(protocol: u8, settings: &Settings) -> u32 {
    if protocol == TCP {
        settings.tcp_syn
    } else {
        settings.udp_new
    }
}

/// Whether a flow is past its time, or ended. Another CPU's clock may be a tick ahead: the difference is signed.
#[inline(always)]
pub const fn expired(flow: &Flow, now: u32) -> bool {
    flow.state == FLOW_ENDED || now.wrapping_sub(flow.last_seen) as i32 > flow.timeout as i32
}

/// Ticks of silence after which a flow may be ended by another than its own packets: more than twice [`AWAKE`].
pub const SILENT: u32 = ticks(2_500);
/// Ticks of silence up to which a packet need not ask whether somebody ends its flow. No program runs for as long as what
/// lies between.
const AWAKE: u32 = ticks(1_000);

/// Whether a flow is not past its time, and nobody is about to end it: one that was answered is not ended before.
#[inline(always)]
pub const fn stays(flow: &Flow, now: u32) -> bool {
    let silent = now.wrapping_sub(flow.last_seen) as i32;
    silent <= flow.timeout as i32 && (flow.state == FLOW_ESTABLISHED || silent <= AWAKE as i32)
}

/// Takes back a flow that was long silent. One that was answered nobody ends before it is past its time, and for
/// [`SLACK`](crate::collect::SLACK) more; one that was not has less while room is short. A function of its own: few packets come
/// here.
#[inline(never)]
fn wake<E: FlowEntry>(entry: E, now: u32) -> bool {
    let flow = entry.load();
    match flow.state {
        FLOW_ENDED => false,
        FLOW_NEW => entry.wake(&flow, now),
        _ => {
            entry.set_last_seen(now);
            true
        }
    }
}

/// Notes when a packet of a flow came that is not past its time. False: somebody has just ended it.
#[inline(always)]
pub fn seen<E: FlowEntry>(entry: &E, flow: &Flow, now: u32) -> bool {
    if flow.last_seen == now {
        return true;
    }
    if now.wrapping_sub(flow.last_seen) as i32 > AWAKE as i32 {
        return wake(entry.clone(), now);
    }
    entry.set_last_seen(now);
    true
}

/// Notes a packet of a flow. False: somebody has just ended it.
#[inline(always)]
pub fn observe<T: Tables>(tables: &T, env: &Env, entry: &T::Entry, flow: &Flow, h: &Headers, side: Side) -> bool {
    if !seen(entry, flow, env.now) {
        return false;
    }
    let (state, flags) = next(flow.state, flow.flags, h.tuple.protocol, h.flags, side);
    if state != flow.state || flags != flow.flags {
        let Some(settings) = tables.settings() else { return true };
        let ticks = if state == FLOW_ESTABLISHED {
            let service = tables.service(flow.service);
            timeout(state, h.tuple.protocol, &settings, service.as_deref())
        } else {
            timeout(state, h.tuple.protocol, &settings, None)
        };
        entry.set_state(state, flags, ticks);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_closes_when_both_sides_have() {
        let (state, flags) = next(FLOW_ESTABLISHED, 0, TCP, tcp::FIN | tcp::ACK, Side::Backend);
        assert_eq!((state, flags), (FLOW_CLOSING, FLOW_FLAG_FIN_BACKEND));
        // A repeated FIN is no second one.
        assert_eq!(next(state, flags, TCP, tcp::FIN, Side::Backend), (FLOW_CLOSING, flags));
        assert_eq!(next(state, flags, TCP, tcp::FIN, Side::Client).0, FLOW_CLOSED);
        assert_eq!(next(FLOW_NEW, 0, TCP, tcp::RST, Side::Backend).0, FLOW_CLOSED);
    }

    #[test]
    fn only_an_answer_establishes() {
        for protocol in [TCP, crate::abi::UDP] {
            assert_eq!(next(FLOW_NEW, 0, protocol, tcp::ACK, Side::Client).0, FLOW_NEW);
            assert_eq!(next(FLOW_NEW, 0, protocol, tcp::ACK, Side::Backend).0, FLOW_ESTABLISHED);
            assert_eq!(next(FLOW_CLOSED, 0, protocol, tcp::ACK, Side::Backend).0, FLOW_CLOSED);
        }
    }

    #[test]
    fn a_handshake_is_done_when_the_client_goes_on() {
        let (state, flags) = next(FLOW_NEW, 0, TCP, tcp::SYN | tcp::ACK, Side::Backend);
        assert_eq!((state, flags), (FLOW_NEW, FLOW_FLAG_ANSWERED));
        assert_eq!(next(state, flags, TCP, tcp::SYN, Side::Client).0, FLOW_NEW);
        assert_eq!(next(state, flags, TCP, tcp::ACK, Side::Client), (FLOW_ESTABLISHED, 0));
        assert_eq!(next(state, flags, TCP, tcp::ACK, Side::Backend), (FLOW_ESTABLISHED, 0));
    }

    #[test]
    fn a_refusal_is_remembered_until_the_next_backend_has_answered() {
        let marked = FLOW_FLAG_REFUSED | crate::abi::FLOW_FLAG_HOST;
        let kept = crate::abi::FLOW_FLAG_HOST;
        for side in [Side::Client, Side::Backend] {
            assert_eq!(next(FLOW_NEW, marked, TCP, tcp::RST, side), (FLOW_CLOSED, kept));
            assert_eq!(next(FLOW_CLOSED, marked, TCP, tcp::RST, side), (FLOW_CLOSED, marked));
        }
        assert_eq!(next(FLOW_NEW, marked, TCP, tcp::SYN, Side::Client), (FLOW_NEW, marked));
        let answer = next(FLOW_NEW, marked, TCP, tcp::SYN | tcp::ACK, Side::Backend);
        assert_eq!(answer, (FLOW_NEW, kept | FLOW_FLAG_ANSWERED));
    }

    #[test]
    fn a_flow_lives_through_its_last_tick_and_across_a_wrap() {
        let flow = Flow {
            last_seen: u32::MAX - 5,
            timeout: 10,
            ..Flow::default()
        };
        assert!(!expired(&flow, 4), "ten ticks later");
        assert!(expired(&flow, 5), "eleven ticks later");
        assert!(!expired(&flow, u32::MAX - 6), "another CPU's clock may be ahead");
    }

    #[test]
    fn a_service_names_its_own_idle_times() {
        let settings = Settings {
            tcp_established: 1,
            udp_established: 2,
            tcp_closing: 3,
            udp_new: 4,
            ..Settings::default()
        };
        let service = Service {
            tcp_timeout: 10,
            udp_timeout: 20,
            ..Service::default()
        };
        let udp = crate::abi::UDP;
        assert_eq!(timeout(FLOW_ESTABLISHED, TCP, &settings, Some(&service)), 10);
        assert_eq!(timeout(FLOW_ESTABLISHED, udp, &settings, Some(&service)), 20);
        assert_eq!(timeout(FLOW_ESTABLISHED, udp, &settings, None), 2);
        assert_eq!(timeout(FLOW_CLOSING, TCP, &settings, Some(&service)), 3);
        assert_eq!(timeout(FLOW_NEW, udp, &settings, Some(&service)), 4);
    }
}
