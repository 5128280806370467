//! Joins what the maps hold with the names of the snapshot: services, backends and flows as people know them.
//!
//! Pure. Names are found through addresses (a service by its frontends, a backend by its endpoint), so this works
//! whatever ids the plan gave, and without a snapshot it still tells all that the maps know.

mod find;
mod flows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use lb_common::abi::{self, BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, EndpointKey, NETWORK_NODE, NODE_LOCAL};
use lb_common::address::Address;

use super::api::{Backend, BackendCount, Port, Service, ServiceTraffic};
use super::inspect::{FlowCounts, Tables, specified};
use crate::model::snapshot::{self, BackendState, Protocol, Snapshot};

pub use find::find_service;
pub use flows::FlowNames;

/// Everything that the join needs.
pub struct Inventory<'a> {
    tables: &'a Tables,
    counts: &'a FlowCounts,
    traffic: &'a BTreeMap<u32, abi::ServiceCounter>,
    snapshot: Option<&'a Snapshot>,
    /// Backend id by endpoint.
    endpoints: HashMap<EndpointKey, u32>,
    /// Services that choose a backend, by backend id.
    chosen_by: BTreeMap<u32, BTreeSet<u32>>,
}

impl<'a> Inventory<'a> {
    /// Without a snapshot, everything is named by its number.
    pub fn new(
        tables: &'a Tables,
        counts: &'a FlowCounts,
        traffic: &'a BTreeMap<u32, abi::ServiceCounter>,
        snapshot: Option<&'a Snapshot>,
    ) -> Self {
        let live = tables.backends.iter().filter(|(_, b)| b.state != BACKEND_GONE);
        let endpoints = live
            .map(|(id, b)| (endpoint(b.address, b.network, b.port, b.protocol), *id))
            .collect();
        let mut chosen_by = BTreeMap::<u32, BTreeSet<u32>>::new();
        for (slot, backend) in &tables.slots {
            if tables
                .services
                .get(&slot.service)
                .is_some_and(|s| s.generation == slot.generation)
            {
                chosen_by.entry(*backend).or_default().insert(slot.service);
            }
        }
        Self {
            tables,
            counts,
            traffic,
            snapshot,
            endpoints,
            chosen_by,
        }
    }

    /// Every service.
    pub fn services(&self) -> Vec<Service> {
        let mut all: Vec<_> = match self.snapshot {
            Some(snapshot) => snapshot
                .services
                .iter()
                .map(|s| self.named_service(snapshot, s))
                .collect(),
            None => self
                .tables
                .services
                .keys()
                .map(|id| self.numbered_service(*id))
                .collect(),
        };
        all.sort_by(|a, b| (&a.network, &a.name, &a.ids).cmp(&(&b.network, &b.name, &b.ids)));
        all
    }

    /// Every backend, by service.
    pub fn backends(&self) -> Vec<Backend> {
        match self.snapshot {
            Some(snapshot) => snapshot
                .services
                .iter()
                .flat_map(|s| self.named_tasks(snapshot, s))
                .collect(),
            None => self
                .tables
                .backends
                .keys()
                .filter_map(|id| self.numbered_backend(*id))
                .collect(),
        }
    }

    fn named_service(&self, snapshot: &Snapshot, service: &snapshot::Service) -> Service {
        let network_id = network_id(snapshot, &service.network);
        let ids = self.ids(service, network_id);
        let ready = service
            .backends
            .iter()
            .filter(|b| b.state == BackendState::Ready)
            .count() as u32;
        let total = service.backends.len() as u32;
        let ports = service.ports.iter().map(|p| Port {
            protocol: p.protocol,
            port: (!service.vips.is_empty()).then_some(p.port),
            target: Some(p.target),
            published: p.published,
        });
        Service {
            name: Some(service.name.clone()),
            network: Some(service.network.clone()),
            network_id,
            mode: Some(service.mode),
            vips: service.vips.clone(),
            aliases: service.aliases.clone(),
            ports: ports.collect(),
            backends: BackendCount {
                ready,
                draining: total - ready,
                total,
            },
            flows: self.flows(&ids),
            traffic: self.traffic(&ids),
            ids: ids.into_iter().collect(),
            tasks: self.named_tasks(snapshot, service),
        }
    }

    /// Keys into `services`, found through the frontends that the service must have.
    fn ids(&self, service: &snapshot::Service, network: Option<u32>) -> BTreeSet<u32> {
        let mut ids = BTreeSet::new();
        for port in &service.ports {
            let protocol = port.protocol.number();
            let vips = service
                .vips
                .iter()
                .filter_map(|vip| Some(endpoint(Address::from(*vip), network?, port.port, protocol)));
            let published = port.published.into_iter().flat_map(|published| {
                [4, 6].map(|family| EndpointKey {
                    address: Address::ANY,
                    network: NETWORK_NODE,
                    port: published,
                    protocol,
                    family,
                })
            });
            ids.extend(
                vips.chain(published)
                    .filter_map(|key| self.tables.frontends.get(&key))
                    .map(|f| f.service),
            );
        }
        ids
    }

    fn named_tasks(&self, snapshot: &Snapshot, service: &snapshot::Service) -> Vec<Backend> {
        let network_id = network_id(snapshot, &service.network);
        let ids = self.ids(service, network_id);
        let mut all = Vec::new();
        for task in &service.backends {
            for address in &task.addresses {
                let base = Backend {
                    task: Some(task.name.clone()),
                    service: Some(service.name.clone()),
                    network: Some(service.network.clone()),
                    network_id,
                    node: Some(task.node.clone()),
                    address: Some(*address),
                    port: task.port,
                    state: Some(task.state),
                    weight: Some(task.weight),
                    ..Default::default()
                };
                let mut targets: Vec<_> = service
                    .ports
                    .iter()
                    .map(|p| (p.protocol, task.port.unwrap_or(p.target)))
                    .collect();
                targets.sort_unstable();
                targets.dedup();
                if targets.is_empty() {
                    all.push(base);
                    continue;
                }
                for (protocol, port) in targets {
                    let backend = Backend {
                        protocol: Some(protocol),
                        port: Some(port),
                        ..base.clone()
                    };
                    all.push(self.with_entry(backend, &ids));
                }
            }
        }
        all
    }

    /// Adds what the map knows about a named backend of a service with these numbers.
    fn with_entry(&self, mut backend: Backend, services: &BTreeSet<u32>) -> Backend {
        let (Some(address), Some(network), Some(port), Some(protocol)) =
            (backend.address, backend.network_id, backend.port, backend.protocol)
        else {
            return backend;
        };
        let key = endpoint(Address::from(address), network, port, protocol.number());
        if let Some(id) = self.endpoints.get(&key) {
            let entry = &self.tables.backends[id];
            backend.id = Some(*id);
            backend.local = entry.flags & BACKEND_LOCAL != 0;
            // One that other services use says nothing of this one, which gives it no new flow.
            let chosen = self.chosen_by.get(id).filter(|chosen| !chosen.is_empty());
            let elsewhere = chosen.is_some_and(|chosen| chosen.iter().all(|service| !services.contains(service)));
            if !(elsewhere && backend.state == Some(BackendState::Draining)) {
                backend.state = state(entry);
            }
            backend.flows = self.counts.by_backend.get(id).copied().unwrap_or(0);
        }
        backend
    }

    fn numbered_service(&self, id: u32) -> Service {
        let ids = BTreeSet::from([id]);
        let frontends = || {
            self.tables
                .frontends
                .iter()
                .filter(|(_, f)| f.service == id)
                .map(|(key, _)| key)
        };
        let tasks: Vec<_> = self
            .chosen_by
            .iter()
            .filter(|(_, services)| services.contains(&id))
            .filter_map(|(backend, _)| self.numbered_backend(*backend))
            .collect();
        let target = tasks.first().and_then(|b| b.port);
        let vip = frontends().find(|key| key.network != NETWORK_NODE);
        let mut vips: Vec<_> = frontends()
            .filter(|key| key.network != NETWORK_NODE)
            .map(|key| key.address.to_ip())
            .collect();
        vips.dedup();
        let mut published: Vec<_> = frontends()
            .filter(|key| key.network == NETWORK_NODE)
            .map(|key| Some(key.port))
            .collect();
        published.dedup();
        if published.is_empty() {
            published.push(None);
        }
        let protocol = frontends().next().and_then(|key| Protocol::from_number(key.protocol));
        let ports = published.into_iter().filter_map(|published| {
            Some(Port {
                protocol: protocol?,
                port: vip.map(|key| key.port),
                target,
                published,
            })
        });
        let draining = tasks.iter().filter(|b| b.state == Some(BackendState::Draining)).count() as u32;
        let ready = tasks.iter().filter(|b| b.state == Some(BackendState::Ready)).count() as u32;
        Service {
            network_id: Some(vip.map_or(NETWORK_NODE, |key| key.network)),
            vips,
            ports: ports.collect(),
            backends: BackendCount {
                ready,
                draining,
                total: tasks.len() as u32,
            },
            flows: self.flows(&ids),
            traffic: self.traffic(&ids),
            ids: vec![id],
            tasks,
            ..Default::default()
        }
    }

    fn numbered_backend(&self, id: u32) -> Option<Backend> {
        let entry = self.tables.backends.get(&id)?;
        let services = self
            .chosen_by
            .get(&id)
            .map(|ids| ids.iter().map(|id| format!("id {id}")).collect::<Vec<_>>());
        Some(Backend {
            id: Some(id),
            service: services.map(|s| s.join(", ")),
            network_id: Some(entry.network),
            node: Some(self.node(entry.node)),
            local: entry.flags & BACKEND_LOCAL != 0,
            address: Some(entry.address.to_ip()),
            port: Some(entry.port),
            protocol: Protocol::from_number(entry.protocol),
            state: state(entry),
            flows: self.counts.by_backend.get(&id).copied().unwrap_or(0),
            ..Default::default()
        })
    }

    fn flows(&self, ids: &BTreeSet<u32>) -> u64 {
        ids.iter().filter_map(|id| self.counts.by_service.get(id)).sum()
    }

    fn traffic(&self, ids: &BTreeSet<u32>) -> ServiceTraffic {
        let mut sum = ServiceTraffic::default();
        for one in ids.iter().filter_map(|id| self.traffic.get(id)) {
            sum.flows_total += one.flows;
            sum.packets_total += one.packets;
            sum.bytes_total += one.bytes;
            sum.reply_packets_total += one.reply_packets;
            sum.reply_bytes_total += one.reply_bytes;
        }
        sum
    }

    /// The name of a node, or its address, or its number.
    fn node(&self, id: u32) -> String {
        let Some(node) = self.tables.nodes.get(&id) else {
            return format!("id {id}");
        };
        let addresses: Vec<IpAddr> = [node.tunnel_v4, node.tunnel_v6]
            .into_iter()
            .filter_map(specified)
            .collect();
        let named = self.snapshot.and_then(|snapshot| {
            snapshot
                .nodes
                .iter()
                .find(|n| addresses.iter().any(|address| n.addresses.contains(address)))
        });
        match (named, addresses.first()) {
            (Some(node), _) => node.name.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) if node.flags & NODE_LOCAL != 0 => "local".into(),
            (None, None) => format!("id {id}"),
        }
    }

    /// Names for flows. Separate, because names are looked up once and flows are many.
    pub fn flow_names(&self) -> FlowNames<'_> {
        let services = match self.snapshot {
            Some(snapshot) => snapshot
                .services
                .iter()
                .flat_map(|s| {
                    self.ids(s, network_id(snapshot, &s.network))
                        .into_iter()
                        .map(|id| (id, s.name.clone()))
                })
                .collect(),
            None => HashMap::new(),
        };
        let nodes = self.tables.nodes.keys().map(|id| (*id, self.node(*id))).collect();
        FlowNames {
            tables: self.tables,
            services,
            nodes,
        }
    }
}

fn endpoint(address: Address, network: u32, port: u16, protocol: u8) -> EndpointKey {
    EndpointKey {
        address,
        network,
        port,
        protocol,
        family: if address.is_v4() { 4 } else { 6 },
    }
}

fn network_id(snapshot: &Snapshot, name: &str) -> Option<u32> {
    snapshot.networks.iter().find(|n| n.name == name).map(|n| n.id)
}

fn state(backend: &abi::Backend) -> Option<BackendState> {
    match backend.state {
        BACKEND_GONE => None,
        BACKEND_DRAINING => Some(BackendState::Draining),
        _ => Some(BackendState::Ready),
    }
}
