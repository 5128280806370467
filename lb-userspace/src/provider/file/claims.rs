//! What services of one document take for themselves: names, VIPs, backends' addresses, published ports.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::names;
use crate::model::snapshot::{Protocol, Service};

/// What is taken, and of backends' addresses by which node and how often.
#[derive(Debug, Default)]
pub(super) struct Claims {
    networks: HashMap<String, u32>,
    nodes: HashMap<String, u32>,
    names: HashSet<(u32, Box<str>)>,
    vips: HashSet<(u32, IpAddr)>,
    backends: HashMap<(u32, IpAddr), (u32, u32)>,
    ports: HashSet<(u16, Protocol)>,
}

impl Claims {
    /// Nothing is taken but `reserved`.
    pub(super) fn new<'a>(
        nodes: impl Iterator<Item = &'a str>,
        networks: impl Iterator<Item = &'a str>,
        reserved: (u16, Protocol),
    ) -> Self {
        let numbered = |(name, number): (&str, u32)| (name.to_owned(), number);
        Self {
            nodes: nodes.zip(0..).map(numbered).collect(),
            networks: networks.zip(0..).map(numbered).collect(),
            ports: HashSet::from([reserved]),
            ..Self::default()
        }
    }

    /// Ports that the document names.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.ports.iter().copied()
    }

    /// Takes what `service` needs, which by itself is valid. False: something is taken already, and nothing was done.
    #[must_use]
    pub(super) fn take(&mut self, service: &Service, automatic: &[usize]) -> bool {
        let Some(&network) = self.networks.get(&service.network) else {
            return false;
        };
        let backend = |name: &str, address: IpAddr| Some(((network, address), *self.nodes.get(name)?));
        let backends = service.backends.iter().flat_map(|b| {
            let addresses = b.addresses.iter();
            addresses.map(|address| backend(&b.node, *address))
        });
        let Some(backends) = backends.collect::<Option<Vec<_>>>() else {
            return false;
        };
        let elsewhere = |(key, node): &((u32, IpAddr), u32)| {
            self.vips.contains(key) || self.backends.get(key).is_some_and(|(there, _)| there != node)
        };
        let taken = |vip: &IpAddr| {
            let key = (network, *vip);
            self.vips.contains(&key) || self.backends.contains_key(&key) || backends.iter().any(|(b, _)| *b == key)
        };
        if own_names(service).any(|name| self.names.contains(&(network, name)))
            || backends.iter().any(elsewhere)
            || service.vips.iter().any(taken)
            || named_ports(service, automatic).any(|port| self.ports.contains(&port))
        {
            return false;
        }
        self.names.extend(own_names(service).map(|name| (network, name)));
        for (key, node) in backends {
            self.backends.entry(key).or_insert((node, 0)).1 += 1;
        }
        self.vips.extend(service.vips.iter().map(|vip| (network, *vip)));
        self.ports.extend(named_ports(service, automatic));
        true
    }

    /// Gives back what `service` has taken.
    pub(super) fn give_back(&mut self, service: &Service, automatic: &[usize]) {
        let Some(&network) = self.networks.get(&service.network) else {
            return;
        };
        for name in own_names(service) {
            self.names.remove(&(network, name));
        }
        for address in service.backends.iter().flat_map(|backend| &backend.addresses) {
            let key = (network, *address);
            if let Some((_, count)) = self.backends.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.backends.remove(&key);
                }
            }
        }
        for vip in &service.vips {
            self.vips.remove(&(network, *vip));
        }
        for port in named_ports(service, automatic) {
            self.ports.remove(&port);
        }
    }
}

/// Name and aliases, as they are compared.
fn own_names(service: &Service) -> impl Iterator<Item = Box<str>> {
    let names = std::iter::once(&service.name).chain(&service.aliases);
    names.map(|name| names::fold(name).into())
}

/// Published ports that are not chosen by us.
fn named_ports(service: &Service, automatic: &[usize]) -> impl Iterator<Item = (u16, Protocol)> {
    let named = |(index, _): &(usize, _)| !automatic.contains(index);
    let ports = service.ports.iter().enumerate().filter(named);
    ports.filter_map(|(_, port)| Some((port.published?, port.protocol)))
}
