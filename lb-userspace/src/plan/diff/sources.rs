//! Whom published ports answer: rows before the frontends that ask for them, and gone after those that do not any more.

use std::collections::BTreeMap;

use lb_common::abi::{EndpointKey, FRONTEND_FILTERED, Frontend, NETWORK_NODE, SourceKey};

use super::{Diff, add_or_change};
use crate::plan::join::join;
use crate::plan::{Action, Phase, Row};

impl Diff<'_> {
    /// The rows that there should be.
    fn sources(&self) -> BTreeMap<SourceKey, u32> {
        let mut rows = BTreeMap::new();
        for (identity, service) in &self.desired.services {
            let (Some(&id), Some(sources)) = (self.ids.services.get(identity), &service.sources) else {
                continue;
            };
            let key = |(bits, address): (u32, _)| SourceKey {
                bits,
                service: id,
                address,
            };
            rows.extend(sources.iter().map(|(prefix, value)| (key(*prefix), *value)));
        }
        rows
    }

    pub(super) fn make_sources(&mut self) {
        let rows = self.sources();
        for (key, value) in &rows {
            let there = self.actual.sources.get(key);
            if there != Some(value) {
                let row = Row::Source(*key, *value);
                self.push(Phase::Make, add_or_change(there.is_some()), row, Vec::new());
            }
        }
    }

    pub(super) fn break_sources(&mut self) {
        let rows = self.sources();
        for (key, wanted, there) in join(&rows, &self.actual.sources) {
            if let (None, Some(there)) = (wanted, there) {
                let row = Row::Source(*key, *there);
                self.push(Phase::Break, Action::Remove, row, Vec::new());
            }
        }
    }

    /// The value of a frontend that leads to the service `id`, known by its identity. Only published ports choose clients.
    pub(super) fn frontend(&self, key: &EndpointKey, identity: &u64, id: u32) -> Frontend {
        let service = self.desired.services.get(identity);
        let chooses = service.is_some_and(|service| service.sources.is_some());
        let filtered = chooses && key.network == NETWORK_NODE;
        Frontend {
            service: id,
            flags: if filtered { FRONTEND_FILTERED } else { 0 },
        }
    }
}
