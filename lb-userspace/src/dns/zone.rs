//! The name table: which addresses a name has, and for whom. Pure: compiled from a snapshot, read by the server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::snapshot::{BackendState, EndpointMode, Network, Service, Snapshot};

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
}

/// The names of one network, in lower case.
#[derive(Clone, Debug)]
pub(super) struct NetworkNames {
    pub(super) name: String,
    names: HashMap<String, Entry>,
    pointers: HashMap<IpAddr, Vec<String>>,
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

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) address: IpAddr,
    pub(super) service: Arc<str>,
    /// The backend whose address it is; none: a VIP.
    pub(super) task: Option<Arc<str>>,
    pub(super) fitness: Fitness,
}

/// A name and its addresses, both families.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: NameKind,
    pub(super) records: Vec<Record>,
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
            nodes: snapshot
                .nodes
                .iter()
                .flat_map(|node| node.addresses.iter().copied())
                .collect(),
            ..Self::default()
        };
        let mut drafts: Vec<Draft> = Vec::new();
        for (index, network) in order.iter().enumerate() {
            zone.by_name.entry(network.name.to_ascii_lowercase()).or_insert(index);
            // Nobody is in Swarm's mesh as a client, and it has no names.
            let subnets = if network.ingress { &[][..] } else { &network.subnets };
            for subnet in subnets {
                zone.subnets.entry(subnet.trunc()).or_default().push(index);
                zone.prefixes[family(subnet.addr())].push(subnet.prefix_len());
            }
            drafts.push(Draft::default());
        }
        for lengths in &mut zone.prefixes {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        for service in &snapshot.services {
            let is_its = |network: &&&Network| network.name == service.network && !network.ingress;
            if let Some(index) = order.iter().position(|network| is_its(&network)) {
                drafts[index].add(service);
            }
        }
        zone.networks = order
            .iter()
            .zip(drafts)
            .map(|(network, draft)| draft.finish(&network.name))
            .collect();
        zone
    }

    /// Generation of the snapshot that it was compiled from.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of names, without reverse ones.
    pub fn len(&self) -> usize {
        self.networks.iter().map(|network| network.names.len()).sum()
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.networks.iter().all(|network| network.names.is_empty())
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
            return Answer::Pointers(pointers.to_vec());
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
    pub(super) fn find(&self, scope: &[usize], name: &str) -> Option<(usize, &Entry)> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(found) = scope
            .iter()
            .find_map(|&index| Some((index, self.networks[index].names.get(name.as_str())?)))
        {
            return Some(found);
        }
        name.rmatch_indices('.').find_map(|(dot, _)| {
            let index = self.network(&name[dot + 1..])?;
            let visible = scope.is_empty() || scope.contains(&index);
            let entry = self.networks[index].names.get(&name[..dot])?;
            visible.then_some((index, entry))
        })
    }

    /// The task names of the address that a reverse name (`4.3.2.1.in-addr.arpa`) stands for.
    pub(super) fn reverse(&self, scope: &[usize], name: &str) -> Option<(usize, &[String])> {
        let address = reverse_address(name)?;
        let pointers = |index: usize| Some((index, self.networks[index].pointers.get(&address)?.as_slice()));
        match scope {
            [] => (0..self.networks.len()).find_map(pointers),
            scope => scope.iter().copied().find_map(pointers),
        }
    }
}

/// One network under construction: name to its records as service, as `tasks.` and as task.
#[derive(Default)]
struct Draft {
    names: BTreeMap<String, BTreeMap<NameKind, Vec<Record>>>,
    tasks: Vec<(IpAddr, String)>,
}

impl Draft {
    fn add(&mut self, service: &Service) {
        let own: Arc<str> = Arc::from(service.name.as_str());
        let mut tasks = Vec::new();
        for backend in &service.backends {
            let name: Arc<str> = Arc::from(backend.name.as_str());
            let fitness = match backend.state {
                BackendState::Ready => Fitness::Ready,
                BackendState::Draining => Fitness::Draining,
            };
            let records: Vec<_> = backend
                .addresses
                .iter()
                .map(|&address| Record {
                    address,
                    service: own.clone(),
                    task: Some(name.clone()),
                    fitness,
                })
                .collect();
            self.tasks.extend(
                backend
                    .addresses
                    .iter()
                    .map(|&address| (address, backend.name.to_ascii_lowercase())),
            );
            tasks.extend(records.iter().cloned());
            for name in std::iter::once(&backend.name).chain(&backend.aliases) {
                self.put(name, NameKind::Task, &records);
            }
        }
        let fitness = tasks
            .iter()
            .map(|record| record.fitness)
            .min()
            .unwrap_or(Fitness::Empty);
        let vips: Vec<_> = service
            .vips
            .iter()
            .map(|&address| Record {
                address,
                service: own.clone(),
                task: None,
                fitness,
            })
            .collect();
        // A service that is only published has no VIP: its backends are all that its name can stand for.
        let answered = if service.mode == EndpointMode::Vip && !vips.is_empty() {
            &vips
        } else {
            &tasks
        };
        let mut names: Vec<_> = std::iter::once(&service.name).chain(&service.aliases).collect();
        names.sort();
        names.dedup();
        for name in names {
            self.put(name, NameKind::Service, answered);
            self.put(&format!("tasks.{name}"), NameKind::Tasks, &tasks);
        }
    }

    fn put(&mut self, name: &str, kind: NameKind, records: &[Record]) {
        let kinds = self.names.entry(name.to_ascii_lowercase()).or_default();
        kinds.entry(kind).or_default().extend_from_slice(records);
    }

    fn finish(self, network: &str) -> NetworkNames {
        // Where a name is both, the service hides the `tasks.` form, which hides the task.
        let names = self.names.into_iter().filter_map(|(name, kinds)| {
            let (kind, records) = kinds.into_iter().next()?;
            Some((
                name,
                Entry {
                    kind,
                    records: fittest(records),
                },
            ))
        });
        let mut pointers: HashMap<IpAddr, Vec<String>> = HashMap::new();
        for (address, task) in self.tasks {
            let target = format!("{task}.{}", network.to_ascii_lowercase());
            let targets = pointers.entry(address).or_default();
            if super::message::wire_name(&target).is_some() && !targets.contains(&target) {
                targets.push(target);
            }
        }
        pointers.retain(|_, targets| !targets.is_empty());
        for targets in pointers.values_mut() {
            targets.sort();
        }
        NetworkNames {
            name: network.to_owned(),
            names: names.collect(),
            pointers,
        }
    }
}

/// Of each family the records of the best fitness, each address once.
fn fittest(mut records: Vec<Record>) -> Vec<Record> {
    let best = |v4: bool| {
        records
            .iter()
            .filter(|r| r.address.is_ipv4() == v4)
            .map(|r| r.fitness)
            .min()
    };
    let (best_v4, best_v6) = (best(true), best(false));
    records.retain(|r| Some(r.fitness) == if r.address.is_ipv4() { best_v4 } else { best_v6 });
    records.sort();
    records.dedup_by_key(|record| record.address);
    records
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
#[path = "zone_tests.rs"]
pub(super) mod tests;
