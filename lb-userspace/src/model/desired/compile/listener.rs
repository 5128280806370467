//! One port of a service: what clients speak to, and which balanced set answers.

use std::collections::btree_map::Entry;

use lb_common::abi::{EndpointKey, NETWORK_NODE, VipKey};
use lb_common::address::Address;

use super::super::{Family, ServiceKey};
use super::{Compiler, of_family};
use crate::model::snapshot::{self, Network, Port, Protocol};

/// One port of one service in one family.
pub(super) struct Listener<'a> {
    pub(super) network: &'a Network,
    pub(super) service: &'a snapshot::Service,
    pub(super) port: &'a Port,
    pub(super) family: Family,
}

impl Compiler<'_> {
    /// The frontends of one port in one family, and the sets behind them.
    pub(super) fn listener(&mut self, listener: &Listener<'_>) {
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
}

impl Listener<'_> {
    pub(super) fn key(&self, local: bool) -> ServiceKey {
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

/// The ports that stand for all the others.
pub(super) fn every_port(service: &snapshot::Service) -> &'static [Port] {
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
