//! [`NetworkNames`]: the names of one network, and the services that lay claim to each.
//!
//! A claim leads to the service itself; what a name stands for is worked out when it is asked for. So a name costs some
//! bytes, and a changed service changes its own names and no other.

use std::net::IpAddr;
use std::sync::Arc;

use super::shards::Shards;
use super::zone::{Fitness, NameKind};
use crate::model::snapshot::{BackendState, EndpointMode, Network, Service};

/// The names of one network, in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct NetworkNames {
    pub(super) name: String,
    /// Swarm's mesh: no service has a name there.
    pub(super) ingress: bool,
    names: Shards<Box<str>, Claims>,
    pointers: Shards<IpAddr, Claims>,
    /// Names that some service has, so that there is a `tasks.` form of them too.
    services: usize,
}

/// A name, or an address, of a service.
#[derive(Clone, Debug)]
struct Claim {
    service: Arc<Service>,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The service's own name or alias.
    Service,
    /// That of one of its backends.
    Task(u32),
}

/// Everyone who claims one name; nearly always one.
#[derive(Clone, Debug)]
enum Claims {
    One(Claim),
    Several(Vec<Claim>),
}

/// A name and its addresses, both families.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: NameKind,
    pub(super) records: Vec<Record<'a>>,
}

/// One address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record<'a> {
    pub(super) address: IpAddr,
    pub(super) service: &'a str,
    /// The backend whose address it is; none: a VIP.
    pub(super) task: Option<&'a str>,
    pub(super) fitness: Fitness,
}

impl Claims {
    fn list(&self) -> &[Claim] {
        match self {
            Self::One(claim) => std::slice::from_ref(claim),
            Self::Several(claims) => claims,
        }
    }

    fn of(mut list: Vec<Claim>) -> Option<Self> {
        match list.len() {
            0 => None,
            1 => list.pop().map(Self::One),
            _ => Some(Self::Several(list)),
        }
    }

    fn services(&self) -> impl Iterator<Item = &Service> + Clone {
        let own = self.list().iter().filter(|claim| claim.role == Role::Service);
        own.map(|claim| &*claim.service)
    }
}

impl NetworkNames {
    /// Of a network that will have about so many names.
    pub(super) fn new(network: &Network, names: usize) -> Self {
        Self {
            name: network.name.clone(),
            ingress: network.ingress,
            names: Shards::for_length(names),
            pointers: Shards::for_length(names),
            services: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len() + self.services
    }

    pub(super) fn is_misfit(&self) -> bool {
        self.names.is_misfit() || self.pointers.is_misfit()
    }

    /// Adds a service's names.
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        let add = |claims: Option<Claims>, role: Role| {
            let mut list = claims.as_ref().map(|claims| claims.list().to_vec()).unwrap_or_default();
            let same = |claim: &Claim| claim.role == role && Arc::ptr_eq(&claim.service, service);
            if !list.iter().any(same) {
                let service = Arc::clone(service);
                list.push(Claim { service, role });
            }
            Claims::of(list)
        };
        for (name, role) in names_of(service) {
            self.change(name, |claims| add(claims, role));
        }
        for (address, role) in addresses_of(service) {
            self.pointers.change(address, |claims| add(claims, role));
        }
    }

    /// Takes a service's names away.
    pub(super) fn remove(&mut self, service: &Arc<Service>) {
        let remove = |claims: Option<Claims>| {
            let others = claims.as_ref().map(Claims::list).unwrap_or_default().iter();
            let others = others.filter(|claim| !Arc::ptr_eq(&claim.service, service));
            Claims::of(others.cloned().collect())
        };
        for (name, _) in names_of(service) {
            self.change(name, remove);
        }
        for (address, _) in addresses_of(service) {
            self.pointers.change(address, remove);
        }
    }

    fn change(&mut self, name: Box<str>, change: impl FnOnce(Option<Claims>) -> Option<Claims>) {
        let services = &mut self.services;
        self.names.change(name, |before| {
            let count = |claims: &Option<Claims>| {
                let service = claims.as_ref().and_then(|claims| claims.services().next());
                usize::from(service.is_some())
            };
            *services -= count(&before);
            let after = change(before);
            *services += count(&after);
            after
        });
    }

    /// What a name in lower case stands for: a service hides the `tasks.` form, which hides a task.
    pub(super) fn entry(&self, name: &str) -> Option<Entry<'_>> {
        let claims = self.names.get(name);
        if let Some(mut services) = claims.map(Claims::services)
            && let Some(first) = services.next()
        {
            let mut records = Vec::new();
            for service in std::iter::once(first).chain(services) {
                answered(service, &mut records);
            }
            return Some(Entry {
                kind: NameKind::Service,
                records: fittest(records),
            });
        }
        let of_tasks = name.strip_prefix("tasks.").and_then(|name| self.names.get(name));
        if let Some(mut services) = of_tasks.map(Claims::services)
            && let Some(first) = services.next()
        {
            let mut records = Vec::new();
            for service in std::iter::once(first).chain(services) {
                tasks(service, &mut records);
            }
            return Some(Entry {
                kind: NameKind::Tasks,
                records: fittest(records),
            });
        }
        let mut records = Vec::new();
        for claim in claims?.list() {
            if let Role::Task(index) = claim.role {
                task(&claim.service, index as usize, &mut records);
            }
        }
        Some(Entry {
            kind: NameKind::Task,
            records: fittest(records),
        })
    }

    /// The names of the tasks that have an address, with the network behind them.
    pub(super) fn pointers(&self, address: IpAddr) -> Option<Vec<String>> {
        let network = self.name.to_ascii_lowercase();
        let claims = self.pointers.get(&address)?.list().iter();
        let mut targets: Vec<_> = claims
            .filter_map(|claim| match claim.role {
                Role::Task(index) => claim.service.backends.get(index as usize),
                Role::Service => None,
            })
            .map(|backend| format!("{}.{network}", backend.name.to_ascii_lowercase()))
            .filter(|target| super::message::wire_name(target).is_some())
            .collect();
        targets.sort();
        targets.dedup();
        (!targets.is_empty()).then_some(targets)
    }
}

/// Every name of a service and its backends; some perhaps more than once.
fn names_of(service: &Service) -> impl Iterator<Item = (Box<str>, Role)> {
    let own = std::iter::once(&service.name).chain(&service.aliases);
    let own = own.map(|name| (name, Role::Service));
    let backends = service.backends.iter().zip(0..).flat_map(|(backend, index)| {
        let names = std::iter::once(&backend.name).chain(&backend.aliases);
        names.map(move |name| (name, Role::Task(index)))
    });
    own.chain(backends)
        .map(|(name, role)| (name.to_ascii_lowercase().into(), role))
}

fn addresses_of(service: &Service) -> impl Iterator<Item = (IpAddr, Role)> {
    service.backends.iter().zip(0..).flat_map(|(backend, index)| {
        let addresses = backend.addresses.iter();
        addresses.map(move |address| (*address, Role::Task(index)))
    })
}

/// The addresses that a service's name stands for.
fn answered<'a>(service: &'a Service, records: &mut Vec<Record<'a>>) {
    // A service that is only published has no VIP: its backends are all that its name can stand for.
    if service.mode != EndpointMode::Vip || service.vips.is_empty() {
        return tasks(service, records);
    }
    let states = service.backends.iter().filter(|backend| !backend.addresses.is_empty());
    let fitness = states
        .map(|backend| fitness(backend.state))
        .min()
        .unwrap_or(Fitness::Empty);
    records.extend(service.vips.iter().map(|address| Record {
        address: *address,
        service: &service.name,
        task: None,
        fitness,
    }));
}

fn tasks<'a>(service: &'a Service, records: &mut Vec<Record<'a>>) {
    for index in 0..service.backends.len() {
        task(service, index, records);
    }
}

fn task<'a>(service: &'a Service, index: usize, records: &mut Vec<Record<'a>>) {
    let Some(backend) = service.backends.get(index) else {
        return;
    };
    records.extend(backend.addresses.iter().map(|address| Record {
        address: *address,
        service: &service.name,
        task: Some(&backend.name),
        fitness: fitness(backend.state),
    }));
}

const fn fitness(state: BackendState) -> Fitness {
    match state {
        BackendState::Ready => Fitness::Ready,
        BackendState::Draining => Fitness::Draining,
    }
}

/// Of each family the records of the best fitness, each address once.
fn fittest(mut records: Vec<Record<'_>>) -> Vec<Record<'_>> {
    let best = |v4: bool| {
        let family = records.iter().filter(|r| r.address.is_ipv4() == v4);
        family.map(|r| r.fitness).min()
    };
    let (best_v4, best_v6) = (best(true), best(false));
    records.retain(|r| Some(r.fitness) == if r.address.is_ipv4() { best_v4 } else { best_v6 });
    records.sort_unstable();
    records.dedup_by_key(|record| record.address);
    records
}
