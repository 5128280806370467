//! The cluster state against what the engine of a worker said at the same time.

use super::super::api::node::GossipedNetwork;
use super::super::drift::{Drift, drift};
use super::recorded::calm;

fn networks() -> Vec<GossipedNetwork> {
    super::gossip::networks()
}

#[test]
fn a_calm_swarm_has_none() {
    assert_eq!(drift(&calm(), &networks()), Drift::default());
}

#[test]
fn what_either_lacks_is_named() {
    let mut snapshot = calm();
    let web = snapshot
        .services
        .iter_mut()
        .find(|s| s.network == "shop" && s.name == "web")
        .unwrap();
    let gone = web.backends.remove(0).addresses[0];
    let lost: std::net::IpAddr = "10.9.9.9".parse().unwrap();
    web.backends[0].addresses = vec![lost];
    let found = drift(&snapshot, &networks());
    assert!(found.missing.contains(&format!("shop/web {gone}")), "{found:?}");
    assert_eq!(found.surplus, [format!("shop/web {lost}")]);
    assert_eq!(found.missing.len(), 2);
}
