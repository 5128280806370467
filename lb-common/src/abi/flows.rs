//! Rows that packets write: flows, the ways back to them, first fragments, and when room was short.

use crate::address::Address;

/// Key of an IPv4 flow, as the client's packet carries it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowKey4 {
    /// Client (flows) or backend (replies).
    pub source: [u8; 4],
    /// Frontend (flows) or client as the backend sees it (replies).
    pub destination: [u8; 4],
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// Key of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowKey6 {
    /// Client (flows) or backend (replies).
    pub source: Address,
    /// Frontend (flows) or client as the backend sees it (replies).
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// One tracked connection. All its state is here; `replies` only leads back to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Key into `backends`.
    pub backend: u32,
    /// The backend's generation when the flow began.
    pub generation: u32,
    /// Key into `services`.
    pub service: u32,
    /// Node that the flow came from through the tunnel, plus one; 0: it came directly.
    pub origin: u32,
    /// Expires this many ticks after `last_seen`.
    pub timeout: u32,
    /// Tick of the first packet.
    pub created: u32,
    /// Tick of the last packet, either direction. From here on one aligned 64-bit word, which who wants to end the flow
    /// changes in one step.
    pub last_seen: u32,
    /// Source port as the backend sees it, host byte order; differs from the client's after a collision.
    pub source_port: u16,
    /// `FLOW_*` state.
    pub state: u8,
    /// `FLOW_FLAG_*` bits.
    pub flags: u8,
}

/// Leads from a reply's tuple to its flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// Address that the client speaks to.
    pub frontend: Address,
    /// The client's address (a hairpin's reply is addressed to the VIP).
    pub client: Address,
    /// The frontend's port, host byte order.
    pub frontend_port: u16,
    /// The client's own port, host byte order.
    pub client_port: u16,
    /// Network of the flow's key.
    pub network: u32,
    /// `REPLY_*`. From here on one aligned 64-bit word, which who wants to end the reply changes in one step.
    pub kind: u32,
    /// Tick at which it was bound to its flow last.
    pub bound: u32,
}

impl Reply {
    /// Whether both lead to the same flow, whenever they were bound.
    #[inline(always)]
    pub fn leads_as(&self, other: &Self) -> bool {
        self.frontend == other.frontend
            && self.client == other.client
            && self.frontend_port == other.frontend_port
            && self.client_port == other.client_port
            && self.network == other.network
            && self.kind == other.kind
    }
}

/// Somebody removes or replaces the reply; for everybody else it is not there any more.
pub const REPLY_ENDED: u32 = 0;
/// The flow came to a published port: translated back where the backend sends it.
pub const REPLY_PUBLISHED: u32 = 1;
/// The flow came to a VIP: translated back where the client receives it.
pub const REPLY_VIP: u32 = 2;
/// The client is its own backend: translated back where it sends it.
pub const REPLY_HAIRPIN: u32 = 3;

/// TCP: a SYN was seen, and maybe its answer. UDP: a request was seen.
pub const FLOW_NEW: u8 = 1;
/// Both sides have spoken.
pub const FLOW_ESTABLISHED: u8 = 2;
/// One side has sent FIN.
pub const FLOW_CLOSING: u8 = 3;
/// Both sides have sent FIN, or one RST: a SYN on the tuple is a new flow.
pub const FLOW_CLOSED: u8 = 4;

/// Somebody removes or replaces the flow; for everybody else it is not there any more.
pub const FLOW_ENDED: u8 = 5;

/// The client sent FIN.
pub const FLOW_FLAG_FIN_CLIENT: u8 = 1;
/// The backend sent FIN.
pub const FLOW_FLAG_FIN_BACKEND: u8 = 2;
/// The backend sees the VIP as source, because client and backend are one.
pub const FLOW_FLAG_HAIRPIN: u8 = 4;
/// The client is a process of this node itself: replies may be delivered to the node's own stack.
pub const FLOW_FLAG_HOST: u8 = 8;
/// A backend has refused the connection, and the client was made to ask again: closed, the flow waits for that; new, another
/// backend is asked, whose refusal the client gets to see.
pub const FLOW_FLAG_REFUSED: u8 = 16;
/// TCP: the backend has answered the SYN. Established it is when the client goes on: whoever forged its address does not.
pub const FLOW_FLAG_ANSWERED: u8 = 64;

/// Key of `fragments`: which datagram a fragment is of (RFC 791 2.3, RFC 8200 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey {
    /// As the fragment carries it.
    pub source: Address,
    /// As the fragment carries it.
    pub destination: Address,
    /// Identification.
    pub id: u32,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// Value of `fragments`: what only a datagram's first fragment tells.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Tick of the first fragment.
    pub seen: u32,
}

/// The flow is in the overflow table, which forgets the flows least used when it is full.
pub const FLOW_FLAG_OVERFLOW: u8 = 32;

/// When the flow tables were short of room last; one element, written by the programs alone. Ticks with their lowest bit
/// set; 0: never.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Tick at which a flow or a reply last found its table full.
    pub full: u32,
    /// Tick at which something was last written to or found in an overflow table.
    pub used: u32,
}
