//! The backends of a balanced set: which of them take new flows, and how packets get to each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::abi::{EndpointKey, NETWORK_NODE};
use lb_common::address::Address;

use super::super::Backend;
use super::{Compiler, Listener, of_family};
use crate::model::snapshot::{self, BackendState, Network};

impl Compiler<'_> {
    /// Adds the backends of a listener; returns those that take new flows: the ready ones, or the draining ones
    /// while no other is there; and the others.
    pub(super) fn members(
        &mut self,
        listener: &Listener<'_>,
        local: bool,
    ) -> (Vec<(EndpointKey, u16)>, Vec<EndpointKey>) {
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
/// The MAC address that Docker's overlay driver gives to an IPv4 address (`netutils.GenerateMACFromIP` of libnetwork).
pub(crate) fn overlay_mac(address: Address) -> [u8; 6] {
    let [a, b, c, d] = address.v4_bytes();
    [0x02, 0x42, a, b, c, d]
}
