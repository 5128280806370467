//! Which number stands for which name.
//!
//! There is no state beside the tables: an object that is in them keeps its number, so a restarted agent adopts
//! what is there. Services are known by their identity, backends by address, port and protocol in their network,
//! nodes by their tunnel addresses. Numbers begin at 1 and rotate: what has never been used comes first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use lb_common::abi::{self, BACKEND_GONE, EndpointKey, NODE_PRESENT, capacity};
use lb_common::address::Address;

use super::actual::{Actual, key_of};
use super::join::join;
use crate::model::desired::{Desired, Node};

/// An element of `backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its index.
    pub id: u32,
    /// Its generation, as it should be: raised if the element is used anew.
    pub generation: u32,
    /// It leads to a backend now; else it is gone or was never used.
    live: bool,
}

/// The numbers of everything desired. What has none found no room.
#[derive(Debug, Default)]
pub struct Ids {
    /// Nodes by name.
    pub nodes: BTreeMap<Arc<str>, u32>,
    /// Services by identity.
    pub services: HashMap<u64, u32>,
    /// Backends by key, ascending.
    pub backends: Vec<(EndpointKey, Element)>,
    /// Tables without room, as sentences.
    pub problems: Vec<String>,
}

impl Ids {
    /// Numbers for `desired`, those of `actual` where it has them.
    pub fn assign(desired: &Desired, actual: &Actual) -> Self {
        let mut ids = Self::default();
        ids.assign_nodes(desired, actual);
        ids.assign_services(desired, actual);
        ids.assign_backends(desired, actual);
        ids
    }

    /// The element of a backend.
    pub fn backend(&self, key: &EndpointKey) -> Option<Element> {
        let index = self.backends.binary_search_by(|(there, _)| there.cmp(key)).ok()?;
        Some(self.backends[index].1)
    }

    fn assign_nodes(&mut self, desired: &Desired, actual: &Actual) {
        let mut free = actual.nodes.clone();
        let mut claim = |ids: &mut BTreeMap<Arc<str>, u32>, name: &Arc<str>, matches: &dyn Fn(&abi::Node) -> bool| {
            let present = |(_, node): &(&u32, &abi::Node)| node.flags & NODE_PRESENT != 0;
            let there = free.iter().filter(|(_, node)| matches(node));
            // Of several, one in use, and then the first.
            if let Some((&id, _)) = there.min_by_key(|entry| !present(entry)) {
                free.remove(&id);
                ids.insert(name.clone(), id);
            }
        };
        // Exact matches first, so that nobody takes them; then nodes that have won or lost a family.
        for matches in [same_tunnels, share_a_tunnel] as [fn(&Node, &abi::Node) -> bool; 2] {
            for (name, node) in &desired.nodes {
                if !self.nodes.contains_key(name) {
                    claim(&mut self.nodes, name, &|there| matches(node, there));
                }
            }
        }
        let mut fresh = Fresh::new(actual.nodes.keys().next_back(), capacity::NODES);
        for name in desired.nodes.keys() {
            if self.nodes.contains_key(name) {
                continue;
            }
            // A node that left long ago gives its place up only when the table is full.
            let tombstone = || {
                free.iter()
                    .find(|(_, node)| node.flags & NODE_PRESENT == 0)
                    .map(|(id, _)| *id)
            };
            match fresh.next(|id| actual.nodes.contains_key(&id)).or_else(tombstone) {
                Some(id) => {
                    free.remove(&id);
                    self.nodes.insert(name.clone(), id);
                }
                None => self
                    .problems
                    .push(format!("no room for node {name}: the table holds {}", capacity::NODES)),
            }
        }
    }

    fn assign_services(&mut self, desired: &Desired, actual: &Actual) {
        // The lowest of several with one identity, whatever led to that.
        let known: HashMap<u64, u32> = actual.services.iter().rev().map(|(id, s)| (s.identity, *id)).collect();
        // Numbers to which anything leads, also what an interrupted agent has left.
        let mut used: BTreeSet<u32> = actual.services.keys().copied().collect();
        used.extend(actual.frontends.values().map(|f| f.service));
        used.extend(actual.slots.keys().next_back().map(|slot| slot.service));
        let retired = &actual.reusable.retired;
        let highest = used.last().max(retired.keys().next_back()).copied();
        let mut fresh = Fresh::beyond(actual.elsewhere.services, highest.as_ref(), capacity::SERVICES);
        let mut complete = false;
        let mut again = None;
        for (identity, service) in &desired.services {
            let id = known.get(identity).copied().or_else(|| {
                let new = fresh.next(|id| {
                    // Only after the numbers have gone round once.
                    if !complete {
                        used.extend(actual.slots.keys().map(|slot| slot.service));
                        complete = true;
                    }
                    used.contains(&id) || retired.contains_key(&id)
                });
                new.or_else(|| again.get_or_insert_with(|| longest_retired(actual, &used)).pop())
            });
            match id {
                Some(id) => {
                    self.services.insert(*identity, id);
                }
                None => self.problems.push(format!(
                    "no room for service {}: the table holds {}",
                    service.key,
                    capacity::SERVICES
                )),
            }
        }
    }

    fn assign_backends(&mut self, desired: &Desired, actual: &Actual) {
        let element = |(id, backend): (&u32, &abi::Backend)| {
            let live = backend.state != BACKEND_GONE;
            (
                key_of(backend),
                Element {
                    id: *id,
                    generation: backend.generation,
                    live,
                },
            )
        };
        // Of several with one key, a live one, and then the first.
        let mut there: Vec<_> = actual.backends.iter().map(element).collect();
        there.sort_by(|(a, x), (b, y)| a.cmp(b).then(y.live.cmp(&x.live)));
        there.dedup_by(|(a, _), (b, _)| a == b);

        let highest = actual.backends.keys().next_back();
        let mut fresh = Fresh::beyond(actual.elsewhere.backends, highest, capacity::BACKENDS);
        let mut reusable = None;
        self.backends.reserve(desired.backends.len());
        for (key, wanted, there) in join(&desired.backends, there.iter().map(|(key, element)| (key, *element))) {
            if wanted.is_none() {
                continue;
            }
            let element = match there {
                Some(element) if element.live => Some(element),
                // The address is back, as another task: flows to the one that went are not its own.
                Some(element) => Some(Element {
                    generation: element.generation.wrapping_add(1),
                    ..element
                }),
                None => match fresh.next(|id| actual.backends.contains_key(&id)) {
                    Some(id) => Some(Element {
                        id,
                        generation: 1,
                        live: false,
                    }),
                    None => reusable.get_or_insert_with(|| self::reusable(desired, actual)).pop(),
                },
            };
            match element {
                Some(element) => self.backends.push((*key, element)),
                None => self.problems.push(format!(
                    "no room for backend {}: the table holds {}, counting those that flows still refer to",
                    super::print::endpoint(key),
                    capacity::BACKENDS
                )),
            }
        }
    }
}

fn same_tunnels(a: &Node, b: &abi::Node) -> bool {
    (a.tunnel_v4, a.tunnel_v6) == (b.tunnel_v4, b.tunnel_v6)
}

fn share_a_tunnel(a: &Node, b: &abi::Node) -> bool {
    let same = |a: Address, b: Address| a != Address::ANY && a == b;
    same(a.tunnel_v4, b.tunnel_v4) || same(a.tunnel_v6, b.tunnel_v6)
}

/// Numbers of services that nothing but flows may lead to; those that went first last. None where only a part of what is used
/// is known.
fn longest_retired(actual: &Actual, used: &BTreeSet<u32>) -> Vec<u32> {
    if actual.elsewhere.services > 0 {
        return Vec::new();
    }
    let retired = actual.reusable.retired.iter().filter(|(id, _)| !used.contains(id));
    let mut retired: Vec<(Instant, u32)> = retired.map(|(id, since)| (*since, *id)).collect();
    retired.sort_by(|a, b| b.cmp(a));
    retired.into_iter().map(|(_, id)| id).collect()
}

/// Elements that are gone, to which no flow, slot or local backend leads, and that nobody desires back; lowest last.
fn reusable(desired: &Desired, actual: &Actual) -> Vec<Element> {
    let referred: BTreeSet<u32> = actual
        .slots
        .values()
        .chain(actual.local_backends.values())
        .copied()
        .collect();
    let free = |(id, generation): (&u32, &u32)| {
        let backend = actual.backends.get(id)?;
        let same = backend.state == BACKEND_GONE && backend.generation == *generation;
        let wanted = referred.contains(id) || desired.backends.contains_key(&key_of(backend));
        (same && !wanted).then(|| Element {
            id: *id,
            generation: generation.wrapping_add(1),
            live: false,
        })
    };
    actual.reusable.backends.iter().rev().filter_map(free).collect()
}

/// Numbers not in use: above the highest first, then, gone round once, from 1.
struct Fresh {
    next: u32,
    end: u32,
    highest: u32,
    round: bool,
}

impl Fresh {
    fn new(highest: Option<&u32>, capacity: u32) -> Self {
        let highest = highest.map_or(0, |id| *id);
        Self {
            next: highest.saturating_add(1),
            end: capacity,
            highest,
            round: false,
        }
    }

    /// As [`Fresh::new`]; where only a part of what is used is known, it does not go round.
    fn beyond(elsewhere: u32, highest: Option<&u32>, capacity: u32) -> Self {
        let highest = highest.map_or(elsewhere, |id| elsewhere.max(*id));
        Self {
            round: elsewhere > 0,
            ..Self::new(Some(&highest), capacity)
        }
    }

    /// The next one; `used` is asked only after going round.
    fn next(&mut self, mut used: impl FnMut(u32) -> bool) -> Option<u32> {
        loop {
            if self.next < self.end {
                self.next += 1;
                if !self.round || !used(self.next - 1) {
                    return Some(self.next - 1);
                }
            } else if self.round {
                return None;
            } else {
                self.round = true;
                self.next = 1;
                self.end = self.end.min(self.highest.saturating_add(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::actual::Reusable;
    use super::super::tests::{desired, snapshot, tables};
    use super::super::{apply, diff};
    use super::*;

    #[test]
    fn fresh_numbers_go_round_once() {
        let mut fresh = Fresh::new(Some(&5), 8);
        let given: Vec<_> = std::iter::from_fn(|| fresh.next(|id| [2, 5].contains(&id))).collect();
        assert_eq!(given, [6, 7, 1, 3, 4]);
        let mut fresh = Fresh::new(None, 3);
        assert_eq!(std::iter::from_fn(|| fresh.next(|_| true)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_number_that_flows_may_name_is_given_to_no_other_service() {
        let before = snapshot(&[21]);
        let mut after = before.clone();
        after.services[0].name = "shop".into();
        let tables = tables(&before);
        let number = |wanted, reusable: &Reusable| {
            let mut actual = Actual::read(&tables).unwrap();
            actual.reusable = reusable.clone();
            let ids = Ids::assign(&desired(wanted), &actual);
            ids.services.into_values().next()
        };
        let now = Instant::now();
        let mut reusable = Reusable::default();
        assert_eq!(number(&before, &reusable), Some(1));
        reusable.retired.insert(7, now);
        assert_eq!(number(&before, &reusable), Some(1), "it keeps its own");
        assert_eq!(number(&after, &reusable), Some(8));
        // With none left, the one that has gone for the longest.
        reusable.retired = (2..capacity::SERVICES)
            .map(|id| (id, now + Duration::from_secs(id.abs_diff(9).into())))
            .collect();
        assert_eq!(number(&after, &reusable), Some(9));
    }

    #[test]
    fn a_number_is_retired_until_no_flow_names_it() {
        let snapshot = snapshot(&[21]);
        let mut tables = tables(&snapshot);
        let nothing = crate::model::snapshot::Snapshot {
            services: Default::default(),
            ..snapshot
        };
        let removal = diff(&desired(&nothing), &Actual::read(&tables).unwrap());
        assert!(apply(&removal, &mut tables).is_complete());
        let (mut reusable, gone) = (Reusable::default(), Instant::now());
        removal.ops.iter().for_each(|op| reusable.note(op, gone));
        assert_eq!(reusable.retired.keys().copied().collect::<Vec<_>>(), [1]);
        let later = gone + Duration::from_secs(60);
        reusable.seen(gone, &[].into());
        reusable.seen(later, &[1].into());
        assert_eq!(reusable.retired.len(), 1, "seen too early, and in use");
        reusable.seen(later, &[2].into());
        assert_eq!(reusable, Reusable::default());
    }
}
