//! What a service says of itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Taken;
use crate::model::snapshot::EndpointMode;
use crate::provider::file::document::{Port, Published, Service};
use crate::provider::file::validate::{Known, Problems};

const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);

pub(super) fn service_itself<'a>(
    service: &'a Service,
    field: &str,
    known: &Known<'_>,
    taken: &mut Taken<'a>,
    problems: &mut Problems,
) {
    if !known.networks.contains_key(service.network.as_str()) {
        let hint = Known::mend("network", &service.network, known.networks.keys().copied());
        problems.add(
            format!("{field}.network"),
            format!("there is no network `{}`", service.network),
            hint,
        );
    }
    for (item, alias) in service.aliases.iter().enumerate() {
        let field = format!("{field}.aliases[{item}]");
        problems.name(
            "name or alias",
            field,
            alias,
            true,
            taken.names.entry(&service.network).or_default(),
        );
    }
    problems.addresses(&format!("{field}.vip"), &service.vip, true);
    for (item, vip) in service.vip.iter().enumerate() {
        let field = format!("{field}.vip[{item}]");
        if let Some(node) = known.node_addresses.get(vip) {
            problems.add(
                &field,
                format!("{vip} is an address of node `{node}`"),
                "choose an address that nothing else has",
            );
        }
        if service.vip[..item].contains(vip) {
            continue; // Reported by `addresses`.
        }
        if let Some(first) = taken.vips.get(&(service.network.as_str(), *vip)) {
            let message = format!("{vip} is already a VIP in network `{}`", service.network);
            problems.add(field, message, format!("the first is {first}; choose another address"));
        } else {
            taken.vips.insert((&service.network, *vip), field);
        }
    }
    for (name, timeout) in [
        ("tcp_timeout", service.tcp_timeout),
        ("udp_timeout", service.udp_timeout),
    ] {
        if timeout.is_some_and(|timeout| !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout)) {
            problems.add(format!("{field}.{name}"), "out of range", "choose 1s to 24days");
        }
    }
    let published = |port: &Port| port.published != Published::No;
    match service.mode {
        EndpointMode::Dnsrr => {
            if !service.vip.is_empty() {
                let message = "a service with mode = \"dnsrr\" has no VIP";
                problems.add(format!("{field}.vip"), message, "remove `vip`, or write mode = \"vip\"");
            }
            for (item, _) in service.ports.iter().enumerate().filter(|(_, port)| published(port)) {
                let message = "a service with mode = \"dnsrr\" publishes no port";
                problems.add(
                    format!("{field}.ports[{item}].published"),
                    message,
                    "remove `published`, or write mode = \"vip\"",
                );
            }
        }
        EndpointMode::Vip => {
            if service.vip.is_empty() && !service.ports.iter().any(published) {
                let message = format!("service `{}` has neither a VIP nor a published port", service.name);
                problems.add(
                    format!("{field}.vip"),
                    message,
                    "add `vip`, publish a port, or write mode = \"dnsrr\"",
                );
            } else if service.ports.is_empty() {
                let message = format!("service `{}` has a VIP but no port", service.name);
                problems.add(format!("{field}.ports"), message, "add ports = [{ port = 80 }]");
            }
        }
    }
}

pub(super) fn service_ports(service: &Service, field: &str, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (item, port) in service.ports.iter().enumerate() {
        let field = format!("{field}.ports[{item}]");
        for (name, number) in [("port", Some(port.port)), ("target", port.target)] {
            if number == Some(0) {
                problems.add(format!("{field}.{name}"), "0 is not a port", "choose 1 to 65535");
            }
        }
        if port.published == Published::On(0) {
            problems.add(
                format!("{field}.published"),
                "0 is not a port",
                "choose 1 to 65535, or true for an automatic one",
            );
        }
        if !seen.insert((port.port, port.protocol)) {
            let message = format!("port {}/{} is listed twice", port.port, port.protocol);
            problems.add(format!("{field}.port"), message, "remove one of them");
        }
    }
}
