//! A worker's own view of the Swarm, for when no manager's agent answers: what the nodes tell each other about the
//! networks that have a task here. Pure.
//!
//! That view lacks much: protocols of published ports, aliases, which task is on its way out, and every network
//! without a task here. What a manager said last fills these gaps; what is still open is said in the refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api::node::{Gossip, GossipTask, GossipedNetwork};
use super::role::Role;
use super::translate::{Overlay, Refused, address, overlays};
use crate::model::desired::Refusal;
use crate::model::snapshot::{Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot};

/// What the node of an endpoint is called in `Info`.
const HOST: &str = "Host IP";

/// The snapshot of what this node's engine shows of its networks; all else is as in `known`, what a manager said last.
/// Its generation is 0. `None` if nothing is known at all.
pub fn from_gossip(
    known: Option<&Snapshot>,
    networks: &[GossipedNetwork],
    own: &Role,
) -> Option<(Snapshot, Vec<Refusal>)> {
    let mut refused = Refused::default();
    let reason = "no manager's agent answers; what is known comes from this node's own engine, \
                  and of networks without a task here from what a manager said last";
    refused.add("state of the Swarm", reason);
    let mut merge = Merge {
        known: known.cloned().unwrap_or_default(),
        own,
        nodes: BTreeMap::new(),
        refused,
    };
    merge.nodes(networks);
    if merge.nodes.is_empty() {
        return None;
    }
    let overlays = overlays(networks.iter().map(|gossiped| &gossiped.network), &mut merge.refused);
    let mut services = BTreeMap::new();
    for service in &merge.known.services {
        services.insert((service.network.clone(), service.name.clone()), service.clone());
    }
    for overlay in &overlays {
        let gossiped = networks.iter().find(|gossiped| gossiped.network.id == overlay.id);
        // Without services the engine has no endpoint there: it has nothing to say.
        let Some(listed) = gossiped.and_then(|gossiped| gossiped.services.as_ref()) else {
            continue;
        };
        for service in services.values_mut().filter(|s| s.network == overlay.network.name) {
            // Its name stays for clients, who are refused at once rather than left without an answer.
            service.backends.clear();
        }
        for (name, gossip) in listed.iter().filter(|(name, _)| !name.is_empty()) {
            let gossip = gossip.clone().unwrap_or_default();
            let service = merge.service(name, &gossip, overlay);
            services.insert((service.network.clone(), name.clone()), service);
        }
    }
    let mut all: BTreeMap<String, Network> = BTreeMap::new();
    for network in merge.known.networks.iter().cloned() {
        all.insert(network.name.clone(), network);
    }
    for overlay in overlays {
        // A network that was made anew has another number; whoever had it before is gone.
        all.retain(|_, network| network.id != overlay.network.id);
        all.insert(overlay.network.name.clone(), overlay.network);
    }
    services.retain(|(network, _), _| all.contains_key(network));
    let snapshot = Snapshot {
        generation: 0,
        nodes: merge.nodes.into_values().collect(),
        networks: all.into_values().collect(),
        services: services.into_values().collect(),
    };
    Some((snapshot, merge.refused.0.into_iter().collect()))
}

struct Merge<'a> {
    known: Snapshot,
    own: &'a Role,
    nodes: BTreeMap<String, Node>,
    refused: Refused,
}

impl Merge<'_> {
    /// The nodes that a manager named, this one, and those that only the engine names; they go by their address.
    fn nodes(&mut self, networks: &[GossipedNetwork]) {
        for node in &self.known.nodes {
            self.nodes.insert(node.name.clone(), node.clone());
        }
        let is_own = |node: &Node| !self.own.node.is_empty() && node.id.as_deref() == Some(&self.own.node);
        if !self.nodes.values().any(is_own)
            && let Some(address) = self.own.address
            && self.node_at(address).is_none()
        {
            let (name, id) = (self.own.name.clone(), Some(self.own.node.clone()));
            let addresses = vec![address];
            self.nodes.insert(name.clone(), Node { name, id, addresses });
        }
        let peers = networks.iter().flat_map(|gossiped| &gossiped.network.peers);
        let peers: BTreeSet<IpAddr> = peers.filter_map(|peer| address(&peer.address)).collect();
        for peer in peers {
            self.node_or_new(peer);
        }
    }

    fn node_at(&self, address: IpAddr) -> Option<&str> {
        let mut nodes = self.nodes.values();
        nodes
            .find(|node| node.addresses.contains(&address))
            .map(|node| node.name.as_str())
    }

    fn node_or_new(&mut self, address: IpAddr) -> String {
        if let Some(name) = self.node_at(address) {
            return name.to_owned();
        }
        let name = address.to_string();
        let node = Node {
            name: name.clone(),
            id: None,
            addresses: vec![address],
        };
        self.nodes.insert(name.clone(), node);
        name
    }

    fn service(&mut self, name: &str, gossip: &Gossip, overlay: &Overlay<'_>) -> Service {
        let network = &overlay.network.name;
        let known = self.known.services.iter();
        let known = known.clone().find(|s| s.name == name && s.network == *network).cloned();
        let vip = address(&gossip.vip);
        let mut service = known.clone().unwrap_or_else(|| Service {
            name: name.to_owned(),
            network: network.clone(),
            mode: EndpointMode::Dnsrr,
            vips: Vec::new(),
            aliases: Vec::new(),
            ports: Vec::new(),
            any_port: false,
            sources: Default::default(),
            tcp_timeout: None,
            udp_timeout: None,
            backends: Vec::new(),
        });
        if overlay.ingress {
            service.mode = EndpointMode::Vip;
            service.ports = self.ports(name, &gossip.ports, &service.ports);
        } else if let Some(vip) = vip {
            // Without one it may also be that the engine asked an endpoint that does not know it.
            service.mode = EndpointMode::Vip;
            service.any_port = true;
            service.vips.retain(|old| old.is_ipv4() != vip.is_ipv4());
            service.vips.push(vip);
            service.vips.sort_unstable();
        }
        let before = known.map(|known| known.backends).unwrap_or_default();
        service.backends = gossip
            .tasks
            .iter()
            .filter_map(|task| self.backend(task, overlay, &before))
            .collect();
        service.backends.sort_by(|a, b| a.name.cmp(&b.name));
        service.backends.dedup_by(|a, b| a.name == b.name);
        service
    }

    /// Published ports, with the protocols that they had, else TCP.
    fn ports(&mut self, service: &str, listed: &[String], known: &[Port]) -> Vec<Port> {
        let mut out = BTreeMap::new();
        for text in listed {
            let Some((target, published)) = port(text) else {
                let object = format!("published port {text:?} of service {service}");
                self.refused
                    .add(object, "this node's engine writes it in another way than expected");
                continue;
            };
            let before: Vec<_> = known
                .iter()
                .filter(|port| port.published == Some(published) && port.target == target)
                .map(|port| port.protocol)
                .collect();
            let twice = listed.iter().filter(|other| *other == text).count() > 1;
            let protocols = match before {
                _ if twice => vec![Protocol::Tcp, Protocol::Udp],
                known if !known.is_empty() => known,
                _ => {
                    let reason = "this node's engine does not say its protocol, nor has a manager: taken to be tcp";
                    self.refused
                        .add(format!("published port {published} of service {service}"), reason);
                    vec![Protocol::Tcp]
                }
            };
            for protocol in protocols {
                out.insert(
                    (published, protocol),
                    Port {
                        protocol,
                        port: target,
                        target,
                        published: Some(published),
                    },
                );
            }
        }
        out.into_values().collect()
    }

    fn backend(&mut self, task: &GossipTask, overlay: &Overlay<'_>, before: &[Backend]) -> Option<Backend> {
        let ip = address(&task.address)?;
        let before = before.iter().find(|b| b.name == task.name && b.addresses.contains(&ip));
        let node = match before {
            Some(before) if self.nodes.contains_key(&before.node) => Some(before.node.clone()),
            _ if overlay.endpoints.contains(task.endpoint.as_str()) => self.own_name(),
            _ => {
                let host = task.info.get(HOST).and_then(|host| address(host));
                host.map(|host| self.node_or_new(host))
            }
        };
        let Some(node) = node else {
            let object = format!("task {} in network {}", task.name, overlay.network.name);
            self.refused
                .add(object, "this node's engine does not say on which node it runs");
            return None;
        };
        Some(Backend {
            name: task.name.clone(),
            node,
            addresses: vec![ip],
            port: None,
            // The engine lists those that are on their way out like all others.
            state: before.map_or(BackendState::Ready, |before| before.state),
            weight: before.map_or(1, |before| before.weight),
            // Nobody says more while no manager's agent answers, and an agent that is away stays away.
            pending: before.is_some_and(|before| before.pending),
            aliases: before.map(|before| before.aliases.clone()).unwrap_or_default(),
        })
    }

    fn own_name(&self) -> Option<String> {
        let own = |node: &&Node| {
            let by_id = !self.own.node.is_empty() && node.id.as_deref() == Some(&self.own.node);
            by_id || self.own.address.is_some_and(|own| node.addresses.contains(&own))
        };
        self.nodes.values().find(own).map(|node| node.name.clone())
    }
}

/// Target and published port from `Target: 80, Publish: 8080`.
fn port(text: &str) -> Option<(u16, u16)> {
    let (target, published) = text.strip_prefix("Target: ")?.split_once(", Publish: ")?;
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number != 0);
    Some((number(target)?, number(published)?))
}
