//! Services of a [`Snapshot`] and their backends, from a manager's services and tasks.
//!
//! A service is there once for each of its networks. Swarm forwards **every** port of a VIP, whatever is published,
//! so a service with a VIP lists no port there and takes any. Published ports are on the service of the `ingress`
//! network, with the tasks' addresses there and no VIP: Swarm answers no name on `ingress`, so nobody speaks to a VIP
//! there. They go by their target port, so that several published ports that lead to one target share one set of
//! backends. Ports with `mode=host` are the node's own affair and left alone.
//!
//! [`Snapshot`]: crate::model::snapshot::Snapshot

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api;
use super::sources::sources;
use super::translate::{Overlay, Places, Refused, address};
use crate::model::snapshot::{Backend, BackendState, EndpointMode, Port, Protocol, Service};

/// States that Swarm wants of a task that has to go. A job's tasks have `complete` from the start.
const DEPARTING: [&str; 5] = ["shutdown", "failed", "rejected", "remove", "orphaned"];

/// All services, by network and name.
pub(super) fn services(
    services: &[api::Service],
    tasks: &[api::Task],
    places: &Places<'_>,
    networks: &[Overlay<'_>],
    refused: &mut Refused,
) -> Vec<Service> {
    let mut tasks_of: BTreeMap<&str, BTreeMap<(i64, &str), &api::Task>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| !task.id.is_empty()) {
        let of_service = tasks_of.entry(&task.service).or_default();
        of_service.insert((task.slot, &task.id), task);
    }
    let mut out: BTreeMap<(String, String), Service> = BTreeMap::new();
    let mut sorted: Vec<_> = services.iter().filter(|service| !service.id.is_empty()).collect();
    sorted.sort_by_key(|service| service.id.as_str());
    for service in sorted {
        if service.spec.name.is_empty() {
            refused.add(format!("service {}", service.id), "it is listed without a name");
            continue;
        }
        let tasks: Vec<_> = tasks_of.get(service.id.as_str()).into_iter().flatten().collect();
        for network in networks {
            let Some(mut made) = in_network(service, network, networks, refused) else {
                continue;
            };
            made.backends = tasks
                .iter()
                .filter_map(|(_, task)| backend(service, task, network, places, refused))
                .collect();
            out.entry((made.network.clone(), made.name.clone())).or_insert(made);
        }
        let has_ingress = networks.iter().any(|network| network.ingress);
        if !has_ingress && service.endpoint.ports.iter().any(is_ingress) {
            let reason = "the Swarm has no ingress network; make one with `docker network create --ingress`";
            refused.add(format!("published ports of service {}", service.spec.name), reason);
        }
    }
    out.into_values().collect()
}

/// The service in one network, without backends; `None` if it is not there.
fn in_network(
    service: &api::Service,
    network: &Overlay<'_>,
    networks: &[Overlay<'_>],
    refused: &mut Refused,
) -> Option<Service> {
    let mut made = Service {
        name: service.spec.name.clone(),
        network: network.network.name.clone(),
        mode: mode(service),
        vips: Vec::new(),
        aliases: Vec::new(),
        ports: Vec::new(),
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: Vec::new(),
    };
    if network.ingress {
        // Swarm does not let a dnsrr service publish there.
        made.ports = match made.mode {
            EndpointMode::Vip => ports(service, refused),
            EndpointMode::Dnsrr => Vec::new(),
        };
        if !made.ports.is_empty() {
            made.sources = sources(service, refused);
        }
        return (!made.ports.is_empty()).then_some(made);
    }
    let mut attached = false;
    let spec = &service.spec;
    let template = &spec.task_template.networks;
    let targets = if template.is_empty() { &spec.networks } else { template };
    for target in targets {
        if target.target == network.id || is_named(target, network, networks) {
            attached = true;
            made.aliases.extend(target.aliases.iter().cloned());
        }
    }
    tidy(&mut made.aliases, &made.name);
    let vips = &service.endpoint.virtual_ips;
    let allocated: Vec<_> = vips.iter().filter(|vip| vip.network == network.id).collect();
    if made.mode == EndpointMode::Dnsrr {
        // Swarm may still list the VIPs of a service that had them before.
        return attached.then_some(made);
    }
    if !attached && allocated.is_empty() {
        return None;
    }
    made.vips = one_of_each_family(allocated.iter().map(|vip| vip.address.as_str()));
    made.any_port = true;
    if made.vips.is_empty() {
        let object = format!("service {} in network {}", made.name, made.network);
        refused.add(object, "Swarm has not given it a VIP there yet");
        return None;
    }
    Some(made)
}

/// Old clients wrote a network's name where its id belongs. What is the id of some network is not a name.
fn is_named(target: &api::NetworkTarget, network: &Overlay<'_>, networks: &[Overlay<'_>]) -> bool {
    target.target == network.network.name && networks.iter().all(|other| other.id != target.target)
}

/// What is wanted now; what was allocated may be of the spec before, and of a dnsrr service it is empty.
fn mode(service: &api::Service) -> EndpointMode {
    let wanted = service.spec.endpoint_spec.mode.as_str();
    let allocated = service.endpoint.spec.mode.as_str();
    match if wanted.is_empty() { allocated } else { wanted } {
        "dnsrr" => EndpointMode::Dnsrr,
        _ => EndpointMode::Vip,
    }
}

/// Sorted, each once, without the service's own name; DNS does not tell cases apart.
fn tidy(aliases: &mut Vec<String>, name: &str) {
    aliases.retain(|alias| !alias.is_empty() && !alias.eq_ignore_ascii_case(name));
    aliases.sort_by_cached_key(|alias| (alias.to_ascii_lowercase(), alias.clone()));
    aliases.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
}

fn is_ingress(port: &api::PortConfig) -> bool {
    port.mode != "host"
}

/// What is published on every node.
fn ports(service: &api::Service, refused: &mut Refused) -> Vec<Port> {
    let mut out = BTreeMap::new();
    for port in service.endpoint.ports.iter().filter(|port| is_ingress(port)) {
        let protocol = match port.protocol.as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                let object = format!(
                    "published port {}/{other} of service {}",
                    port.published, service.spec.name
                );
                refused.add(
                    object,
                    "only tcp and udp are balanced; it is left to the kernel's own stack",
                );
                continue;
            }
        };
        let number = |number: i64| u16::try_from(number).ok().filter(|number| *number != 0);
        let (Some(target), Some(published)) = (number(port.target), number(port.published)) else {
            let object = format!("port {}/{protocol} of service {}", port.target, service.spec.name);
            refused.add(object, format!("Swarm lists it with published port {}", port.published));
            continue;
        };
        out.entry((published, protocol)).or_insert(Port {
            protocol,
            port: target,
            target,
            published: Some(published),
        });
    }
    out.into_values().collect()
}

/// A task as a backend; `None` unless it runs and has an address in the network.
fn backend(
    service: &api::Service,
    task: &api::Task,
    network: &Overlay<'_>,
    places: &Places<'_>,
    refused: &mut Refused,
) -> Option<Backend> {
    let state = match task.desired.as_str() {
        _ if task.status.state != "running" => return None,
        "running" | "complete" => BackendState::Ready,
        desired if DEPARTING.contains(&desired) => BackendState::Draining,
        _ => return None,
    };
    let attachments = task.attachments.iter();
    let attachments = attachments.filter(|attachment| attachment.network.id == network.id);
    let addresses = one_of_each_family(
        attachments
            .flat_map(|attachment| &attachment.addresses)
            .map(String::as_str),
    );
    if addresses.is_empty() {
        return None; // Made of a spec without this network.
    }
    let place = match task.slot {
        ..=0 => task.node.clone(),
        slot => slot.to_string(),
    };
    let name = format!("{}.{place}.{}", service.spec.name, task.id);
    let Some(node) = places.get(task.node.as_str()) else {
        let reason = format!("it runs on node {:?}, which the Swarm does not list", task.node);
        refused.add(format!("task {name}"), reason);
        return None;
    };
    Some(Backend {
        name,
        // A lost node's tasks stay `running` for a day: nobody is there to say otherwise.
        node: (*node)?.to_owned(),
        addresses,
        port: None,
        state,
        weight: 1,
        pending: false,
        aliases: task_names(task),
    })
}

/// The names that Docker gives to a container besides its own: its id, which is also its host name unless another one was
/// wished for. What the placeholders in a host name stand for is not listed.
fn task_names(task: &api::Task) -> Vec<String> {
    let id: String = task.status.container.id.chars().take(12).collect();
    let hostname = &task.spec.container.hostname;
    let wished = (!hostname.contains("{{")).then(|| hostname.clone());
    let mut names: Vec<_> = std::iter::once(id)
        .chain(wished)
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    names
}

/// The first address of each family, IPv4 first.
fn one_of_each_family<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    let mut out: Vec<_> = texts
        .filter_map(address)
        .filter(|address| seen.insert(address.is_ipv6()))
        .collect();
    out.sort_unstable();
    out
}
