//! Parts of cluster states, for the tests of this module.

use std::net::IpAddr;

use crate::model::snapshot::{Backend, BackendState, Service};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A ready task.
pub(super) fn backend(name: &str, node: &str, address: &str) -> Backend {
    Backend {
        name: name.into(),
        node: node.into(),
        addresses: vec![ip(address)],
        port: None,
        state: BackendState::Ready,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    }
}

/// Service `web` of these tasks.
pub(super) fn web(network: &str, backends: Vec<Backend>) -> Service {
    Service {
        name: "web".into(),
        network: network.into(),
        backends,
        ..Service::default()
    }
}
