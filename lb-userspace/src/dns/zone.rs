//! The name table: which addresses a name has, and for whom. Pure: compiled from a snapshot, read by the server.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::names::{Entry, NetworkNames};
use crate::model::snapshot::{Network, Service, Services, Snapshot};

/// Every name of every network of one snapshot.
///
/// A client that is in some network sees the names of its own networks alone; one that is in none sees every
/// name, but only with its network behind it (`web.shop_net`).
#[derive(Clone, Debug, Default)]
pub struct Zone {
    generation: u64,
    /// Sorted by name: the order in which a client's networks are asked when their subnets are equally long.
    pub(super) networks: Vec<NetworkNames>,
    by_name: HashMap<String, usize>,
    subnets: HashMap<IpNet, Vec<usize>>,
    /// Prefix lengths in use by IPv4 and IPv6 subnets, longest first.
    prefixes: [Vec<u8>; 2],
    nodes: HashSet<IpAddr>,
    /// What it was compiled from.
    source: Source,
}

#[derive(Clone, Debug, Default)]
struct Source {
    networks: Vec<Network>,
    services: Services,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameKind {
    /// A service's name or alias.
    Service,
    /// `tasks.` and a service's name or alias.
    Tasks,
    /// A task's own name.
    Task,
}

/// How fit for new flows an address is. Of several, only the best are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fitness {
    /// A ready backend, or the VIP of a service that has one.
    Ready,
    /// A draining backend, or the VIP of a service that has no better one.
    Draining,
    /// The VIP of a service without backends.
    Empty,
}

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of the family that was asked for, in a fixed order; never empty. The server shuffles them.
    Addresses(Vec<IpAddr>),
    /// Targets of a reverse lookup, without the final dot; never empty.
    Pointers(Vec<String>),
    /// The name exists and has nothing of this type (NOERROR without records).
    Empty,
    /// The name exists, but this type is not ours to answer: forwarded, and never answered with NXDOMAIN.
    OtherType,
    /// Not a name of ours: forwarded.
    Unknown,
}

impl Zone {
    /// The names of `snapshot`.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut order: Vec<_> = snapshot.networks.iter().collect();
        order.sort_by(|a, b| a.name.cmp(&b.name));
        let mut zone = Self {
            generation: snapshot.generation,
            nodes: node_addresses(snapshot),
            ..Self::default()
        };
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for service in &snapshot.services {
            *sizes.entry(&service.network).or_default() += 1 + service.backends.len();
        }
        for (index, network) in order.iter().enumerate() {
            zone.by_name.entry(network.name.to_ascii_lowercase()).or_insert(index);
            // Nobody is in Swarm's mesh as a client, and it has no names.
            let subnets = if network.ingress { &[][..] } else { &network.subnets };
            for subnet in subnets {
                zone.subnets.entry(subnet.trunc()).or_default().push(index);
                zone.prefixes[family(subnet.addr())].push(subnet.prefix_len());
            }
            let size = sizes.get(network.name.as_str()).copied().unwrap_or(0);
            zone.networks.push(NetworkNames::new(network, size));
        }
        for lengths in &mut zone.prefixes {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        for service in snapshot.services.shared() {
            if let Some(names) = zone.names_of(service) {
                names.add(service);
            }
        }
        zone.source = Source {
            networks: snapshot.networks.clone(),
            services: snapshot.services.clone(),
        };
        zone
    }

    /// The names of `snapshot`, at the cost of what is new in it.
    pub fn follow(&self, snapshot: &Snapshot) -> Self {
        let misfit = self.networks.iter().any(NetworkNames::is_misfit);
        if misfit || self.source.networks != snapshot.networks {
            return Self::compile(snapshot);
        }
        let mut zone = self.clone();
        zone.generation = snapshot.generation;
        zone.nodes = node_addresses(snapshot);
        let changes = snapshot.services.changes(&self.source.services);
        for service in &changes.gone {
            if let Some(names) = zone.names_of(service) {
                names.remove(service);
            }
        }
        for service in &changes.come {
            if let Some(names) = zone.names_of(service) {
                names.add(service);
            }
        }
        zone.source.services = snapshot.services.clone();
        zone
    }

    /// Where the names of a service belong, if its network has names.
    fn names_of(&mut self, service: &Service) -> Option<&mut NetworkNames> {
        let is_its = |names: &&mut NetworkNames| names.name == service.network && !names.ingress;
        self.networks.iter_mut().find(is_its)
    }

    /// Generation of the snapshot that it was compiled from.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of names, without reverse ones.
    pub fn len(&self) -> usize {
        self.networks.iter().map(NetworkNames::len).sum()
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer for a client at address `client` to a question for `name` (any case, with or without final dot).
    pub fn lookup(&self, client: IpAddr, name: &str, record_type: RecordType) -> Answer {
        self.answer(&self.scope(client), name, record_type)
    }

    /// Whether `client` is a workload or a node of this cluster.
    pub fn serves(&self, client: IpAddr) -> bool {
        self.nodes.contains(&client) || !self.scope(client).is_empty()
    }

    /// Networks that `client` is in, the most specific subnet first, then by name.
    pub(super) fn scope(&self, client: IpAddr) -> Vec<usize> {
        let mut scope = Vec::new();
        for &length in &self.prefixes[family(client)] {
            let Ok(subnet) = IpNet::new(client, length) else {
                continue;
            };
            for &index in self.subnets.get(&subnet.trunc()).into_iter().flatten() {
                if !scope.contains(&index) {
                    scope.push(index);
                }
            }
        }
        scope
    }

    /// The network called `name`.
    pub(super) fn network(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// The answer to one who is in the networks `scope`; in none: to one outside.
    pub(super) fn answer(&self, scope: &[usize], name: &str, record_type: RecordType) -> Answer {
        if record_type == RecordType::PTR
            && let Some((_, pointers)) = self.reverse(scope, name)
        {
            return Answer::Pointers(pointers);
        }
        let Some((_, entry)) = self.find(scope, name) else {
            return Answer::Unknown;
        };
        let wanted = match record_type {
            RecordType::A => IpAddr::is_ipv4,
            RecordType::AAAA => IpAddr::is_ipv6,
            RecordType::MX => return Answer::Empty,
            _ => return Answer::OtherType,
        };
        let addresses: Vec<_> = entry
            .records
            .iter()
            .map(|record| record.address)
            .filter(wanted)
            .collect();
        if addresses.is_empty() {
            Answer::Empty
        } else {
            Answer::Addresses(addresses)
        }
    }

    /// The entry of a name: first as it stands in each of the asker's networks, then with a network split off its
    /// end, the shortest first. The first match wins; answers of several networks are never merged.
    pub(super) fn find(&self, scope: &[usize], name: &str) -> Option<(usize, Entry<'_>)> {
        let mut name = Cow::Borrowed(name.strip_suffix('.').unwrap_or(name));
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            name.to_mut().make_ascii_lowercase();
        }
        if let Some(found) = scope
            .iter()
            .find_map(|&index| Some((index, self.networks[index].entry(&name)?)))
        {
            return Some(found);
        }
        name.rmatch_indices('.').find_map(|(dot, _)| {
            let index = *self.by_name.get(&name[dot + 1..])?;
            let visible = scope.is_empty() || scope.contains(&index);
            let entry = || self.networks[index].entry(&name[..dot]);
            Some((index, visible.then(entry)??))
        })
    }

    /// The task names of the address that a reverse name (`4.3.2.1.in-addr.arpa`) stands for.
    pub(super) fn reverse(&self, scope: &[usize], name: &str) -> Option<(usize, Vec<String>)> {
        let address = reverse_address(name)?;
        let pointers = |index: usize| Some((index, self.networks[index].pointers(address)?));
        match scope {
            [] => (0..self.networks.len()).find_map(pointers),
            scope => scope.iter().copied().find_map(pointers),
        }
    }
}

fn node_addresses(snapshot: &Snapshot) -> HashSet<IpAddr> {
    let nodes = snapshot.nodes.iter();
    nodes.flat_map(|node| node.addresses.iter().copied()).collect()
}

/// The address that a reverse name stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.to_ascii_lowercase().ends_with(".arpa") {
        return None;
    }
    let net = super::message::wire_name(name)?.parse_arpa_name().ok()?;
    let whole = if net.addr().is_ipv4() { 32 } else { 128 };
    (net.prefix_len() == whole).then(|| net.addr())
}

const fn family(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    }
}

#[cfg(test)]
pub(super) mod tests;
