//! From a [`Snapshot`] to one node's [`Desired`].

mod listener;
mod members;
mod set;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{EndpointKey, VipKey};
use lb_common::address::Address;

use super::{Desired, Family, Interfaces, Node, REFUSED_ENCRYPTED, Refusal, UnknownNode};
use crate::model::snapshot::{self, BackendState, EndpointMode, Snapshot};
use listener::{Listener, every_port};
pub(crate) use members::overlay_mac;

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
}

fn of_family(addresses: &[IpAddr], family: Family) -> Option<Address> {
    addresses
        .iter()
        .find(|a| Family::of(**a) == family)
        .map(|a| (*a).into())
}
