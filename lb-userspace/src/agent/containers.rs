//! Where this node's containers are attached: the interfaces in Docker's own namespaces that get programs, and how packets
//! get to each container.
//!
//! A VIP is translated where its client sends, on the bridge ports inside the namespaces of overlay networks; a published
//! port is delivered on the gateway bridge, whose ports are in the node's own namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lb_common::address::Address;

use crate::datapath::attach::WorkloadInterface;
use crate::model::desired::{self, Reach};
use crate::net::netns::Namespace;
use crate::net::{Link, NetError, Netlink};
use crate::provider::docker::Local;
use crate::provider::docker::local::{Container, Endpoint};

/// Docker's bridge over which containers in overlays reach the world outside.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// What was found of the local containers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Interfaces that get programs.
    pub(super) workloads: Vec<WorkloadInterface>,
    /// How packets get to their addresses.
    pub(super) reach: desired::Interfaces,
    /// What is in the way, in the operator's words.
    pub(super) problems: Vec<String>,
}

/// Finds them, and remembers what does not change.
#[derive(Debug)]
pub(super) struct Finder {
    /// The engine's directory of namespaces.
    directory: PathBuf,
    /// Sockets inside namespaces, by their cookies.
    netlinks: BTreeMap<u64, Netlink>,
    /// Node's side of containers' interfaces on the gateway bridge, by namespace and MAC address.
    ports: BTreeMap<(String, [u8; 6]), u32>,
}

impl Finder {
    /// Below the engine's exec root.
    pub(super) fn new(exec_root: &Path) -> Self {
        Self {
            directory: exec_root.join("netns"),
            netlinks: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Looks at everything that `local` names. `links` are those of the node's own namespace.
    pub(super) async fn find(&mut self, local: &Local, links: &[Link]) -> Found {
        let mut found = Found::default();
        for link in gateway_ports(links) {
            found.workloads.push(WorkloadInterface {
                namespace: Namespace::NODE,
                link: link.clone(),
                network: String::new(),
            });
        }
        let mut used = Vec::new();
        for network in local.networks.iter().filter(|n| !n.ingress && n.number.is_some()) {
            let Ok(namespace) = Namespace::open(&self.directory.join(&network.sandbox)) else {
                // Nobody of that network is here.
                continue;
            };
            used.push(namespace.cookie());
            match self.links(&namespace).await {
                Ok(links) => {
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
        self.netlinks.retain(|cookie, _| used.contains(cookie));
        self.ports
            .retain(|(sandbox, _), _| local.containers.iter().any(|container| container.sandbox == *sandbox));
        for container in &local.containers {
            let gateway = match container.gateway {
                Some((address, mac)) => match self.port(container, mac, links).await {
                    Ok(Some(ifindex)) => Some(Reach {
                        ifindex,
                        mac,
                        delivery: Some(address.into()),
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
        found
    }

    async fn links(&mut self, namespace: &Namespace) -> Result<Vec<Link>, NetError> {
        let netlink = match self.netlinks.get(&namespace.cookie()) {
            Some(netlink) => netlink.clone(),
            None => {
                let netlink = Netlink::connect_in(namespace)?;
                self.netlinks.insert(namespace.cookie(), netlink.clone());
                netlink
            }
        };
        netlink.links().await
    }

    /// Node's side of the container's interface with this MAC address on the gateway bridge.
    async fn port(&mut self, container: &Container, mac: [u8; 6], links: &[Link]) -> Result<Option<u32>, NetError> {
        let key = (container.sandbox.clone(), mac);
        let there = |ifindex: u32| gateway_ports(links).any(|link| link.ifindex == ifindex);
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

/// Ports of the gateway bridge.
fn gateway_ports(links: &[Link]) -> impl Iterator<Item = &Link> {
    let bridge = links
        .iter()
        .find(|link| link.name == GATEWAY_BRIDGE)
        .map(|link| link.ifindex);
    links
        .iter()
        .filter(move |link| bridge.is_some() && link.master == bridge && link.is_veth())
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
