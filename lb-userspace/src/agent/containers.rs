//! Where this node's containers are attached: the interfaces in Docker's own namespaces that get programs, and how packets
//! get to each container.
//!
//! A VIP is translated where its client sends, on the bridge ports inside the namespaces of overlay networks; a published
//! port is delivered on the gateway bridge, whose ports are in the node's own namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lb_common::address::Address;

use super::carried::Carried;
use crate::datapath::attach::WorkloadInterface;
use crate::model::desired::{self, Reach};
use crate::net::netns::Namespace;
use crate::net::{Link, NetError, Netlink};
use crate::provider::docker::Local;
use crate::provider::docker::local::{Container, Endpoint};

/// What was found of the local containers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Interfaces that get programs.
    pub(super) workloads: Vec<WorkloadInterface>,
    /// How packets get to their addresses.
    pub(super) reach: desired::Interfaces,
    /// MAC addresses on other nodes to which the overlay networks of this node know the way, by network.
    pub(super) carried: Carried,
    /// What is in the way, in the operator's words.
    pub(super) problems: Vec<String>,
}

/// Interface indexes of the gateway bridge's ports.
pub(super) type Ports = BTreeSet<u32>;

/// Finds them, and remembers what does not change.
#[derive(Debug)]
pub(super) struct Finder {
    /// The engine's directory of namespaces.
    directory: PathBuf,
    /// Node's side of containers' interfaces on the gateway bridge, by namespace and MAC address.
    ports: BTreeMap<(String, [u8; 6]), u32>,
    /// Where published ports were delivered to last.
    delivered: desired::Interfaces,
}

impl Finder {
    /// Below the engine's exec root.
    pub(super) fn new(exec_root: &Path) -> Self {
        Self {
            directory: exec_root.join("netns"),
            ports: BTreeMap::new(),
            delivered: desired::Interfaces::new(),
        }
    }

    /// Looks at everything that `local` names. `ports` are those of the gateway bridge.
    pub(super) async fn find(&mut self, local: &Local, ports: &Ports) -> Found {
        let mut found = Found::default();
        for network in local.networks.iter().filter(|n| !n.ingress) {
            let Some(number) = network.number else { continue };
            let Ok(namespace) = Namespace::open(&self.directory.join(&network.sandbox)) else {
                // Nobody of that network is here.
                continue;
            };
            match look(&namespace).await {
                Ok((links, carried)) => {
                    found.carried.insert(number, carried);
                    let ports = links.into_iter().filter(|link| link.is_veth() && link.master.is_some());
                    found.workloads.extend(ports.map(|link| WorkloadInterface {
                        namespace: namespace.clone(),
                        link,
                        network: network.name.clone(),
                    }));
                }
                Err(error) => found.problems.push(format!("network {}: {error}", network.name)),
            }
        }
        self.ports
            .retain(|(sandbox, _), _| local.containers.iter().any(|container| container.sandbox == *sandbox));
        for container in &local.containers {
            let gateway = match container.gateway {
                Some((address, mac)) => match self.port(container, mac, ports).await {
                    Ok(Some(ifindex)) => Some(Reach {
                        ifindex,
                        mac,
                        delivery: Some(address.into()),
                        leaving: false,
                    }),
                    Ok(None) => None,
                    Err(error) => {
                        found.problems.push(format!("container {}: {error}", container.name));
                        None
                    }
                },
                None => None,
            };
            for endpoint in &container.endpoints {
                if let Some((key, reach)) = reach(local, endpoint, gateway) {
                    found.reach.insert(key, reach);
                }
            }
        }
        self.linger(&mut found.reach, ports);
        found
    }

    /// The engine stops naming a container before its last answers are out: as long as its interface is there, they are
    /// translated.
    fn linger(&mut self, reach: &mut desired::Interfaces, ports: &Ports) {
        for (key, before) in &self.delivered {
            let there = ports.contains(&before.ifindex);
            let taken = reach.values().any(|now| now.ifindex == before.ifindex);
            if there && !taken && !reach.contains_key(key) {
                let leaving = Reach {
                    leaving: true,
                    ..*before
                };
                reach.insert(*key, leaving);
            }
        }
        self.delivered = reach
            .iter()
            .filter(|(_, reach)| reach.delivery.is_some())
            .map(|(k, r)| (*k, *r))
            .collect();
    }

    /// Node's side of the container's interface with this MAC address on the gateway bridge.
    async fn port(&mut self, container: &Container, mac: [u8; 6], ports: &Ports) -> Result<Option<u32>, NetError> {
        let key = (container.sandbox.clone(), mac);
        let there = |ifindex: u32| ports.contains(&ifindex);
        if let Some(ifindex) = self.ports.get(&key).copied().filter(|ifindex| there(*ifindex)) {
            return Ok(Some(ifindex));
        }
        let namespace = Namespace::open(&self.directory.join(&container.sandbox))?;
        let inside = Netlink::connect_in(&namespace)?.links().await?;
        let own = inside.into_iter().find(|link| link.mac == Some(mac));
        let ifindex = own.and_then(|link| link.peer).filter(|ifindex| there(*ifindex));
        if let Some(ifindex) = ifindex {
            self.ports.insert(key, ifindex);
        }
        Ok(ifindex)
    }
}

/// Interfaces of an overlay's namespace, and to whom it knows the way. The socket is not kept: it would keep the namespace.
async fn look(namespace: &Namespace) -> Result<(Vec<Link>, BTreeSet<[u8; 6]>), NetError> {
    let netlink = Netlink::connect_in(namespace)?;
    Ok((netlink.links().await?, netlink.tunnelled().await?))
}

/// How packets get to one endpoint: to its place on the gateway bridge where published ports lead, else as its network
/// carries them. `None`: they do not, yet.
fn reach(local: &Local, endpoint: &Endpoint, gateway: Option<Reach>) -> Option<((u32, Address), Reach)> {
    let network = local.networks.iter().find(|network| network.id == endpoint.network)?;
    let key = (network.number?, Address::from(endpoint.address));
    if network.ingress {
        return Some((key, gateway?));
    }
    let inside = Reach {
        ifindex: 0,
        mac: endpoint.mac,
        delivery: None,
        leaving: false,
    };
    Some((key, inside))
}

/// Addresses of the node's own interfaces on which published ports are answered: not those of bridges and their ports, where
/// containers are, nor such as mean nothing to other nodes.
pub(super) fn node_addresses(links: &[Link], addresses: &[(u32, IpAddr)]) -> Vec<IpAddr> {
    let own = |ifindex: u32| {
        links
            .iter()
            .any(|link| link.ifindex == ifindex && !link.loopback && !link.is_bridge() && link.master.is_none())
    };
    let mut found: Vec<IpAddr> = addresses
        .iter()
        .filter(|(ifindex, address)| own(*ifindex) && !is_link_local(*address))
        .map(|(_, address)| *address)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, kind: &str, master: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            kind: Some(kind.into()),
            mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
            mtu: 1500,
            up: true,
            loopback: false,
            master,
            peer_elsewhere: true,
            peer: None,
        }
    }

    fn links() -> Vec<Link> {
        vec![
            link(2, "eth0", "veth", None),
            link(3, "docker_gwbridge", "bridge", None),
            link(4, "veth1", "veth", Some(3)),
            link(5, "br-other", "bridge", None),
            link(6, "veth2", "veth", Some(5)),
        ]
    }

    #[test]
    fn a_nodes_addresses_are_not_those_of_its_bridges() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = [
            (2, ip("192.0.2.1")),
            (2, ip("fe80::1")),
            (3, ip("172.18.0.1")),
            (4, ip("192.0.2.9")),
        ];
        assert_eq!(node_addresses(&links(), &addresses), [ip("192.0.2.1")]);
    }

    #[test]
    fn what_is_leaving_is_delivered_to_while_its_interface_is_there() {
        let mut finder = Finder::new(Path::new("/nowhere"));
        let key = |host| (4096, Address::v4([10, 0, 0, host]));
        let at = |ifindex| Reach {
            ifindex,
            mac: [2; 6],
            delivery: Some(Address::v4([172, 18, 0, 3])),
            leaving: false,
        };
        let mut reach = desired::Interfaces::from([(key(5), at(4))]);
        finder.linger(&mut reach, &Ports::from([4]));
        // The engine does not name it any more.
        let mut reach = desired::Interfaces::new();
        finder.linger(&mut reach, &Ports::from([4]));
        let leaving = Reach { leaving: true, ..at(4) };
        assert_eq!(reach, desired::Interfaces::from([(key(5), leaving)]));
        // Another container has its interface.
        let mut reach = desired::Interfaces::from([(key(6), at(4))]);
        finder.linger(&mut reach, &Ports::from([4]));
        assert_eq!(reach.len(), 1);
        // The interface is gone.
        let mut reach = desired::Interfaces::new();
        finder.linger(&mut reach, &Ports::new());
        assert!(reach.is_empty());
    }
}
