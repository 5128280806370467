//! What a service says of its backends.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Taken;
use crate::provider::file::document::{Backend, Service};
use crate::provider::file::validate::{Known, Problems};

/// Weights beyond this make the order of slots long and coarse.
const WEIGHT_MAX: u16 = 256;

pub(super) fn backend_itself<'a>(
    service: &'a Service,
    backend: &'a Backend,
    field: &str,
    known: &Known<'_>,
    taken: &mut Taken<'a>,
    problems: &mut Problems,
) {
    if !known.nodes.contains(backend.node.as_str()) {
        let hint = Known::mend("node", &backend.node, known.nodes.iter().copied());
        problems.add(
            format!("{field}.node"),
            format!("there is no node `{}`", backend.node),
            hint,
        );
    }
    if backend.weight == 0 || backend.weight > WEIGHT_MAX {
        let hint = format!("choose 1 to {WEIGHT_MAX}; to give it no new flows write state = \"draining\"");
        problems.add(
            format!("{field}.weight"),
            format!("{} is out of range", backend.weight),
            hint,
        );
    }
    match backend.port {
        Some(0) => problems.add(format!("{field}.port"), "0 is not a port", "choose 1 to 65535"),
        Some(_) if service.ports.len() != 1 => {
            let message = format!(
                "a backend's own port needs a service with one port; this one has {}",
                service.ports.len()
            );
            problems.add(
                format!("{field}.port"),
                message,
                "set `target` of the service's ports instead",
            );
        }
        _ => {}
    }
    if backend.addresses.is_empty() {
        problems.add(
            format!("{field}.addresses"),
            "must not be empty",
            "give an address of each family it listens on",
        );
    }
    problems.addresses(&format!("{field}.addresses"), &backend.addresses, true);
    let subnets = known
        .networks
        .get(service.network.as_str())
        .map(|network| network.subnets.as_slice())
        .unwrap_or_default();
    for (item, address) in backend.addresses.iter().enumerate() {
        let field = format!("{field}.addresses[{item}]");
        if !subnets.is_empty() && !subnets.iter().any(|subnet| subnet.contains(address)) {
            problems.add(
                &field,
                format!("{address} is in no subnet of network `{}`", service.network),
                "correct the address, or add its range to the network's `subnets`",
            );
        }
        match taken.backends.get(&(service.network.as_str(), *address)) {
            Some((node, first)) if *node != backend.node => problems.add(
                field,
                format!(
                    "{address} is on node `{}` here and on node `{node}` at {first}",
                    backend.node
                ),
                "an address is on one node at a time",
            ),
            Some(_) => {}
            None => drop(
                taken
                    .backends
                    .insert((&service.network, *address), (&backend.node, field)),
            ),
        }
    }
}

/// Two backends of a service with the same address and port would be one backend counted twice.
pub(super) fn same_backends(service: &Service, field: &str, problems: &mut Problems) {
    let mut seen: HashMap<(IpAddr, Option<u16>), &str> = HashMap::new();
    for (index, backend) in service.backend.iter().enumerate() {
        for (item, address) in backend.addresses.iter().enumerate() {
            if let Some(first) = seen
                .insert((*address, backend.port), &backend.name)
                .filter(|first| *first != backend.name)
            {
                problems.add(
                    format!("{field}.backend[{index}].addresses[{item}]"),
                    format!("{address} is already the address of backend `{first}`"),
                    "give each backend its own address, or a larger `weight` to one",
                );
            }
        }
    }
}
