//! [`left`]: backends that have left a service and stay in the tables, because another service uses them.
//!
//! A backend's element says for all services whether it is there. Where it is not, the programs end its flows; where it has
//! only left one of its services, the flows of that one have to be found. An agent that runs sees a backend leave; one that
//! begins finds in the flows alone what left before it began, and looks at all of them ([`Strays`]).

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BACKEND_GONE, EndpointKey, Flow};

use super::actual::{Actual, key_of};
use crate::model::desired::Desired;

/// What is a backend of a service (its identity) without a slot there: [`resting`](crate::model::desired::Service::resting).
pub type Resting = BTreeSet<(u64, EndpointKey)>;

/// What is desired of that.
pub fn resting(desired: &Desired) -> impl Iterator<Item = (u64, EndpointKey)> + '_ {
    let services = desired.services.iter();
    services.flat_map(|(identity, service)| service.resting.iter().map(|key| (*identity, *key)))
}

/// Service and backend, by the numbers that flows have, for every backend that has left a service which stays. `resting`: as
/// it was before.
pub fn left(desired: &Desired, actual: &Actual, resting: &Resting) -> BTreeSet<(u32, u32)> {
    let mut left = BTreeSet::new();
    // The slots that an interrupted agent has left behind are among them: then this is done again.
    for (slot, backend) in &actual.slots {
        let Some(element) = actual.backends.get(backend).filter(|b| b.state != BACKEND_GONE) else {
            continue;
        };
        let Some(service) = actual.services.get(&slot.service) else {
            continue;
        };
        if leaves(desired, service.identity, &key_of(element)) {
            left.insert((slot.service, *backend));
        }
    }
    let mut others: BTreeMap<EndpointKey, Vec<u64>> = BTreeMap::new();
    for (identity, key) in resting {
        if leaves(desired, *identity, key) {
            others.entry(*key).or_default().push(*identity);
        }
    }
    if others.is_empty() {
        return left;
    }
    let live = actual.backends.iter().filter(|(_, b)| b.state != BACKEND_GONE);
    for (backend, element) in live {
        let Some(identities) = others.get(&key_of(element)) else {
            continue;
        };
        let services = actual.services.iter().filter(|(_, s)| identities.contains(&s.identity));
        left.extend(services.map(|(service, _)| (*service, *backend)));
    }
    left
}

/// Says of a flow whether its backend is none of its service any more, from the flow and the tables as they were found. What
/// the client speaks to is not asked: a flow outlives its frontend, and ends as the others of its service do.
#[derive(Clone, Copy, Debug)]
pub struct Strays<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
}

impl<'a> Strays<'a> {
    /// Of tables that hold `actual` and shall hold `desired`.
    pub const fn new(desired: &'a Desired, actual: &'a Actual) -> Self {
        Self { desired, actual }
    }

    /// Whether a flow has to be ended. No other service has its service's number ([`Reusable::retired`](super::Reusable)).
    pub fn has(&self, flow: &Flow) -> bool {
        let (Some(service), Some(backend)) = (
            self.actual.services.get(&flow.service),
            self.actual.backends.get(&flow.backend),
        ) else {
            return false;
        };
        backend.state != BACKEND_GONE
            && backend.generation == flow.generation
            && leaves(self.desired, service.identity, &key_of(backend))
    }
}

/// Whether a backend that was one of a service is none any more, while both stay.
pub(super) fn leaves(desired: &Desired, identity: u64, key: &EndpointKey) -> bool {
    let service = desired.services.get(&identity);
    service.is_some_and(|service| !service.has(key)) && desired.backends.contains_key(key)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{desired, snapshot, tables};
    use super::*;
    use crate::model::snapshot::{BackendState, Snapshot};

    /// Two services with the same backends, 10.0.1.21 and 10.0.1.22: numbers 1 and 2 of either.
    fn twins() -> Snapshot {
        let mut snapshot = snapshot(&[21, 22]);
        let mut twin = snapshot.services[0].clone();
        twin.name = "twin".into();
        twin.vips.clear();
        twin.ports[0].published = Some(30081);
        snapshot.services.push(twin);
        snapshot
    }

    /// What has left between two snapshots: names of services, last bytes of backends.
    fn between(before: &Snapshot, after: &Snapshot) -> Vec<(String, u8)> {
        let (before, after) = (desired(before), desired(after));
        let actual = Actual::read(&tables(&twins())).unwrap();
        let named = |(service, backend): (u32, u32)| {
            let identity = actual.services[&service].identity;
            let address = actual.backends[&backend].address.v4_bytes();
            (after.services[&identity].key.name.clone(), address[3])
        };
        let resting: Resting = resting(&before).collect();
        left(&after, &actual, &resting).into_iter().map(named).collect()
    }

    #[test]
    fn a_backend_leaves_one_of_its_services() {
        let mut after = twins();
        assert_eq!(between(&twins(), &after), []);
        after.services[0].backends.remove(0);
        assert_eq!(between(&twins(), &after), [("web".to_owned(), 21)]);
        after.services[1].backends.remove(0);
        assert_eq!(between(&twins(), &after), [], "there no more, it ends its flows itself");
    }

    #[test]
    fn one_that_drains_has_not_left_until_it_is_removed() {
        let mut drains = twins();
        drains.services[0].backends[0].state = BackendState::Draining;
        assert_eq!(between(&twins(), &drains), []);
        let mut after = drains.clone();
        after.services[0].backends.remove(0);
        assert_eq!(between(&drains, &after), [("web".to_owned(), 21)]);
        // Its slots have gone with the drain: then only this is known of it.
        let tables = tables(&drains);
        let found = left(
            &desired(&after),
            &Actual::read(&tables).unwrap(),
            &resting(&desired(&drains)).collect(),
        );
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn one_that_goes_over_to_another_service_leaves_its_own() {
        let (mut before, mut after) = (twins(), twins());
        before.services[1].backends.clear();
        after.services[0].backends.remove(0);
        after.services[1].backends.remove(1);
        let tables = tables(&before);
        let found = left(&desired(&after), &Actual::read(&tables).unwrap(), &Resting::new());
        assert_eq!(found.len(), 1, "{found:?}");
    }

    /// Flows of both twins to both of their backends, of which an agent that begins ends some; their services and the ends of
    /// addresses.
    fn strays(before: &Snapshot, after: &Snapshot) -> Vec<(String, u8)> {
        let actual = Actual::read(&tables(before)).unwrap();
        let (before, after) = (desired(before), desired(after));
        let strays = Strays::new(&after, &actual);
        let mut found = Vec::new();
        for (service, row) in &actual.services {
            for (backend, element) in &actual.backends {
                let flow = Flow {
                    service: *service,
                    backend: *backend,
                    generation: element.generation,
                    ..Flow::default()
                };
                let older = Flow {
                    generation: flow.generation.wrapping_sub(1),
                    ..flow
                };
                assert!(!strays.has(&older), "ended by the element's generation");
                let retired = Flow { service: 99, ..flow };
                assert!(!strays.has(&retired), "of a service that went");
                if strays.has(&flow) {
                    let name = before.services[&row.identity].key.name.clone();
                    found.push((name, element.address.v4_bytes()[3]));
                }
            }
        }
        found
    }

    #[test]
    fn an_agent_that_begins_ends_what_left_before_it_began() {
        let mut before = twins();
        before.services[0].backends[0].state = BackendState::Draining;
        let mut after = before.clone();
        assert_eq!(strays(&before, &after), []);
        after.services[0].backends.remove(0);
        assert_eq!(strays(&before, &after), [("web".to_owned(), 21)]);
        // Those too whose frontend went before the agent did.
        before.services[0].ports[0].published = None;
        after.services[0].ports[0].published = None;
        assert_eq!(strays(&before, &after), [("web".to_owned(), 21)]);
        // It is nobody's: its element ends all of its flows.
        after.services[1].backends.remove(0);
        assert_eq!(strays(&before, &after), []);
    }

    #[test]
    fn flows_of_a_service_that_went_or_has_another_name_are_left_alone() {
        let before = twins();
        let mut gone = before.clone();
        gone.services = gone.services.iter().skip(1).cloned().collect();
        assert_eq!(strays(&before, &gone), []);
        let mut renamed = before.clone();
        renamed.services[0].name = "shop".into();
        renamed.services[0].backends.remove(0);
        assert_eq!(strays(&before, &renamed), []);
    }
}
