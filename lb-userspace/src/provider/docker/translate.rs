//! From a manager's lists to a [`Snapshot`]: nodes and networks; services are in `services.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use lb_common::abi::NETWORK_MAX;

use super::{api, services};
use crate::model::desired::{REFUSED_ENCRYPTED, Refusal};
use crate::model::snapshot::{Network, Node, Snapshot};

/// Where the overlay driver keeps the numbers of a network, one for each subnet.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Why nothing can be made of a manager's lists. The last snapshot stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// A Swarm has at least the asked manager, so the answer is not to be trusted.
    #[error("the engine lists no node of the Swarm, not even itself; check `docker node ls` on a manager")]
    NoNodes,
}

/// The snapshot of what a manager lists, and what had to be left out, sorted. Its generation is 0. The order of the
/// lists does not matter.
///
/// # Errors
/// There is no node in it.
pub fn translate(
    services: &[api::Service],
    tasks: &[api::Task],
    nodes: &[api::Node],
    networks: &[api::Network],
) -> Result<(Snapshot, Vec<Refusal>), TranslateError> {
    let names = node_names(nodes);
    if names.is_empty() {
        return Err(TranslateError::NoNodes);
    }
    let mut refused = Refused::default();
    let networks = overlays(networks, &mut refused);
    let snapshot = Snapshot {
        generation: 0,
        nodes: node_list(nodes, &names, &mut refused),
        services: services::services(services, tasks, &places(nodes, &names), &networks, &mut refused).into(),
        networks: networks.into_iter().map(|overlay| overlay.network).collect(),
    };
    Ok((snapshot, refused.0.into_iter().collect()))
}

/// The name in the snapshot of each node, by its id in the Swarm.
///
/// That is its host name; or its id, if it has none or another node has the same. A node that is down yields to one
/// that is not: a machine that left and joined again is listed twice.
pub fn node_names(nodes: &[api::Node]) -> BTreeMap<&str, &str> {
    let mut claims: BTreeMap<(&str, bool), BTreeSet<&str>> = BTreeMap::new();
    for node in nodes {
        let claim = (node.description.hostname.as_str(), is_down(node));
        claims.entry(claim).or_default().insert(&node.id);
    }
    let rivals = |hostname, down| claims.get(&(hostname, down)).map_or(0, BTreeSet::len);
    nodes
        .iter()
        .filter(|node| !node.id.is_empty())
        .map(|node| {
            let hostname = node.description.hostname.as_str();
            let down = is_down(node);
            let alone = rivals(hostname, down) == 1 && !(down && rivals(hostname, false) > 0);
            let name = if alone && !hostname.is_empty() {
                hostname
            } else {
                &node.id
            };
            (node.id.as_str(), name)
        })
        .collect()
}

/// What was left out so far. Sorted, and each thing once.
#[derive(Default)]
pub(super) struct Refused(pub(super) BTreeSet<Refusal>);

impl Refused {
    pub(super) fn add(&mut self, object: impl Into<String>, reason: impl Into<String>) {
        self.0.insert(Refusal {
            object: object.into(),
            reason: reason.into(),
        });
    }
}

/// Where tasks can be: the name of each node by its id, `None` for those that are down.
pub(super) type Places<'a> = BTreeMap<&'a str, Option<&'a str>>;

fn places<'a>(nodes: &'a [api::Node], names: &BTreeMap<&'a str, &'a str>) -> Places<'a> {
    nodes
        .iter()
        .filter_map(|node| {
            let name = names.get(node.id.as_str())?;
            Some((node.id.as_str(), (!is_down(node)).then_some(*name)))
        })
        .collect()
}

fn is_down(node: &api::Node) -> bool {
    node.status.state == "down"
}

fn node_list(nodes: &[api::Node], names: &BTreeMap<&str, &str>, refused: &mut Refused) -> Vec<Node> {
    let mut sorted: Vec<_> = nodes.iter().collect();
    // Who is up keeps an address that is listed twice.
    sorted.sort_by_key(|node| (is_down(node), node.id.as_str()));
    let mut owned = BTreeSet::new();
    let mut listed = BTreeMap::new();
    for node in sorted {
        let Some(name) = names.get(node.id.as_str()) else {
            continue;
        };
        if listed.contains_key(name) {
            continue;
        }
        let address = node_address(node);
        if address.is_none() {
            let reason = "Swarm shows no address of it that other nodes could reach; \
                          join it again with --advertise-addr";
            refused.add(format!("address of node {name}"), reason);
        }
        let node = Node {
            name: (*name).to_owned(),
            id: Some(node.id.clone()),
            addresses: address.into_iter().filter(|address| owned.insert(*address)).collect(),
        };
        listed.insert(name, node);
    }
    listed.into_values().collect()
}

/// The address in its status; on some managers that is 0.0.0.0 or 127.0.0.1, and then the one for other managers.
fn node_address(node: &api::Node) -> Option<IpAddr> {
    let control = node.manager.address.as_str();
    let control = control.parse::<SocketAddr>().map(|socket| socket.ip()).ok();
    [address(&node.status.address), control]
        .into_iter()
        .flatten()
        .find(|address| !address.is_loopback())
}

/// A network that is balanced, and what else Swarm says of it.
pub(super) struct Overlay<'a> {
    pub(super) id: &'a str,
    pub(super) ingress: bool,
    /// Ids of the endpoints on the asked node, where it shows them.
    pub(super) endpoints: BTreeSet<&'a str>,
    pub(super) network: Network,
}

/// The overlay networks by name. Networks of the asked node alone are none of ours.
pub(super) fn overlays<'a>(
    networks: impl IntoIterator<Item = &'a api::Network>,
    refused: &mut Refused,
) -> Vec<Overlay<'a>> {
    let mut sorted: Vec<_> = networks
        .into_iter()
        .filter(|network| network.scope == "swarm")
        .collect();
    sorted.sort_by_key(|network| (network.name.as_str(), network.id.as_str()));
    let mut numbers = BTreeMap::new();
    let mut out: Vec<Overlay<'_>> = Vec::new();
    for network in sorted {
        let object = format!("network {}", network.name);
        if network.driver != "overlay" {
            let reason = format!("its driver is {:?}; only overlay networks are balanced", network.driver);
            refused.add(object, reason);
            continue;
        }
        if network.id.is_empty() || network.name.is_empty() {
            refused.add(object, format!("it is listed without id or name (id {:?})", network.id));
            continue;
        }
        if let Some(other) = out.iter().find(|other| other.network.name == network.name) {
            if other.id != network.id {
                refused.add(object, "another network has the same name; remove one of them");
            }
            continue;
        }
        let Some(number) = number(network) else {
            refused.add(
                object,
                format!("Swarm has not given it a number yet (option {VNI_OPTION})"),
            );
            continue;
        };
        if let Some(other) = numbers.get(&number) {
            refused.add(object, format!("network {other} has the same number, {number}"));
            continue;
        }
        numbers.insert(number, network.name.as_str());
        // The key counts whatever its value: clear text by mistake is worse than none.
        let encrypted = network.options.contains_key("encrypted");
        if encrypted {
            refused.add(object, REFUSED_ENCRYPTED);
        }
        out.push(Overlay {
            id: &network.id,
            ingress: network.ingress,
            endpoints: network
                .endpoints
                .values()
                .map(|endpoint| endpoint.id.as_str())
                .collect(),
            network: Network {
                name: network.name.clone(),
                id: number,
                subnets: subnets(network),
                encrypted,
                overlay: true,
                ingress: network.ingress,
            },
        });
    }
    out
}

/// The first of its numbers: a network has one for each subnet, each of them unique in the Swarm.
pub(super) fn number(network: &api::Network) -> Option<u32> {
    let numbers = network.options.get(VNI_OPTION)?;
    let first = numbers.split(',').next()?.trim().parse().ok()?;
    (1..=NETWORK_MAX).contains(&first).then_some(first)
}

fn subnets(network: &api::Network) -> Vec<IpNet> {
    let subnets = network.ipam.config.iter();
    let subnets: BTreeSet<_> = subnets
        .filter_map(|config| config.subnet.parse::<IpNet>().ok())
        .map(|subnet| subnet.trunc())
        .collect();
    subnets.into_iter().collect()
}

/// An address with or without prefix length; `None` for what stands for no address: empty, `<nil>`, 0.0.0.0.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address = text.split('/').next()?.parse::<IpAddr>().ok()?;
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}
