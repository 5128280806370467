//! Programs by name, where they lead to each other, and what the agent tells them.

use crate::address::Address;

/// Array of programs: where others go on.
pub const JUMPS: &str = "jumps";
/// Index in [`JUMPS`] of [`program::FROM_WORKLOAD`].
pub const JUMP_FROM_WORKLOAD: u32 = 0;
/// Index in [`JUMPS`] of [`program::TO_WORKLOAD`].
pub const JUMP_TO_WORKLOAD: u32 = 1;
/// Index in [`JUMPS`] of [`program::NODE_ERRORS`].
pub const JUMP_NODE_ERRORS: u32 = 2;
/// Index in [`JUMPS`] of [`program::FROM_ERRORS`].
pub const JUMP_FROM_ERRORS: u32 = 3;
/// Index in [`JUMPS`] of [`program::TO_ERRORS`].
pub const JUMP_TO_ERRORS: u32 = 4;
/// Index in [`JUMPS`] of [`program::HOST_ERRORS`].
pub const JUMP_HOST_ERRORS: u32 = 5;
/// Index in [`JUMPS`] of [`program::NODE_FRAGMENTS`].
pub const JUMP_NODE_FRAGMENTS: u32 = 6;
/// Index in [`JUMPS`] of [`program::FROM_FRAGMENTS`].
pub const JUMP_FROM_FRAGMENTS: u32 = 7;
/// Index in [`JUMPS`] of [`program::TO_FRAGMENTS`].
pub const JUMP_TO_FRAGMENTS: u32 = 8;
/// Index in [`JUMPS`] of [`program::FROM_OVERLAY`].
pub const JUMP_FROM_OVERLAY: u32 = 9;
/// What each index in [`JUMPS`] leads to.
pub const JUMP_PROGRAMS: [(u32, &str); 10] = [
    (JUMP_FROM_WORKLOAD, program::FROM_WORKLOAD),
    (JUMP_TO_WORKLOAD, program::TO_WORKLOAD),
    (JUMP_NODE_ERRORS, program::NODE_ERRORS),
    (JUMP_FROM_ERRORS, program::FROM_ERRORS),
    (JUMP_TO_ERRORS, program::TO_ERRORS),
    (JUMP_HOST_ERRORS, program::HOST_ERRORS),
    (JUMP_NODE_FRAGMENTS, program::NODE_FRAGMENTS),
    (JUMP_FROM_FRAGMENTS, program::FROM_FRAGMENTS),
    (JUMP_TO_FRAGMENTS, program::TO_FRAGMENTS),
    (JUMP_FROM_OVERLAY, program::FROM_OVERLAY),
];
/// Name of the constant in which a pair of `enter` programs has its [`InterfaceKey::namespace`](super::InterfaceKey::namespace).
pub const NAMESPACE: &str = "NAMESPACE";

/// Names of the programs in the object.
pub mod program {
    /// XDP, node interface.
    pub const XDP_NODE: &str = "xdp_node";
    /// tc ingress, node interface.
    pub const TC_NODE: &str = "tc_node";
    /// tc ingress, host side of a workload interface in the node's own namespace.
    pub const FROM_WORKLOAD: &str = "from_workload";
    /// tc ingress, host side of a workload interface in another namespace.
    pub const FROM_OVERLAY: &str = "from_overlay";
    /// tc egress, host side of a workload interface.
    pub const TO_WORKLOAD: &str = "to_workload";
    /// tc egress, the node's loopback interface.
    pub const FROM_HOST: &str = "from_host";
    /// Where [`TC_NODE`] goes on with ICMP errors.
    pub const NODE_ERRORS: &str = "node_errors";
    /// Where [`FROM_WORKLOAD`] and [`FROM_OVERLAY`] go on with them.
    pub const FROM_ERRORS: &str = "from_errors";
    /// Where [`TO_WORKLOAD`] goes on with them.
    pub const TO_ERRORS: &str = "to_errors";
    /// Where [`FROM_HOST`] goes on with them.
    pub const HOST_ERRORS: &str = "host_errors";
    /// Where [`TC_NODE`] goes on with fragments.
    pub const NODE_FRAGMENTS: &str = "node_fragments";
    /// Where [`FROM_WORKLOAD`] and [`FROM_OVERLAY`] go on with them.
    pub const FROM_FRAGMENTS: &str = "from_fragments";
    /// Where [`TO_WORKLOAD`] goes on with them.
    pub const TO_FRAGMENTS: &str = "to_fragments";
    /// Attached nowhere: the agent runs it to remove an entry ([`Collect`](super::Collect)).
    pub const COLLECT: &str = "collect";
    /// What is attached for [`FROM_WORKLOAD`] and [`FROM_OVERLAY`]: writes down the namespace and goes on there.
    pub const ENTER_FROM: &str = "enter_from";
    /// What is attached for [`TO_WORKLOAD`].
    pub const ENTER_TO: &str = "enter_to";
}

/// What [`program::COLLECT`] is asked to remove, behind an Ethernet header and two bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collect {
    /// As in the entry's key; IPv4 in its mapped form.
    pub source: Address,
    /// As in the entry's key.
    pub destination: Address,
    /// `source_port << 16 | destination_port`.
    pub ports: u32,
    /// As in the entry's key.
    pub network_protocol: u32,
    /// Ticks that a flow which nobody has answered may live.
    pub unanswered: u32,
    /// `COLLECT_*` bits: which table, and why.
    pub table: u32,
    /// With [`COLLECT_LEFT`], the flow's service.
    pub service: u32,
    /// With [`COLLECT_LEFT`], the flow's backend.
    pub backend: u32,
}

/// A reply; else a flow.
pub const COLLECT_REPLY: u32 = 1;
/// In an overflow table.
pub const COLLECT_OVERFLOW: u32 = 2;
/// IPv6.
pub const COLLECT_V6: u32 = 4;
/// A flow, however alive, whose backend serves its service no more.
pub const COLLECT_LEFT: u32 = 8;
/// Offset of [`Collect`] in the frame.
pub const COLLECT_OFFSET: usize = 16;
