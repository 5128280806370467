//! From the document as written to a valid [`Snapshot`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::{NETWORK_MAX, capacity};

use super::document::{Cluster, Network, Node};
use super::{names, ports, services};
use crate::config::document::{Document, Fault, Problem, nearest};
use crate::model::snapshot::{self, Snapshot};

/// More problems than these are of no use to anybody.
const PROBLEMS_MAX: usize = 100;

/// Everything wrong that was found so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(Problem {
                field: field.into(),
                message: message.into(),
                hint: Some(hint.into()),
            });
        }
    }

    /// Checks a name's form, and that nobody has it yet.
    pub(super) fn name(
        &mut self,
        what: &str,
        field: String,
        name: &str,
        dotted: bool,
        seen: &mut HashMap<String, String>,
    ) {
        if let Some(fault) = names::fault(name, dotted) {
            self.add(field, fault, format!("choose a {what} name that DNS can answer"));
        } else if let Some(first) = seen.insert(names::fold(name), field.clone()) {
            self.add(
                field,
                format!("a second {what} with the name `{name}`"),
                format!("the first is {first}; rename or remove one"),
            );
        }
    }

    /// Checks that addresses can be used, and if asked that there is at most one of each family.
    pub(super) fn addresses(&mut self, field: &str, addresses: &[IpAddr], one_of_each_family: bool) {
        for (index, address) in addresses.iter().enumerate() {
            let item = format!("{field}[{index}]");
            if let Some(kind) = unusable(address) {
                self.add(
                    &item,
                    format!("{address} is {kind}"),
                    "use a unicast address that other nodes can reach",
                );
            }
            let earlier = &addresses[..index];
            if earlier.contains(address) {
                self.add(item, format!("{address} is listed twice"), "remove one of them");
            } else if one_of_each_family && earlier.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                self.add(
                    item,
                    format!("a second {family} address"),
                    "give at most one address of each family",
                );
            }
        }
    }
}

/// Nodes and networks by name, for the checks of services.
pub(super) struct Known<'a> {
    pub(super) nodes: BTreeSet<&'a str>,
    pub(super) networks: BTreeMap<&'a str, &'a Network>,
    pub(super) node_addresses: HashMap<IpAddr, &'a str>,
}

impl<'a> Known<'a> {
    pub(super) fn new(nodes: &'a [Node], networks: &'a [Network], node_addresses: HashMap<IpAddr, &'a str>) -> Self {
        Self {
            nodes: nodes.iter().map(|node| node.name.as_str()).collect(),
            networks: networks
                .iter()
                .map(|network| (network.name.as_str(), network))
                .collect(),
            node_addresses,
        }
    }
}

impl Known<'_> {
    /// How to mend a reference to something that is not there.
    pub(super) fn mend<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
        match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a [[{what}]] with name = {name:?}, or name one that is there"),
        }
    }
}

/// Makes a snapshot of a document. `tunnel_port` is the UDP port that no service may publish.
///
/// # Errors
/// All faults that were found, in the order of the document.
pub(super) fn validate(document: &Document<'_>, tunnel_port: u16) -> Result<Snapshot, Vec<Fault>> {
    let cluster: Cluster = document.parse().map_err(|fault| vec![*fault])?;
    let nothing = cluster.node.is_empty() && cluster.network.is_empty() && cluster.service.is_empty();
    if nothing && document.fields().is_empty() {
        // What a rewriting in place leaves for a moment must not take every service away.
        let hint = Some("for a cluster without services write `service = []`".into());
        return Err(vec![
            Fault::new(document.name, "", "the document is empty").with_hint(hint),
        ]);
    }
    let mut problems = Problems::default();
    let node_addresses = nodes(&cluster.node, &mut problems);
    let network_ids = networks(&cluster.network, &mut problems);
    let known = Known::new(&cluster.node, &cluster.network, node_addresses);
    let published = services::check(&cluster.service, &known, tunnel_port, &mut problems);
    if !problems.0.is_empty() {
        return Err(document.faults(problems.0));
    }
    Ok(Snapshot {
        generation: 0,
        services: services::build(&cluster.service, &published).into(),
        nodes: snapshot_nodes(&cluster.node),
        networks: snapshot_networks(&cluster.network, &network_ids),
    })
}

/// Nodes as the snapshot has them.
pub(super) fn snapshot_nodes(nodes: &[Node]) -> Vec<snapshot::Node> {
    let made = |node: &Node| snapshot::Node {
        name: node.name.clone(),
        id: None,
        addresses: node.addresses.clone(),
    };
    nodes.iter().map(made).collect()
}

/// Networks as the snapshot has them, with these ids.
pub(super) fn snapshot_networks(networks: &[Network], ids: &[u32]) -> Vec<snapshot::Network> {
    let made = |(network, id): (&Network, &u32)| snapshot::Network {
        name: network.name.clone(),
        id: *id,
        subnets: network.subnets.clone(),
        encrypted: network.encrypted,
        overlay: false,
        ingress: false,
    };
    networks.iter().zip(ids).map(made).collect()
}

/// Whose address each is.
pub(super) fn nodes<'a>(nodes: &'a [Node], problems: &mut Problems) -> HashMap<IpAddr, &'a str> {
    let mut seen = HashMap::new();
    let mut owners: HashMap<IpAddr, &str> = HashMap::new();
    if nodes.len() > capacity::NODES as usize {
        problems.add(
            "node",
            format!("{} nodes; there is room for {}", nodes.len(), capacity::NODES),
            "split the cluster",
        );
    }
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("node[{index}]");
        problems.name("node", format!("{field}.name"), &node.name, true, &mut seen);
        if node.addresses.is_empty() {
            problems.add(
                format!("{field}.addresses"),
                "must not be empty",
                "list the addresses on which the node is reached",
            );
        }
        problems.addresses(&format!("{field}.addresses"), &node.addresses, false);
        for (item, address) in node.addresses.iter().enumerate() {
            match owners.get(address) {
                Some(owner) if *owner != node.name => problems.add(
                    format!("{field}.addresses[{item}]"),
                    format!("{address} is also an address of node `{owner}`"),
                    "an address belongs to one node",
                ),
                _ => drop(owners.insert(*address, &node.name)),
            }
        }
    }
    owners
}

/// The networks' ids, in their order.
pub(super) fn networks(networks: &[Network], problems: &mut Problems) -> Vec<u32> {
    let mut seen = HashMap::new();
    let mut ids: HashMap<u32, &str> = HashMap::new();
    let mut subnets: Vec<(IpNet, &str)> = Vec::new();
    let mut out = Vec::with_capacity(networks.len());
    for (index, network) in networks.iter().enumerate() {
        let field = format!("network[{index}]");
        problems.name("network", format!("{field}.name"), &network.name, true, &mut seen);
        let id = network.id.unwrap_or_else(|| ports::network_id(&network.name));
        let id_field = format!("{field}.id");
        if id == 0 || id > NETWORK_MAX {
            problems.add(
                id_field,
                format!("{id} is out of range"),
                format!("choose 1 to {NETWORK_MAX}"),
            );
        } else if let Some(other) = ids.insert(id, &network.name).filter(|other| *other != network.name) {
            let derived = if network.id.is_none() {
                " (derived from its name)"
            } else {
                ""
            };
            problems.add(
                id_field,
                format!("id {id}{derived} is also the id of network `{other}`"),
                format!("write another `id` for `{}`, the same on every node", network.name),
            );
        }
        out.push(id);
        for (item, subnet) in network.subnets.iter().enumerate() {
            let item = format!("{field}.subnets[{item}]");
            if subnet.addr() != subnet.network() {
                problems.add(
                    &item,
                    format!("{subnet} has bits beyond its prefix"),
                    format!("write {}", subnet.trunc()),
                );
            }
            if let Some((other, owner)) = subnets
                .iter()
                .find(|(other, _)| other.contains(subnet) || subnet.contains(other))
            {
                problems.add(
                    item,
                    format!("{subnet} overlaps {other} of network `{owner}`"),
                    "give each network ranges of its own: by them a DNS client's network is known",
                );
            }
            subnets.push((*subnet, &network.name));
        }
    }
    out
}

/// Why an address can be neither a node's, nor a VIP, nor a backend's.
fn unusable(address: &IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Some("the unspecified address"),
        IpAddr::V4(v4) if v4.is_loopback() => Some("a loopback address"),
        IpAddr::V4(v4) if v4.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("a loopback address"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("a multicast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address written as IPv6"),
        _ => None,
    }
}
