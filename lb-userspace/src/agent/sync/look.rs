//! Looks at the node itself: its interfaces, addresses, neighbours and containers. What the kernel shall hold depends on
//! them as much as on the snapshot.

use std::sync::Arc;

use anyhow::Result;
use ipnet::Ipv4Net;

use super::{Basis, Cluster, Inputs, Synchronizer};
use crate::agent::surroundings::{self, Oddity};
use crate::agent::{carried, loopback, reported};
use crate::datapath::attach::Interfaces;
use crate::net::Link;

impl Synchronizer {
    /// All that is to be in force, where programs belong, and what is not served.
    ///
    /// # Errors
    /// If the kernel does not say what there is.
    pub(super) async fn look(&mut self, cluster: &Cluster<'_>) -> Result<(Inputs, Interfaces, Vec<Oddity>)> {
        let Cluster { node, snapshot, local } = *cluster;
        self.routes.clear();
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses().await?;
        let (mut interfaces, mut odd) = surroundings::choose(&self.config, node, snapshot, &links, &addresses);
        if interfaces.host.is_some()
            && let Err(error) = loopback::prepare(&self.config.paths.run)
        {
            interfaces.host = None;
            odd.push(Oddity::new(
                "",
                format!("the node's own processes are not answered on published ports: {error:#}"),
            ));
        }
        let bridge = self.gateway_bridge(&links).await?;
        let (masquerade, unfit) =
            surroundings::Masquerade::new(&self.config, surroundings::own_addresses(node, snapshot), bridge);
        odd.extend(unfit);
        let backends = surroundings::local_backends(node, &snapshot.networks, &snapshot.services);
        let addresses = backends.iter().map(|(ip, _)| *ip);
        let places = self.netlink.places(&links, addresses, &mut self.routes).await?.places;
        let (mut known, unserved) = surroundings::backend_interfaces(&places, &backends, &interfaces, &links);
        odd.extend(unserved);
        // What the other nodes' agents have is in the snapshot itself: it changes when they have more.
        let served = match reported::hold(snapshot, node).map(Arc::new) {
            Some(rest) => {
                odd.extend(reported::held(snapshot, &rest).into_iter().map(|(node, count)| {
                    let reason =
                        format!("{count} backends on {node} wait until its agent has them; does it run there?");
                    Oddity::new("", reason)
                }));
                rest
            }
            None => Arc::clone(snapshot),
        };
        let mut held = None;
        if let Some(finder) = &mut self.finder {
            let ports = interfaces.workloads.iter().filter(|w| w.network.is_empty());
            let ports = ports.map(|w| w.link.ifindex).collect();
            let found = finder.find(local, &ports).await;
            // A network that the snapshot does not have yet is attached with it.
            let there = |name: &str| snapshot.networks.iter().any(|n| n.name == name);
            interfaces
                .workloads
                .extend(found.workloads.into_iter().filter(|w| there(&w.network)));
            known.extend(found.reach);
            held = carried::hold(&served, node, &found.carried).map(Arc::new);
            odd.extend(found.problems.into_iter().map(|problem| Oddity::new("", problem)));
        }
        self.waiting = held.is_some();
        let inputs = Inputs {
            basis: Arc::new(Basis {
                snapshot: held.unwrap_or(served),
                node: node.to_owned(),
                known: Arc::new(known),
            }),
            links,
            rows: surroundings::interface_rows(&interfaces, snapshot),
            settings: surroundings::settings(&self.config, &interfaces, self.features, &masquerade),
        };
        Ok((inputs, interfaces, odd))
    }

    /// The subnet of the bridge over which workloads reach the outside.
    async fn gateway_bridge(&self, links: &[Link]) -> Result<Option<Ipv4Net>> {
        match surroundings::gateway_bridge(&self.config, links) {
            Some(link) => Ok(self.netlink.subnet(link.ifindex).await?),
            None => Ok(None),
        }
    }
}
