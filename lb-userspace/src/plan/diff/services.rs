//! Services and their frontends: new slots beside the old ones, then one write that puts them in force.

use std::collections::{BTreeMap, HashSet};

use lb_common::abi::{self, ALGORITHM_ROUND_ROBIN, EndpointKey, Frontend, SlotKey, Vip};

use super::{Diff, Flip, add_or_change};
use crate::model::desired;
use crate::plan::join::join;
use crate::plan::slots::sequence;
use crate::plan::{Action, Phase, Row};

impl Diff<'_> {
    /// New slots, then one write per service.
    pub(super) fn make_services(&mut self) {
        let desired = self.desired;
        let mut flips = BTreeMap::new();
        for (identity, service) in &desired.services {
            let Some(&id) = self.ids.services.get(identity) else {
                continue;
            };
            let there = self.actual.services.get(&id).copied();
            let same = there.is_some_and(|there| self.holds(id, &there, service));
            let (generation, slots) = match there {
                Some(there) if same => (there.generation, Vec::new()),
                Some(there) => (
                    self.old.free_generation(id, there.generation.wrapping_add(1)),
                    self.slots(service),
                ),
                None => (self.old.free_generation(id, 1), self.slots(service)),
            };
            let count = there.filter(|_| same).map_or(slots.len() as u32, |there| there.count);
            let value = abi::Service {
                identity: *identity,
                generation,
                count,
                tcp_timeout: service.tcp_timeout,
                udp_timeout: service.udp_timeout,
                flags: 0,
                algorithm: ALGORITHM_ROUND_ROBIN,
            };
            self.in_force.insert(id, (generation, value.count));
            if there == Some(value) {
                continue;
            }
            let first = self.ops.len();
            for (backend, index) in slots.into_iter().zip(0..) {
                let after = self.made.get(&backend).copied().into_iter().collect();
                let row = Row::Slot(
                    SlotKey {
                        service: id,
                        generation,
                        index,
                    },
                    backend,
                );
                self.push(Phase::Make, Action::Add, row, after);
            }
            let action = add_or_change(there.is_some());
            flips.insert(
                id,
                Flip {
                    action,
                    row: Row::Service(id, value),
                    slots: first..self.ops.len(),
                },
            );
        }
        self.flip(flips);
    }

    /// Puts new slots in force. A frontend that goes over to another service does so before the one it leaves
    /// changes and after the one it enters has changed. (Where services swap frontends and both change, no order
    /// does that for all; then one frontend meets the new slots of the service it is about to leave.)
    fn flip(&mut self, mut flips: BTreeMap<u32, Flip>) {
        let moves = self.moves();
        let mut stack: Vec<_> = flips.keys().rev().map(|id| (*id, false)).collect();
        let mut seen = HashSet::new();
        while let Some((id, entered)) = stack.pop() {
            let moves = moves.get(&id).map_or(&[][..], Vec::as_slice);
            if !entered {
                if seen.insert(id) {
                    stack.push((id, true));
                    let changing = moves.iter().filter(|(_, to)| flips.contains_key(&to.service));
                    stack.extend(changing.map(|(_, to)| (to.service, false)));
                }
                continue;
            }
            let Some(Flip { action, row, slots }) = flips.remove(&id) else {
                continue;
            };
            let mut after: Vec<_> = slots.collect();
            for (key, to) in moves {
                let op = self.lead(Phase::Flip, *key, *to);
                after.push(op);
            }
            let op = self.push(Phase::Flip, action, row, after);
            self.cuts.insert(id, op);
        }
    }

    /// Frontends that go over to another service, by the service that they leave.
    fn moves(&self) -> BTreeMap<u32, Vec<(EndpointKey, Frontend)>> {
        let mut moves: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, there, to) in &self.frontends {
            if let (Some(there), Some(to)) = (there, to)
                && there.service != to.service
            {
                moves.entry(there.service).or_default().push((*key, *to));
            }
        }
        moves
    }

    /// Frontends that are not as they should be: what is there, and what should be.
    pub(super) fn frontends(&self) -> Vec<(EndpointKey, Option<Frontend>, Option<Frontend>)> {
        let mut frontends = Vec::new();
        for (key, wanted, there) in join(&self.desired.frontends, &self.actual.frontends) {
            let to = wanted.and_then(|identity| {
                let id = self.ids.services.get(identity)?;
                Some(self.frontend(key, identity, *id))
            });
            if there.copied() != to {
                frontends.push((*key, there.copied(), to));
            }
        }
        frontends
    }

    /// Lets a frontend lead to a service.
    fn lead(&mut self, phase: Phase, key: EndpointKey, to: Frontend) -> usize {
        let there = self.actual.frontends.get(&key).copied();
        // Where it leads to now is better than to a service that is not there or not yet as it should be.
        let waits = there.is_some() || !self.actual.services.contains_key(&to.service);
        let after = self
            .cuts
            .get(&to.service)
            .copied()
            .filter(|_| waits)
            .into_iter()
            .collect();
        let row = Row::Frontend(key, to);
        let op = self.push(phase, add_or_change(there.is_some()), row, after);
        self.led.insert(key);
        if let Some(there) = there {
            self.leaves.entry(there.service).or_default().push(op);
        }
        op
    }

    /// The backend ids of a service's slots, in their order.
    pub(in crate::plan) fn slots(&self, service: &desired::Service) -> Vec<u32> {
        let with_id = |(key, weight): &(EndpointKey, u16)| Some((self.ids.backend(key)?.id, *weight));
        let (ids, weights): (Vec<_>, Vec<_>) = service.shares.iter().filter_map(with_id).unzip();
        sequence(&weights).into_iter().map(|index| ids[index]).collect()
    }

    /// Whether the slots in force are those that `service` should have.
    fn holds(&self, id: u32, there: &abi::Service, service: &desired::Service) -> bool {
        let rows = self.old.generation(id, there.generation);
        let Some(rows) = rows.get(..there.count as usize) else {
            return false;
        };
        let weights: Vec<_> = service.shares.iter().map(|(_, weight)| *weight).collect();
        let order = sequence(&weights);
        // By key, which spares a search for each slot; of several elements with one key only one stays.
        let mut pairs = rows.iter().zip(&order).zip(0..);
        let exact = pairs.all(|(((slot, backend), share), index)| {
            slot.index == index && self.leads_to(*backend, &service.shares[*share].0)
        });
        if exact && rows.len() == order.len() {
            return true;
        }
        // Backends for which there was no room are missing from the slots.
        let indexes = rows.iter().zip(0..).all(|((slot, _), index)| slot.index == index);
        indexes && rows.iter().map(|(_, backend)| *backend).eq(self.slots(service))
    }

    pub(super) fn expose(&mut self) {
        let desired = self.desired;
        for (key, _, to) in self.frontends.clone() {
            if let Some(to) = to.filter(|_| !self.led.contains(&key)) {
                self.lead(Phase::Expose, key, to);
            }
        }
        for (key, frontends) in &desired.vips {
            let value = Vip { frontends: *frontends };
            let there = self.actual.vips.get(key);
            if there != Some(&value) {
                self.push(
                    Phase::Expose,
                    add_or_change(there.is_some()),
                    Row::Vip(*key, value),
                    Vec::new(),
                );
            }
        }
    }
}
