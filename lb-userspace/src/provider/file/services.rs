//! Checks services, their ports and backends, and turns them into those of the snapshot.

mod backend;
mod published;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::document::Service;
use super::names;
use super::sources;
use super::validate::{Known, Problems};
use crate::model::snapshot;
use backend::{backend_itself, same_backends};
use published::published_ports;
use service::{service_itself, service_ports};

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
