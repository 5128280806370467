//! What tables have to hold when all is done.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{self, BACKEND_GONE, BACKEND_READY, EndpointKey};
use lb_userspace::model::desired::Desired;
use lb_userspace::model::snapshot::BackendState;
use lb_userspace::plan::Actual;

use crate::checked::{key_of, lookup};

/// The tables hold what is desired, no more and no less.
pub(crate) fn assert_holds(actual: &Actual, desired: &Desired) {
    for (key, identity) in &desired.frontends {
        let service = &desired.services[identity];
        let members: BTreeSet<_> = lookup(actual, key).unwrap().into_iter().collect();
        assert_eq!(
            members,
            service.shares.iter().map(|(key, _)| *key).collect(),
            "{}",
            service.key
        );
        assert_eq!(actual.services[&actual.frontends[key].service].identity, *identity);
    }
    assert_eq!(actual.frontends.len(), desired.frontends.len());
    assert_eq!(actual.services.len(), desired.services.len());
    assert_eq!(
        actual.slots.len(),
        actual.services.values().map(|s| s.count as usize).sum::<usize>()
    );
    let vips: BTreeMap<_, _> = actual.vips.iter().map(|(key, vip)| (*key, vip.frontends)).collect();
    assert_eq!(vips, desired.vips);

    let live: Vec<_> = actual.backends.values().filter(|b| b.state != BACKEND_GONE).collect();
    assert_eq!(
        live.iter().map(|b| key_of(b)).collect::<BTreeSet<_>>(),
        desired.backends.keys().copied().collect()
    );
    assert_eq!(live.len(), desired.backends.len());
    let node_of = |id: u32| {
        let node = actual.nodes[&id];
        assert_eq!(node.flags & abi::NODE_PRESENT, abi::NODE_PRESENT);
        (node.tunnel_v4, node.tunnel_v6)
    };
    for there in live {
        let wanted = &desired.backends[&key_of(there)];
        let node = &desired.nodes[&wanted.node];
        assert_eq!(node_of(there.node), (node.tunnel_v4, node.tunnel_v6));
        assert_eq!(there.state == BACKEND_READY, wanted.state == BackendState::Ready);
    }
    assert!(actual.local_backends.keys().eq(desired.local_backends.iter()));
    for (key, id) in &actual.local_backends {
        assert_eq!(key_of(&actual.backends[id]), *key);
        assert_ne!(actual.backends[id].state, BACKEND_GONE);
    }
    assert!(actual.addresses.keys().eq(desired.addresses.keys()));
    for (address, value) in &actual.addresses {
        let node = &desired.nodes[&desired.addresses[address]];
        assert_eq!(node_of(value.node), (node.tunnel_v4, node.tunnel_v6));
    }
    assert_eq!(
        actual
            .nodes
            .values()
            .filter(|n| n.flags & abi::NODE_PRESENT != 0)
            .count(),
        desired.nodes.len()
    );
}

pub(crate) type Numbers = (BTreeMap<EndpointKey, u32>, BTreeMap<u64, u32>);

pub(crate) fn numbers(actual: &Actual) -> Numbers {
    let live = actual.backends.iter().filter(|(_, b)| b.state != BACKEND_GONE);
    (
        live.map(|(id, b)| (key_of(b), *id)).collect(),
        actual.services.iter().map(|(id, s)| (s.identity, *id)).collect(),
    )
}

pub(crate) fn assert_same<K: Ord>(before: &BTreeMap<K, u32>, after: &BTreeMap<K, u32>) {
    for (key, id) in before {
        assert!(after.get(key).is_none_or(|there| there == id));
    }
}
