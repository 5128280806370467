//! From a packet to its flow and backend: found here, or chosen and written down in `open`.

mod open;

use crate::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_READY, Backend, FLOW_CLOSED, FLOW_CLOSING, FLOW_ENDED, FLOW_ESTABLISHED,
    FLOW_FLAG_ANSWERED, FLOW_FLAG_FIN_CLIENT, FLOW_FLAG_HAIRPIN, FLOW_FLAG_OVERFLOW, FLOW_FLAG_REFUSED, FLOW_NEW, Flow,
    NETWORK_NODE, Reply, SlotKey, TCP,
};
use crate::address::Address;
use crate::pressure;
use crate::tables::{Env, FlowEntry, Table, Tables};
use crate::track::{self, Side};
use crate::tuple::Tuple;
use crate::wire::parse::Headers;
use crate::wire::tcp;

pub use open::{Opening, Step, begin, step};

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
    Keep,
    /// Goes on to its backend, and the flow moves from the overflow table to the table itself.
    Settle,
    /// Selects (again), among the backends of the service that its frontend leads to now.
    Select,
    /// Is refused: [`Reason::ResetBackendGone`](crate::verdict::Reason::ResetBackendGone).
    Refuse,
}

/// Whether a TCP segment begins a connection.
#[inline(always)]
pub fn opens(h: &Headers) -> bool {
    h.tuple.protocol == TCP && h.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether a packet begins a new connection on the tuple of an old one: of one that is closed, or whose client uses its port
/// again while it closes.
#[inline(always)]
pub fn reopens(flow: &Flow, h: &Headers) -> bool {
    // A client that has not closed its socket still holds the port: then it is an old SYN that comes late.
    let left = flow.state == FLOW_CLOSING && flow.flags & FLOW_FLAG_FIN_CLIENT != 0;
    (flow.state == FLOW_CLOSED || left) && opens(h)
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

/// Whether the backend of a flow is there no more; `backend`: the element that the flow names.
#[inline(always)]
pub fn is_gone(backend: &Backend, flow: &Flow) -> bool {
    backend.generation != flow.generation || backend.state == BACKEND_GONE
}

/// Decides for a packet of the client whose flow is in the table and not expired.
#[inline(always)]
pub fn continues<T: Tables>(tables: &T, env: &Env, entry: &T::Entry, flow: &Flow, h: &Headers) -> Known {
    let Some(backend) = tables.backend(flow.backend) else {
        return Known::Select;
    };
    let gone = is_gone(&backend, flow);
    let tcp = h.tuple.protocol == TCP;
    if tcp && !opens(h) {
        if gone {
            return Known::Refuse;
        }
    } else {
        // A SYN on a live connection is the connection's; datagrams and SYNs that nobody has answered may move.
        let ended = gone || reopens(flow, h);
        let free = !tcp || flow.state == FLOW_NEW && flow.flags & FLOW_FLAG_ANSWERED == 0;
        if ended || free && backend.state == BACKEND_DRAINING && !only_draining(tables, flow.service) {
            return Known::Select;
        }
    }
    if !track::observe(tables, env, entry, flow, h, Side::Client) {
        return Known::Select;
    }
    if pressure::settles(tables, env, flow, h) {
        return Known::Settle;
    }
    Known::Keep
}

/// Whether a client's packet that begins and ends nothing goes to its flow's backend, and there is nothing to note but that it
/// came: what [`continues`] finds out for all of them.
#[inline(always)]
pub const fn goes_on(flow: &Flow, backend: &Backend, now: u32) -> bool {
    matches!(flow.state, FLOW_NEW | FLOW_ESTABLISHED)
        && flow.flags & (FLOW_FLAG_ANSWERED | FLOW_FLAG_OVERFLOW) == 0
        && backend.state == BACKEND_READY
        && backend.generation == flow.generation
        && track::stays(flow, now)
}

/// Removes a flow whose backend is gone, unless somebody else does: after [`Known::Refuse`]. A function of its
/// own: few packets come here.
#[inline(never)]
pub fn forget<T: Tables>(tables: &T, tuple: &Tuple) {
    if !forget_in(tables, tuple, Table::Main) {
        forget_in(tables, tuple, Table::Overflow);
    }
}

#[inline(always)]
fn forget_in<T: Tables>(tables: &T, tuple: &Tuple, table: Table) -> bool {
    let Some(entry) = tables.flow(tuple, table) else {
        return false;
    };
    let flow = entry.load();
    let Some(backend) = tables.backend(flow.backend) else {
        return false;
    };
    if is_gone(&backend, &flow) && flow.state != FLOW_ENDED && entry.end(&flow) {
        tables.remove_flow(tuple, table);
    }
    true
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
