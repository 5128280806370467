//! [`Mirror`]: what the tables hold, remembered, so that a change of few services is planned from few rows.
//!
//! A part of the state is planned by the same [`diff()`] as the whole: from what the changed services should have and
//! the rows that they have. That is exact as long as they share nothing with others; where they do, or anything is
//! unusual, there is no such plan, and the whole has to be compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lb_common::abi::{self, BACKEND_GONE, EndpointKey, SlotKey, SourceKey, capacity};

use super::actual::{Actual, Elsewhere, Reusable, key_of};
use super::left::leaves;
use super::{Op, Plan, Rest, Row, diff, writes};
use crate::model::desired::{self, Desired};

/// So many elements of `backends` that are gone are remembered, and as many more as there are others.
const GONE: usize = 4096;

/// The rows of all tables, as they are known to be, but for those of backends that went long ago.
#[derive(Debug, Default)]
pub struct Mirror {
    rows: Actual,
    /// Element of `backends` by key: the live one, if there is one.
    elements: HashMap<EndpointKey, u32>,
    /// Service number by identity.
    services: HashMap<u64, u32>,
}

/// What services had, and what they should have: compiled from them alone.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// With the nodes as they are.
    pub had: &'a Desired,
    /// With the nodes as they should be, which is the same.
    pub wanted: &'a Desired,
    /// What earlier changes have left in the tables.
    pub rest: &'a Rest,
}

impl Mirror {
    /// Of tables that hold exactly `rows`, all of which are wanted.
    pub fn new(mut rows: Actual) -> Self {
        forget_gone(&mut rows.backends);
        let mut mirror = Self {
            rows: Actual::default(),
            elements: HashMap::with_capacity(rows.backends.len()),
            services: rows
                .services
                .iter()
                .map(|(id, service)| (service.identity, *id))
                .collect(),
        };
        for (id, backend) in &rows.backends {
            mirror.index(*id, backend);
        }
        mirror.rows = rows;
        mirror
    }

    /// The rows.
    pub fn rows(&self) -> &Actual {
        &self.rows
    }

    /// Takes note of a write that has been done.
    pub fn note(&mut self, op: &Op) {
        match op.row {
            Row::Backend(id, backend) => {
                // An element that is given to another address.
                let before = self.rows.backends.get(&id).map(key_of);
                if let Some(before) = before.filter(|before| *before != key_of(&backend))
                    && self.elements.get(&before) == Some(&id)
                {
                    self.elements.remove(&before);
                }
                self.index(id, &backend);
            }
            Row::Service(id, service) if op.action == super::Action::Remove => {
                self.services.remove(&service.identity);
                debug_assert!(self.rows.services.contains_key(&id));
            }
            Row::Service(id, service) => drop(self.services.insert(service.identity, id)),
            _ => {}
        }
        self.rows.note(op);
    }

    fn index(&mut self, id: u32, backend: &abi::Backend) {
        let key = key_of(backend);
        if backend.state != BACKEND_GONE {
            self.elements.insert(key, id);
        } else {
            // Of several that are gone, any: the address gets it back with a new generation.
            self.elements.entry(key).or_insert(id);
        }
    }

    /// The plan for a part, in the operator's words too if `explained`. `None`: the whole has to be compared.
    pub fn plan(&self, part: Part<'_>, reusable: &Reusable, explained: bool) -> Option<Plan> {
        let rows = self.rows_of(part, reusable)?;
        let plan = if explained { diff } else { writes }(part.wanted, &rows);
        plan.problems.is_empty().then_some(plan)
    }

    /// The rows to which the services of `part` lead, if nobody else's do.
    fn rows_of(&self, part: Part<'_>, reusable: &Reusable) -> Option<Actual> {
        let Part { had, wanted, rest } = part;
        let drained = !had.drained.is_empty() || !wanted.drained.is_empty();
        if !had.separate || !wanted.separate || drained {
            return None;
        }
        // What has left a service and stays in another one has flows to be ended.
        let loses = |(identity, service): (&u64, &desired::Service)| {
            let mut keys = service.shares.iter().map(|(key, _)| key).chain(&service.resting);
            keys.any(|key| leaves(wanted, *identity, key))
        };
        if had.services.iter().any(loses) || rest.goes_over(wanted) {
            return None;
        }
        let mut rows = Actual {
            nodes: self.rows.nodes.clone(),
            addresses: self.rows.addresses.clone(),
            elsewhere: Elsewhere {
                services: highest(&self.rows.services).max(highest(&reusable.retired)).max(1),
                backends: highest(&self.rows.backends).max(1),
            },
            ..Actual::default()
        };
        self.add_rest(&mut rows, rest)?;
        let identities: BTreeSet<u64> = had.services.keys().chain(wanted.services.keys()).copied().collect();
        for identity in identities {
            let Some(&id) = self.services.get(&identity) else {
                continue;
            };
            // One that is there and was not theirs is another's.
            if !had.services.contains_key(&identity) {
                return None;
            }
            rows.services.insert(id, *self.rows.services.get(&id)?);
            let slot = |generation, index| SlotKey {
                service: id,
                generation,
                index,
            };
            let slots = self.rows.slots.range(slot(0, 0)..=slot(u32::MAX, u32::MAX));
            rows.slots.extend(slots.map(|(key, backend)| (*key, *backend)));
        }
        let theirs = |key: &SourceKey| rows.services.contains_key(&key.service);
        let sources = self.rows.sources.iter().filter(|(key, _)| theirs(key));
        let sources: Vec<_> = sources.map(|(key, value)| (*key, *value)).collect();
        rows.sources.extend(sources);
        for key in keys(&had.frontends, &wanted.frontends) {
            if let Some(frontend) = self.rows.frontends.get(key) {
                if !had.frontends.contains_key(key) || !rows.services.contains_key(&frontend.service) {
                    return None;
                }
                rows.frontends.insert(*key, *frontend);
            }
        }
        for key in keys(&had.vips, &wanted.vips) {
            if let Some(vip) = self.rows.vips.get(key) {
                if !had.vips.contains_key(key) {
                    return None;
                }
                rows.vips.insert(*key, *vip);
            }
        }
        let mut fresh = 0;
        for key in keys(&had.backends, &wanted.backends) {
            let Some(id) = self.elements.get(key) else {
                fresh += 1;
                continue;
            };
            let element = *self.rows.backends.get(id)?;
            let theirs = had.backends.contains_key(key) || rest.has_backend(*id);
            if element.state != BACKEND_GONE && !theirs {
                return None;
            }
            rows.backends.insert(*id, element);
            if let Some(local) = self.rows.local_backends.get(key) {
                rows.local_backends.insert(*key, *local);
            }
        }
        self.offer(&mut rows, fresh, reusable);
        Some(rows)
    }

    /// Adds what is still there of services that had it once: it goes, or is wanted back.
    fn add_rest(&self, rows: &mut Actual, rest: &Rest) -> Option<()> {
        for row in rest.rows() {
            match *row {
                Row::Slot(key, backend) => {
                    rows.slots.insert(key, backend);
                    rows.elsewhere.services = rows.elsewhere.services.max(key.service);
                }
                Row::Source(key, value) => {
                    rows.sources.insert(key, value);
                    rows.elsewhere.services = rows.elsewhere.services.max(key.service);
                }
                Row::LocalBackend(key, id) => drop(rows.local_backends.insert(key, id)),
                Row::Backend(id, _) => drop(rows.backends.insert(id, *self.rows.backends.get(&id)?)),
                // Cut off at once, or not the services'.
                Row::Frontend(..) | Row::Vip(..) | Row::Service(..) | Row::Address(..) | Row::Node(..) => return None,
            }
        }
        Some(())
    }

    /// Adds elements that are gone for good, where new ones have no room otherwise.
    fn offer(&self, rows: &mut Actual, count: usize, reusable: &Reusable) {
        let room = capacity::BACKENDS.saturating_sub(rows.elsewhere.backends + 1);
        if count <= room as usize {
            return;
        }
        let fit = |(id, generation): &(&u32, &u32)| {
            let element = self.rows.backends.get(id);
            let gone = element.filter(|e| e.state == BACKEND_GONE && e.generation == **generation);
            gone.is_some_and(|e| self.elements.get(&key_of(e)) == Some(*id)) && !rows.backends.contains_key(id)
        };
        let offered: Vec<_> = reusable
            .backends
            .iter()
            .filter(fit)
            .take(count)
            .map(|(id, g)| (*id, *g))
            .collect();
        for (id, generation) in offered {
            rows.backends.insert(id, self.rows.backends[&id]);
            rows.reusable.backends.insert(id, generation);
        }
    }
}

/// Of a cluster that was larger once, most elements may be gone. Such an element is only worth remembering because its
/// address gets it back; without it, the address gets one that was never used, and while there is none, everything is
/// compared. The highest says which those are.
fn forget_gone(backends: &mut BTreeMap<u32, abi::Backend>) {
    let gone = backends.values().filter(|b| b.state == BACKEND_GONE).count();
    if gone > GONE + (backends.len() - gone) {
        let highest = backends.keys().next_back().copied();
        backends.retain(|id, b| b.state != BACKEND_GONE || Some(*id) == highest);
    }
}

/// The highest number.
fn highest<V>(numbers: &BTreeMap<u32, V>) -> u32 {
    numbers.keys().next_back().copied().unwrap_or(0)
}

/// The keys of either, each once.
fn keys<'a, K: Ord, A, B>(a: &'a BTreeMap<K, A>, b: &'a BTreeMap<K, B>) -> impl Iterator<Item = &'a K> {
    a.keys().chain(b.keys().filter(|key| !a.contains_key(key)))
}

#[cfg(test)]
mod tests {
    use lb_common::abi::BACKEND_READY;

    use super::*;

    #[test]
    fn a_cluster_that_was_large_is_not_remembered_for_ever() {
        let backend = |state| abi::Backend {
            state,
            ..abi::Backend::default()
        };
        let rows = |gone: u32| {
            let mut backends: BTreeMap<_, _> = (2..2 + gone).map(|id| (id, backend(BACKEND_GONE))).collect();
            backends.insert(1, backend(BACKEND_READY));
            Actual {
                backends,
                ..Actual::default()
            }
        };
        let few = Mirror::new(rows(GONE as u32));
        assert_eq!(few.rows().backends.len(), GONE + 1);
        let many = Mirror::new(rows(10_000));
        assert_eq!(many.rows().backends.keys().copied().collect::<Vec<_>>(), [1, 10_001]);
    }
}
