//! From a packet to its flow and backend: found, or chosen and written down.

use crate::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, Backend, FLOW_CLOSED, FLOW_FLAG_HAIRPIN, FLOW_FLAG_REFUSED,
    FLOW_NEW, Flow, NETWORK_NODE, REPLY_HAIRPIN, REPLY_PUBLISHED, REPLY_VIP, Reply, SlotKey, TCP,
};
use crate::address::Address;
use crate::select::{Selection, select};
use crate::tables::{Env, FlowEntry, Insert, Tables};
use crate::track::{self, Side};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::wire::parse::Headers;
use crate::wire::tcp;

/// The backend of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chosen {
    /// Its id.
    pub backend: u32,
    /// Id of the service.
    pub service: u32,
    /// Source port as the backend sees it.
    pub source_port: u16,
    /// The backend is the client.
    pub hairpin: bool,
}

impl Chosen {
    /// As a flow says.
    #[inline(always)]
    pub const fn of(flow: &Flow) -> Self {
        Self {
            backend: flow.backend,
            service: flow.service,
            source_port: flow.source_port,
            hairpin: flow.flags & FLOW_FLAG_HAIRPIN != 0,
        }
    }
}

/// What a flow found in the table says about its packet.
pub enum Known {
    /// Goes on to its backend.
    Keep(Chosen),
    /// Selects (again) among the backends of this service.
    Select(u32),
    /// Is refused.
    Refuse(Reason),
}

/// Whether a TCP segment begins a connection.
#[inline(always)]
pub fn opens(h: &Headers) -> bool {
    h.tuple.protocol == TCP && h.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether a packet begins a new connection on the tuple of an old one.
#[inline(always)]
pub fn reopens(flow: &Flow, h: &Headers) -> bool {
    flow.state == FLOW_CLOSED && opens(h)
}

/// Id, plus one, of the backend that has just refused the connection which a packet of this flow begins again; or 0.
#[inline(always)]
pub fn refused_by(flow: &Flow) -> u32 {
    if flow.state == FLOW_CLOSED && flow.flags & FLOW_FLAG_REFUSED != 0 {
        flow.backend + 1
    } else {
        0
    }
}

/// Decides for a packet of the client whose flow is in the table and not expired.
#[inline(always)]
pub fn continues<T: Tables>(tables: &T, env: &Env, entry: &T::Entry, flow: &Flow, h: &Headers) -> Known {
    let Some(backend) = tables.backend(flow.backend) else {
        return Known::Select(flow.service);
    };
    let gone = backend.generation != flow.generation || backend.state == BACKEND_GONE;
    let tcp = h.tuple.protocol == TCP;
    if tcp && !opens(h) {
        if gone {
            tables.remove_flow(&h.tuple);
            return Known::Refuse(Reason::ResetBackendGone);
        }
    } else {
        // A SYN on a live connection is the connection's; datagrams and SYNs that nobody has answered may move.
        let ended = gone || tcp && flow.state == FLOW_CLOSED;
        let free = !tcp || flow.state == FLOW_NEW;
        if ended || free && backend.state == BACKEND_DRAINING && !only_draining(tables, flow.service) {
            return Known::Select(flow.service);
        }
    }
    track::observe(tables, env, entry, flow, h, Side::Client);
    Known::Keep(Chosen::of(flow))
}

/// Whether a service has nothing but draining backends left; they keep serving (its slots hold either kind, never both).
#[inline(always)]
fn only_draining<T: Tables>(tables: &T, service: u32) -> bool {
    let Some(entry) = tables.service(service) else {
        return false;
    };
    let Some(id) = tables.slot(&SlotKey {
        service,
        generation: entry.generation,
        index: 0,
    }) else {
        return false;
    };
    matches!(tables.backend(id), Some(backend) if backend.state == BACKEND_DRAINING)
}

/// A new flow in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// Id of its service.
    pub service: u32,
    /// Node that it came from through the tunnel, plus one, which has chosen the backend; 0: it came directly.
    pub origin: u32,
    /// Id, plus one, of a backend that has just refused this connection; 0: none has.
    pub avoid: u32,
    /// Its backend: given if `origin` is, else selected.
    pub chosen: Chosen,
    /// `FLOW_FLAG_*` bits that it begins with.
    pub flags: u8,
    flow: Flow,
    reply: Reply,
    back: Tuple,
}

/// Selects a backend and writes the packet's flow down. The reason says why there is none.
///
/// One function of its own in the object, for every program: most packets do not come here.
#[inline(never)]
pub fn open<T: Tables>(tables: &T, env: &Env, h: &mut Headers, opening: &mut Opening) -> Option<Reason> {
    opening.chosen.service = opening.service;
    if opening.origin == 0 {
        if h.tuple.protocol == TCP && !opens(h) {
            return Some(Reason::ResetUnknownFlow);
        }
        match select(tables, opening.service, opening.avoid) {
            Selection::Backend(id) => opening.chosen.backend = id,
            Selection::Empty if h.tuple.protocol == TCP => return Some(Reason::ResetNoBackend),
            Selection::Empty => return Some(Reason::UnreachableNoBackend),
        }
    }
    let Some(backend) = tables.backend(opening.chosen.backend) else {
        return Some(Reason::DropBackendGone);
    };
    let Some(settings) = tables.settings() else {
        return Some(Reason::DropFlowTableFull);
    };
    opening.chosen.hairpin = *target(&backend, h.tuple.network) == h.tuple.source;
    opening.chosen.source_port = h.tuple.source_port;
    // The reply of a remote backend comes back through the tunnel, as the frontend's own: nothing to translate here.
    if (backend.flags & BACKEND_LOCAL != 0 || h.tuple.network != NETWORK_NODE)
        && let Some(reason) = bind_reply(tables, env, &mut h.tuple, &backend, opening)
    {
        return Some(reason);
    }
    opening.flow = Flow {
        backend: opening.chosen.backend,
        generation: backend.generation,
        service: opening.service,
        origin: opening.origin,
        last_seen: env.now,
        timeout: track::new_timeout(h.tuple.protocol, &settings),
        created: env.now,
        source_port: opening.chosen.source_port,
        state: FLOW_NEW,
        flags: opening.flags | if opening.chosen.hairpin { FLOW_FLAG_HAIRPIN } else { 0 },
    };
    if tables.insert_flow(&h.tuple, &opening.flow, true) == Insert::Full {
        return Some(Reason::DropFlowTableFull);
    }
    tables.count_service(opening.service, 1, 0, false);
    None
}

/// Writes the way back from the backend's tuple to the flow, and the source port that the backend sees.
#[inline(always)]
fn bind_reply<T: Tables>(
    tables: &T,
    env: &Env,
    tuple: &mut Tuple,
    backend: &Backend,
    opening: &mut Opening,
) -> Option<Reason> {
    let hairpin = opening.chosen.hairpin;
    opening.reply = Reply {
        frontend: tuple.destination,
        client: tuple.source,
        frontend_port: tuple.destination_port,
        client_port: tuple.source_port,
        network: tuple.network,
        kind: if hairpin {
            REPLY_HAIRPIN
        } else if tuple.network == NETWORK_NODE {
            REPLY_PUBLISHED
        } else {
            REPLY_VIP
        },
    };
    opening.back = Tuple {
        v6: tuple.v6,
        source: *target(backend, tuple.network),
        destination: if hairpin { tuple.destination } else { tuple.source },
        source_port: target_port(backend, tuple.destination_port),
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
        network: if tuple.network == NETWORK_NODE {
            backend.delivery_network
        } else {
            backend.network
        },
    };
    let outcome = match bind(tables, env, &opening.back, &opening.reply) {
        Insert::Exists => {
            // Another source port keeps two flows of one client apart at one backend. The next packet of a flow that
            // found none tries another one. Twice in a row instead of in a loop: the verifier loses count of a
            // counter that is kept on the stack.
            let hash = tuple.hash() ^ env.now.wrapping_mul(0x9e37_79b1);
            opening.back.destination_port = 1024 + ((hash >> 16) % 64_512) as u16;
            bind(tables, env, &opening.back, &opening.reply)
        }
        outcome => outcome,
    };
    match outcome {
        Insert::Done => {
            opening.chosen.source_port = opening.back.destination_port;
            None
        }
        Insert::Full => Some(Reason::DropFlowTableFull),
        Insert::Exists => Some(Reason::DropPortCollision),
    }
}

/// Writes one way back, unless it leads to another live flow.
#[inline(always)]
fn bind<T: Tables>(tables: &T, env: &Env, back: &Tuple, reply: &Reply) -> Insert {
    let outcome = tables.insert_reply(back, reply, false);
    if outcome == Insert::Exists {
        // Its own, from before; or one whose flow has ended or gone to another backend.
        if let Some(other) = tables.reply(back)
            && (*other == *reply || !leads_to_live(tables, env, &other, back))
        {
            return tables.insert_reply(back, reply, true);
        }
    }
    outcome
}

/// Whether the flow behind a reply still speaks to the backend that the reply's tuple names, from its port.
#[inline(always)]
fn leads_to_live<T: Tables>(tables: &T, env: &Env, reply: &Reply, back: &Tuple) -> bool {
    let Some(entry) = tables.flow(&flow_tuple(reply, back)) else {
        return false;
    };
    let flow = entry.load();
    if track::expired(&flow, env.now) || flow.state == FLOW_CLOSED {
        return false;
    }
    matches!(tables.backend(flow.backend), Some(backend) if answers(&backend, &flow, reply, back))
}

/// Whether a tuple, which leads to `reply`, is that of a reply of this flow by its backend.
#[inline(always)]
pub fn answers(backend: &Backend, flow: &Flow, reply: &Reply, back: &Tuple) -> bool {
    backend.generation == flow.generation
        && *target(backend, reply.network) == back.source
        && target_port(backend, reply.frontend_port) == back.source_port
        && flow.source_port == back.destination_port
}

/// The address at which a backend gets the packets of flows whose frontend is in `network`.
#[inline(always)]
pub fn target(backend: &Backend, network: u32) -> &Address {
    if network == NETWORK_NODE {
        &backend.delivery
    } else {
        &backend.address
    }
}

/// The port at which a backend gets the packets for a frontend's port.
#[inline(always)]
pub fn target_port(backend: &Backend, frontend_port: u16) -> u16 {
    if backend.port == 0 { frontend_port } else { backend.port }
}

/// Key of the flow that a reply leads to; `back`: the reply's own tuple.
#[inline(always)]
pub fn flow_tuple(reply: &Reply, back: &Tuple) -> Tuple {
    Tuple {
        v6: back.v6,
        source: reply.client,
        destination: reply.frontend,
        source_port: reply.client_port,
        destination_port: reply.frontend_port,
        protocol: back.protocol,
        network: reply.network,
    }
}
