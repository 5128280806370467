//! Life of a flow: its states, and how long it lives in each.

use crate::abi::{
    FLOW_CLOSED, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_FLAG_FIN_BACKEND, FLOW_FLAG_FIN_CLIENT, FLOW_NEW, Flow, Service,
    Settings, TCP,
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
            return (FLOW_CLOSED, flags);
        }
        if tcp_flags & tcp::FIN != 0 {
            let flags = flags
                | if answered {
                    FLOW_FLAG_FIN_BACKEND
                } else {
                    FLOW_FLAG_FIN_CLIENT
                };
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
    if state == FLOW_NEW && answered {
        (FLOW_ESTABLISHED, flags)
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

/// Whether a flow is past its time. Another CPU's clock may be a tick ahead: the difference is signed.
#[inline(always)]
pub const fn expired(flow: &Flow, now: u32) -> bool {
    now.wrapping_sub(flow.last_seen) as i32 > flow.timeout as i32
}

/// Notes a packet of a flow.
#[inline(always)]
pub fn observe<T: Tables>(tables: &T, env: &Env, entry: &T::Entry, flow: &Flow, h: &Headers, side: Side) {
    if flow.last_seen != env.now {
        entry.set_last_seen(env.now);
    }
    let (state, flags) = next(flow.state, flow.flags, h.tuple.protocol, h.flags, side);
    if state != flow.state || flags != flow.flags {
        let Some(settings) = tables.settings() else { return };
        let ticks = if state == FLOW_ESTABLISHED {
            let service = tables.service(flow.service);
            timeout(state, h.tuple.protocol, &settings, service.as_deref())
        } else {
            timeout(state, h.tuple.protocol, &settings, None)
        };
        entry.set_state(state, flags, ticks);
    }
}
