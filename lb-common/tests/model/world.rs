//! The small world: one service with two backends, one client.

use std::collections::BTreeMap;

use lb_common::abi::{BACKEND_READY, Backend, Flow, NAMESPACE_NODE, REPLY_VIP, Reply, Service, Settings, SlotKey, TCP};
use lb_common::address::Address;
use lb_common::tables::Env;
use lb_common::tuple::Tuple;

use crate::schedule::State;

pub(crate) const NOW: u32 = 50_000_000;
pub(crate) const SERVICE: u32 = 1;
/// The backends' ids.
pub(crate) const A: u32 = 0;
pub(crate) const B: u32 = 1;

pub(crate) fn settings() -> Settings {
    Settings {
        tcp_syn: 30_000,
        tcp_established: 7_000_000,
        tcp_closing: 100_000,
        tcp_closed: 10_000,
        ..Settings::default()
    }
}

pub(crate) fn address(id: u32) -> Address {
    Address::v4([10, 5, 0, 10 + id as u8])
}

pub(crate) fn backend(id: u32) -> Backend {
    Backend {
        address: address(id),
        delivery: address(id),
        network: 5,
        delivery_network: 5,
        generation: 1,
        port: 80,
        protocol: TCP,
        state: BACKEND_READY,
        ..Backend::default()
    }
}

pub(crate) fn tuple() -> Tuple {
    Tuple {
        v6: false,
        source: Address::v4([10, 5, 0, 200]),
        destination: Address::v4([10, 5, 0, 2]),
        source_port: 4000,
        destination_port: 80,
        protocol: TCP,
        network: 5,
    }
}

/// Tuple of the replies of a backend.
pub(crate) fn back(id: u32) -> Tuple {
    Tuple {
        source: address(id),
        destination: tuple().source,
        source_port: 80,
        destination_port: 4000,
        ..tuple()
    }
}

/// A flow to A, silent for so many ticks.
pub(crate) fn to_a(state: u8, timeout: u32, silent: u32) -> Flow {
    Flow {
        backend: A,
        generation: 1,
        service: SERVICE,
        timeout,
        created: NOW - silent,
        last_seen: NOW - silent,
        source_port: 4000,
        state,
        ..Flow::default()
    }
}

/// A and B serve; the flow and its reply, if there is one.
pub(crate) fn world(flow: Option<Flow>) -> State {
    let mut state = State {
        service: Service {
            generation: 1,
            count: 2,
            ..Service::default()
        },
        backends: BTreeMap::from([(A, backend(A)), (B, backend(B))]),
        // The next turn is B's: a flow that is chosen anew is seen to be.
        ticket: 1,
        ..State::default()
    };
    for index in [A, B] {
        let key = SlotKey {
            service: SERVICE,
            generation: 1,
            index,
        };
        state.slots.insert(key, index);
    }
    if let Some(flow) = flow {
        state.elements.push(flow);
        state.flows.insert((true, tuple()), 0);
        let reply = Reply {
            frontend: tuple().destination,
            client: tuple().source,
            frontend_port: 80,
            client_port: 4000,
            network: 5,
            kind: REPLY_VIP,
            bound: flow.created,
        };
        state.put_reply(true, back(A), reply);
    }
    state
}

pub(crate) fn env() -> Env {
    Env {
        now: NOW,
        ifindex: 0,
        namespace: NAMESPACE_NODE,
    }
}
