//! To which backends on other nodes the overlays of this node know the way. Docker spreads that by gossip, which may come later
//! than the cluster state.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::address::Address;

use super::lead::{is_ready, without};
use crate::model::desired::overlay_mac;
use crate::model::snapshot::{Backend, Service, Snapshot};

/// MAC addresses on other nodes, by network id.
pub(super) type Carried = BTreeMap<u32, BTreeSet<[u8; 6]>>;

/// The snapshot without the ready backends on other nodes to which their overlay does not know the way yet, where a service
/// has another one. `None`: it knows them all.
pub(super) fn hold(snapshot: &Snapshot, node: &str, carried: &Carried) -> Option<Snapshot> {
    let judge = |service: &Service| {
        let network = snapshot.networks.iter().find(|network| network.name == service.network);
        let known = network.filter(|n| n.overlay).and_then(|n| carried.get(&n.id))?;
        Some(|backend: &Backend| {
            let addresses = backend.addresses.iter().copied().map(Address::from);
            let mut v4 = addresses.filter(Address::is_v4);
            v4.any(|address| !known.contains(&overlay_mac(address)))
        })
    };
    without(snapshot, node, judge, is_ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fixtures::{backend, web};
    use crate::model::snapshot::Network;

    #[test]
    fn new_backends_wait_until_their_overlay_knows_the_way() {
        let backend = |host: u8, node: &str| backend(&format!("web.{host}"), node, &format!("10.0.1.{host}"));
        let network = Network {
            name: "shop".into(),
            id: 4097,
            subnets: Vec::new(),
            encrypted: false,
            overlay: true,
            ingress: false,
        };
        let snapshot = Snapshot {
            networks: vec![network],
            services: vec![web("shop", vec![backend(5, "n1"), backend(6, "n2"), backend(7, "n3")])].into(),
            ..Snapshot::default()
        };
        let names = |held: &Snapshot| {
            held.services[0]
                .backends
                .iter()
                .map(|b| b.name.clone())
                .collect::<Vec<_>>()
        };
        let mac = |host| [0x02, 0x42, 10, 0, 1, host];
        let knows = |macs: &[[u8; 6]]| Carried::from([(4097, macs.iter().copied().collect())]);
        assert_eq!(hold(&snapshot, "n1", &Carried::new()), None, "the network is not here");
        assert_eq!(hold(&snapshot, "n1", &knows(&[mac(6), mac(7)])), None);
        let held = hold(&snapshot, "n1", &knows(&[mac(6)])).unwrap();
        assert_eq!(names(&held), ["web.5", "web.6"]);
        assert_eq!(names(&hold(&snapshot, "n1", &knows(&[])).unwrap()), ["web.5"]);
        assert_eq!(hold(&snapshot, "n4", &knows(&[])), None, "better a late one than none");
    }
}
