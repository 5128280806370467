//! Flows with the names of their services and nodes.

use std::collections::HashMap;
use std::net::SocketAddr;

use lb_common::abi;

use crate::admin::api::Flow;
use crate::admin::inspect::{Tables, TrackedFlow, backend_of, seconds};
use crate::model::snapshot::Protocol;

/// Turns entries of the flow tables into [`Flow`]s.
pub struct FlowNames<'a> {
    pub(super) tables: &'a Tables,
    /// By service id.
    pub(super) services: HashMap<u32, String>,
    /// By node id.
    pub(super) nodes: HashMap<u32, String>,
}

impl FlowNames<'_> {
    /// The flow at tick `now`; none when it has expired.
    pub fn flow(&self, entry: &TrackedFlow, now: u32) -> Option<Flow> {
        let left = entry.ticks_left(now)?;
        let flow = &entry.flow;
        let backend = backend_of(self.tables, flow);
        let service = self
            .services
            .get(&flow.service)
            .cloned()
            .unwrap_or_else(|| format!("id {}", flow.service));
        let origin = flow.origin.checked_sub(1);
        Some(Flow {
            protocol: Protocol::from_number(entry.protocol)?,
            network_id: entry.network,
            client: entry.client,
            frontend: entry.frontend,
            backend: backend.map(|b| SocketAddr::new(b.address.to_ip(), b.port)),
            service,
            state: flow_state(flow.state).into(),
            age_seconds: seconds(age(now, flow.created)),
            expires_seconds: seconds(left),
            origin: origin.map(|id| self.nodes.get(&id).cloned().unwrap_or_else(|| format!("id {id}"))),
            translated_port: (flow.source_port != 0 && flow.source_port != entry.client.port())
                .then_some(flow.source_port),
        })
    }
}

fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

fn flow_state(state: u8) -> &'static str {
    match state {
        abi::FLOW_NEW => "new",
        abi::FLOW_ESTABLISHED => "established",
        abi::FLOW_CLOSING => "closing",
        abi::FLOW_CLOSED => "closed",
        _ => "unknown",
    }
}
