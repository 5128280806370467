//! Checks services, their ports and backends, and turns them into those of the snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::document::{Backend, Port, Published, Service};
use super::names;
use super::ports::{self, Wanted};
use super::sources;
use super::validate::{Known, Problems};
use crate::model::snapshot::{self, EndpointMode, Protocol};

/// Weights beyond this make the order of slots long and coarse.
const WEIGHT_MAX: u16 = 256;
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);

/// By index of service and port: where it is published.
pub(super) type PublishedPorts = BTreeMap<(usize, usize), u16>;

/// What is taken so far, and by which field.
#[derive(Default)]
struct Taken<'a> {
    names: HashMap<&'a str, HashMap<String, String>>,
    vips: HashMap<(&'a str, IpAddr), String>,
    backends: HashMap<(&'a str, IpAddr), (&'a str, String)>,
}

/// Checks all services and finds the port of everything published.
pub(super) fn check(
    services: &[Service],
    known: &Known<'_>,
    tunnel_port: u16,
    problems: &mut Problems,
) -> PublishedPorts {
    let mut taken = Taken::default();
    // Names before aliases, so that a clash is reported at the alias.
    for (index, service) in services.iter().enumerate() {
        let field = format!("service[{index}].name");
        if names::fold(&service.name) == "tasks" {
            problems.add(
                &field,
                "`tasks` is a reserved name",
                "`tasks.SERVICE` names a service's backends; choose another name",
            );
        }
        problems.name(
            "service",
            field,
            &service.name,
            false,
            taken.names.entry(&service.network).or_default(),
        );
    }
    for (index, service) in services.iter().enumerate() {
        let field = format!("service[{index}]");
        service_itself(service, &field, known, &mut taken, problems);
        service_ports(service, &field, problems);
        sources::check(service, &field, problems);
        let mut backend_names = HashMap::new();
        for (item, backend) in service.backend.iter().enumerate() {
            let field = format!("{field}.backend[{item}]");
            problems.name(
                "backend",
                format!("{field}.name"),
                &backend.name,
                true,
                &mut backend_names,
            );
            backend_itself(service, backend, &field, known, &mut taken, problems);
        }
        same_backends(service, &field, problems);
    }
    vips_of_backends(&taken, problems);
    published_ports(services, tunnel_port, problems)
}

fn service_itself<'a>(
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

fn service_ports(service: &Service, field: &str, problems: &mut Problems) {
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

fn backend_itself<'a>(
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
fn same_backends(service: &Service, field: &str, problems: &mut Problems) {
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

fn vips_of_backends(taken: &Taken<'_>, problems: &mut Problems) {
    for ((network, vip), field) in &taken.vips {
        if let Some((_, backend)) = taken.backends.get(&(*network, *vip)) {
            problems.add(
                field,
                format!("{vip} is the address of a backend, {backend}"),
                "choose an address that nothing else has",
            );
        }
    }
}

fn published_ports(services: &[Service], tunnel_port: u16, problems: &mut Problems) -> PublishedPorts {
    let mut explicit: HashMap<(u16, Protocol), &str> = HashMap::new();
    let mut out = PublishedPorts::new();
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for (item, port) in service.ports.iter().enumerate() {
            let field = format!("service[{index}].ports[{item}].published");
            match port.published {
                Published::No | Published::On(0) => {}
                Published::Auto => {
                    let (network, name) = (service.network.as_str(), service.name.as_str());
                    wanted.push(Wanted {
                        network,
                        service: name,
                        port: port.port,
                        protocol: port.protocol,
                    });
                    places.push((index, item));
                }
                Published::On(number) => {
                    if (number, port.protocol) == (tunnel_port, Protocol::Udp) {
                        let message = format!("{number}/udp is the port of the tunnel between nodes");
                        problems.add(
                            &field,
                            message,
                            "publish another port, or change datapath.tunnel_port on every node",
                        );
                    }
                    if let Some(first) = explicit.insert((number, port.protocol), &service.name) {
                        let message = format!("{number}/{} is already published by service `{first}`", port.protocol);
                        problems.add(
                            field,
                            message,
                            "publish another port, or write true for an automatic one",
                        );
                    }
                    out.insert((index, item), number);
                }
            }
        }
    }
    let mut reserved: BTreeSet<_> = explicit.into_keys().collect();
    reserved.insert((tunnel_port, Protocol::Udp));
    for ((index, item), port) in places.into_iter().zip(ports::assign(&wanted, &reserved)) {
        match port {
            Some(port) => drop(out.insert((index, item), port)),
            None => problems.add(
                format!("service[{index}].ports[{item}].published"),
                format!(
                    "no automatic port is left in {} to {}",
                    ports::AUTOMATIC.start(),
                    ports::AUTOMATIC.end()
                ),
                "publish a port outside of this range",
            ),
        }
    }
    out
}

/// The snapshot's services. The document has been found valid.
pub(super) fn build(services: &[Service], published: &PublishedPorts) -> Vec<snapshot::Service> {
    services
        .iter()
        .enumerate()
        .map(|(index, service)| snapshot::Service {
            name: service.name.clone(),
            network: service.network.clone(),
            mode: service.mode,
            vips: service.vip.clone(),
            aliases: service.aliases.clone(),
            ports: service
                .ports
                .iter()
                .enumerate()
                .map(|(item, port)| snapshot::Port {
                    protocol: port.protocol,
                    port: port.port,
                    target: port.target.unwrap_or(port.port),
                    published: published.get(&(index, item)).copied(),
                })
                .collect(),
            any_port: false,
            sources: snapshot::Sources {
                allow: service.allow.clone(),
                deny: service.deny.clone(),
            },
            tcp_timeout: service.tcp_timeout,
            udp_timeout: service.udp_timeout,
            backends: service
                .backend
                .iter()
                .map(|backend| snapshot::Backend {
                    name: backend.name.clone(),
                    node: backend.node.clone(),
                    addresses: backend.addresses.clone(),
                    port: backend.port,
                    state: backend.state,
                    weight: backend.weight,
                    pending: false,
                    aliases: Vec::new(),
                })
                .collect(),
        })
        .collect()
}
