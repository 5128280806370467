//! From a [`Snapshot`] to one node's [`Desired`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lb_common::abi::{EndpointKey, NETWORK_NODE, SOURCE_ALLOWED, SOURCE_DENIED, SourceKey, TICK_SHIFT, VipKey};
use lb_common::address::Address;

use super::{
    Backend, Desired, Family, Interfaces, Node, Prefix, REFUSED_ENCRYPTED, Refusal, Service, ServiceKey, UnknownNode,
};
use crate::model::snapshot::{self, BackendState, EndpointMode, Network, Port, Protocol, Snapshot};

impl Desired {
    /// What the tables of `node` should hold for `snapshot`.
    ///
    /// # Errors
    /// If the snapshot does not know `node`: then nothing of it can be told local from remote.
    pub fn compile(snapshot: &Snapshot, node: &str, interfaces: &Interfaces) -> Result<Self, UnknownNode> {
        if !snapshot.nodes.iter().any(|n| n.name == node) {
            let names: Vec<_> = snapshot.nodes.iter().map(|n| n.name.as_str()).collect();
            let known = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Err(UnknownNode {
                node: node.to_owned(),
                known,
            });
        }
        let mut compiler = Compiler {
            interfaces,
            own: Vec::new(),
            desired: Self {
                generation: snapshot.generation,
                node: node.to_owned(),
                ..Self::default()
            },
        };
        compiler.nodes(snapshot);
        compiler.networks(snapshot);
        compiler.services(snapshot);
        let Self { drained, backends, .. } = &mut compiler.desired;
        drained.retain(|(_, key)| backends.get(key).is_some_and(|b| b.state == BackendState::Ready));
        compiler.desired.refused.sort();
        compiler.desired.refused.dedup();
        Ok(compiler.desired)
    }
}

struct Compiler<'a> {
    interfaces: &'a Interfaces,
    desired: Desired,
    /// Backends of the service at hand; some more than once.
    own: Vec<EndpointKey>,
}

/// What services would have if they had nothing in common.
#[derive(Default)]
struct Own {
    vips: usize,
    backends: usize,
}

impl Own {
    fn count(&mut self, service: &snapshot::Service, backends: &mut Vec<EndpointKey>) {
        backends.sort_unstable();
        backends.dedup();
        self.backends += backends.len();
        let vips = &service.vips;
        self.vips += (0..vips.len()).filter(|i| !vips[..*i].contains(&vips[*i])).count();
    }
}

/// One port of one service in one family.
struct Listener<'a> {
    network: &'a Network,
    service: &'a snapshot::Service,
    port: &'a Port,
    family: Family,
}

impl Compiler<'_> {
    fn refuse(&mut self, object: String, reason: impl Into<String>) {
        self.desired.refused.push(Refusal {
            object,
            reason: reason.into(),
        });
    }

    fn nodes(&mut self, snapshot: &Snapshot) {
        let mut nodes: Vec<_> = snapshot.nodes.iter().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        for node in nodes {
            let name: Arc<str> = node.name.as_str().into();
            let first = |family| of_family(&node.addresses, family).unwrap_or(Address::ANY);
            let local = *self.desired.node == *name;
            self.desired.nodes.insert(
                name.clone(),
                Node {
                    tunnel_v4: first(Family::V4),
                    tunnel_v6: first(Family::V6),
                    local,
                },
            );
            for address in &node.addresses {
                self.desired
                    .addresses
                    .entry((*address).into())
                    .or_insert_with(|| name.clone());
            }
        }
    }

    /// Says of every node, also of those that are only told of a network, what the tunnel must never carry.
    fn networks(&mut self, snapshot: &Snapshot) {
        for network in snapshot.networks.iter().filter(|n| n.overlay && n.encrypted) {
            self.refuse(format!("network {}", network.name), REFUSED_ENCRYPTED);
        }
    }

    fn services(&mut self, snapshot: &Snapshot) {
        let networks: BTreeMap<_, _> = snapshot.networks.iter().map(|n| (n.name.as_str(), n)).collect();
        let mut services: Vec<_> = snapshot.services.iter().collect();
        services.sort_by_key(|s| (&s.network, &s.name));
        let refused = self.desired.refused.len();
        let mut own = Own::default();
        for service in services {
            self.own.clear();
            let Some(network) = networks.get(service.network.as_str()) else {
                let name = &service.network;
                self.refuse(
                    format!("service {}", service.name),
                    format!("there is no network {name:?}"),
                );
                continue;
            };
            if service.mode == EndpointMode::Dnsrr {
                continue;
            }
            for vip in &service.vips {
                self.desired
                    .vips
                    .entry(VipKey {
                        address: (*vip).into(),
                        network: network.id,
                    })
                    .or_insert(0);
            }
            for port in service.ports.iter().chain(every_port(service)) {
                for family in Family::ALL {
                    self.listener(&Listener {
                        network,
                        service,
                        port,
                        family,
                    });
                }
            }
            own.count(service, &mut self.own);
        }
        let Desired { vips, backends, .. } = &self.desired;
        self.desired.separate =
            self.desired.refused.len() == refused && (vips.len(), backends.len()) == (own.vips, own.backends);
    }

    /// The frontends of one port in one family, and the sets behind them.
    fn listener(&mut self, listener: &Listener<'_>) {
        let vip = of_family(&listener.service.vips, listener.family);
        let published = listener.port.published.filter(|_| listener.publishes());
        let mut set = None;
        if vip.is_some() || (published.is_some() && !listener.network.encrypted) {
            set = self.set(listener, false);
        }
        if let (Some(address), Some(identity)) = (vip, set) {
            self.frontend(listener, address, listener.network.id, listener.port.port, identity);
        }
        let Some(published) = published else { return };
        if listener.network.encrypted {
            set = self
                .encrypted(listener, published)
                .then(|| self.set(listener, true))
                .flatten();
        }
        if let Some(identity) = set {
            self.frontend(listener, Address::ANY, NETWORK_NODE, published, identity);
        }
    }

    /// Whether this node answers a published port of an encrypted network: only with backends of its own, since
    /// our tunnel is clear text. Elsewhere the packet is left to the kernel's stack.
    fn encrypted(&mut self, listener: &Listener<'_>, published: u16) -> bool {
        let of_family = |b: &&snapshot::Backend| of_family(&b.addresses, listener.family).is_some();
        let backends: Vec<_> = listener.service.backends.iter().filter(of_family).collect();
        let remote = backends.iter().filter(|b| b.node != self.desired.node).count();
        let answered = remote < backends.len() || backends.is_empty();
        if remote > 0 {
            let network = &listener.network.name;
            let key = listener.key(true);
            let instead = if answered {
                "only the backends on this node answer"
            } else {
                "no backend runs on this node, so it is left to the kernel's own stack"
            };
            self.refuse(
                format!("published port {published}/{} of {key}", key.protocol),
                format!("network {network} is encrypted and the tunnel between nodes is not: {instead}"),
            );
        }
        answered
    }

    fn frontend(&mut self, listener: &Listener<'_>, address: Address, network: u32, port: u16, identity: u64) {
        let protocol = listener.port.protocol.number();
        let key = EndpointKey {
            address,
            network,
            port,
            protocol,
            family: listener.family.number(),
        };
        let holder = match self.desired.frontends.entry(key) {
            Entry::Occupied(taken) => *taken.get(),
            Entry::Vacant(free) => {
                free.insert(identity);
                if let Some(frontends) = self.desired.vips.get_mut(&VipKey { address, network }) {
                    *frontends += 1;
                }
                return;
            }
        };
        if holder != identity {
            let taken = self.desired.services[&holder].key.to_string();
            let what = if network == NETWORK_NODE {
                format!("published port {port}")
            } else {
                format!("VIP {address}")
            };
            self.refuse(
                format!("service {}", listener.key(false)),
                format!("{what} is already taken by {taken}"),
            );
        }
    }

    /// Adds the balanced set of a listener, unless it is there; returns its identity.
    fn set(&mut self, listener: &Listener<'_>, local: bool) -> Option<u64> {
        let key = listener.key(local);
        let identity = key.identity();
        if let Some(there) = self.desired.services.get(&identity) {
            if there.key == key && there.target == listener.port.target {
                return Some(identity);
            }
            let reason = if there.key == key {
                format!(
                    "its port leads to {} already, so it cannot lead to {}",
                    there.target, listener.port.target
                )
            } else {
                format!("its identity is that of {}; rename one of them", there.key)
            };
            self.refuse(format!("service {key}"), reason);
            return None;
        }
        let (shares, resting) = self.members(listener, local);
        let timeout = |t: Option<Duration>| t.map_or(0, ticks);
        self.desired.services.insert(
            identity,
            Service {
                key,
                target: listener.port.target,
                shares,
                resting,
                sources: sources(&listener.service.sources, listener.family),
                tcp_timeout: timeout(listener.service.tcp_timeout),
                udp_timeout: timeout(listener.service.udp_timeout),
            },
        );
        Some(identity)
    }

    /// Adds the backends of a listener; returns those that take new flows: the ready ones, or the draining ones
    /// while no other is there; and the others.
    fn members(&mut self, listener: &Listener<'_>, local: bool) -> (Vec<(EndpointKey, u16)>, Vec<EndpointKey>) {
        let mut members: BTreeMap<EndpointKey, (BackendState, u16)> = BTreeMap::new();
        let mut resting = BTreeSet::new();
        for backend in &listener.service.backends {
            let Some(address) = of_family(&backend.addresses, listener.family) else {
                continue;
            };
            if local && backend.node != self.desired.node {
                continue;
            }
            let Some((node, _)) = self.desired.nodes.get_key_value(backend.node.as_str()) else {
                let object = format!("backend {} of {}", backend.name, listener.key(local));
                self.refuse(object, format!("there is no node {:?}", backend.node));
                continue;
            };
            let node = node.clone();
            let key = EndpointKey {
                address,
                network: listener.network.id,
                port: backend.port.unwrap_or(listener.port.target),
                protocol: listener.port.protocol.number(),
                family: listener.family.number(),
            };
            let attached = self.backend(key, backend, node, listener.network);
            if !attached && backend.state == BackendState::Ready {
                resting.insert(key);
                continue;
            }
            let member = members.entry(key).or_insert((backend.state, backend.weight.max(1)));
            if backend.state == BackendState::Ready {
                member.0 = BackendState::Ready;
            }
        }
        let ready = members.values().any(|(state, _)| *state == BackendState::Ready);
        if ready {
            let identity = listener.key(local).identity();
            let drained = members
                .iter()
                .filter(|(_, (state, _))| *state == BackendState::Draining);
            self.desired.drained.extend(drained.map(|(key, _)| (identity, *key)));
        }
        let takes = |state: BackendState| !ready || state == BackendState::Ready;
        let (shares, rest): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, (state, _))| takes(*state));
        resting.extend(rest.into_iter().map(|(key, _)| key));
        let shares: Vec<_> = shares.into_iter().map(|(key, (_, weight))| (key, weight)).collect();
        resting.retain(|key| shares.binary_search_by(|(there, _)| there.cmp(key)).is_err());
        (shares, resting.into_iter().collect())
    }

    /// Adds a backend; returns whether packets can get to it.
    fn backend(&mut self, key: EndpointKey, backend: &snapshot::Backend, node: Arc<str>, network: &Network) -> bool {
        let local = *node == *self.desired.node;
        let found = self.interfaces.get(&(key.network, key.address)).filter(|_| local);
        let mut reach = found.copied().unwrap_or_default();
        if reach.mac == [0; 6] && network.overlay && key.address.is_v4() {
            reach.mac = overlay_mac(key.address);
        }
        let (delivery, delivery_network) = match reach.delivery {
            Some(address) => (address, NETWORK_NODE),
            None => (key.address, key.network),
        };
        let attached = found.is_some_and(|reach| !reach.leaving) || !local || !network.overlay;
        if local && attached && !network.encrypted {
            self.desired.local_backends.insert(key);
        }
        let name = backend.name.clone();
        self.own.push(key);
        let there = self.desired.backends.entry(key).or_insert(Backend {
            name,
            node,
            local,
            state: backend.state,
            ifindex: reach.ifindex,
            mac: reach.mac,
            delivery,
            delivery_network,
        });
        if backend.state == BackendState::Ready {
            there.state = BackendState::Ready;
        }
        attached
    }
}

impl Listener<'_> {
    fn key(&self, local: bool) -> ServiceKey {
        ServiceKey {
            network: self.network.name.clone(),
            name: self.service.name.clone(),
            port: self.port.port,
            protocol: self.port.protocol,
            family: self.family,
            local,
        }
    }

    /// Whether a published port is answered in this family: where a backend has an address, and in both while
    /// there is no backend at all, so that clients are refused at once.
    fn publishes(&self) -> bool {
        let mut addresses = self.service.backends.iter().flat_map(|b| &b.addresses).peekable();
        addresses.peek().is_none() || addresses.any(|a| Family::of(*a) == self.family)
    }
}

/// The rows that say whom published ports answer. An address that none matches is not answered.
fn sources(sources: &snapshot::Sources, family: Family) -> Option<BTreeMap<Prefix, u32>> {
    if sources.is_empty() {
        return None;
    }
    let mut rows = BTreeMap::new();
    if sources.allow.is_empty() {
        rows.insert((SourceKey::EVERYBODY, Address::default()), SOURCE_ALLOWED);
    }
    let lists = [(&sources.allow, SOURCE_ALLOWED), (&sources.deny, SOURCE_DENIED)];
    for (prefixes, value) in lists {
        let of_family = prefixes.iter().filter(|prefix| Family::of(prefix.addr()) == family);
        rows.extend(of_family.map(|prefix| (self::prefix(prefix), value)));
    }
    Some(rows)
}

fn prefix(prefix: &IpNet) -> Prefix {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    let bits = SourceKey::EVERYBODY + mapped + u32::from(prefix.prefix_len());
    (bits, prefix.network().into())
}

/// The ports that stand for all the others.
fn every_port(service: &snapshot::Service) -> &'static [Port] {
    const fn all(protocol: Protocol) -> Port {
        Port {
            protocol,
            port: 0,
            target: 0,
            published: None,
        }
    }
    const EVERY: [Port; 2] = [all(Protocol::Tcp), all(Protocol::Udp)];
    if service.any_port { &EVERY } else { &[] }
}

/// The MAC address that Docker's overlay driver gives to an IPv4 address (`netutils.GenerateMACFromIP` of libnetwork).
pub(crate) fn overlay_mac(address: Address) -> [u8; 6] {
    let [a, b, c, d] = address.v4_bytes();
    [0x02, 0x42, a, b, c, d]
}

fn of_family(addresses: &[IpAddr], family: Family) -> Option<Address> {
    addresses
        .iter()
        .find(|a| Family::of(**a) == family)
        .map(|a| (*a).into())
}

/// Ticks of a timeout; at least one, since zero stands for the agent's setting.
fn ticks(timeout: Duration) -> u32 {
    (timeout.as_nanos() >> TICK_SHIFT).clamp(1, u128::from(u32::MAX)) as u32
}
