//! Puts what is desired into the kernel: the interfaces' rows, the programs, the tables.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use lb_common::abi::{Interfaces as InterfaceTable, SettingsTable};

use super::{Inputs, Outcome, Synchronizer};
use crate::agent::surroundings::Oddity;
use crate::datapath::attach::Interfaces;
use crate::datapath::shed;
use crate::fault::{self, Point};
use crate::model::desired::Desired;
use crate::plan::store::{ReadTables, WriteTables};
use crate::plan::{self, Actual, Mirror, Plan, Resting};

impl Synchronizer {
    /// All of it, in the order that [`sync`](super) gives. Returns what the tables hold then, if parts of it can be
    /// planned alone.
    ///
    /// # Errors
    /// If nothing could be done. Failures of parts are in [`Outcome::problems`].
    pub(super) fn write(
        &mut self,
        inputs: &Inputs,
        interfaces: &Interfaces,
        odd: Vec<Oddity>,
    ) -> Result<(Outcome, Option<Mirror>)> {
        let mut outcome = Outcome {
            odd,
            basis: Arc::clone(&inputs.basis),
            whole: true,
            ..Outcome::default()
        };
        let start = Instant::now();
        let desired = inputs.basis.desired()?;
        for refusal in &desired.refused {
            outcome.odd.push(Oddity::new(&refusal.object, &refusal.reason));
        }
        outcome.phases[0] = start.elapsed();
        fault::here(Point::SyncBegun);

        if self.store.get::<SettingsTable>(&0)? != Some(inputs.settings) {
            self.store.set::<SettingsTable>(&0, &inputs.settings)?;
            outcome.writes += 1;
        }
        fault::here(Point::SyncSettings);
        let present = self.store.entries::<InterfaceTable>()?;
        for (interface, row) in &inputs.rows {
            if present.get(interface) != Some(row) {
                self.store.set::<InterfaceTable>(interface, row)?;
                outcome.writes += 1;
            }
        }
        fault::here(Point::SyncInterfaces);

        let mut mirror = None;
        if self.fill_first {
            mirror = self.fill(desired.clone(), &mut outcome)?;
        }
        self.attach(interfaces, &mut outcome);
        if !std::mem::take(&mut self.fill_first) {
            mirror = self.fill(desired, &mut outcome)?;
        }

        for interface in present.keys().filter(|i| !inputs.rows.contains_key(i)) {
            self.store.delete::<InterfaceTable>(interface)?;
            outcome.writes += 1;
        }
        Ok((outcome, mirror))
    }

    /// The programs.
    fn attach(&mut self, interfaces: &Interfaces, outcome: &mut Outcome) {
        outcome.attachments = self.attacher.reconcile(&interfaces.wanted());
        for attachment in &outcome.attachments {
            if let Some(error) = &attachment.error {
                outcome.problems.push(format!(
                    "cannot attach {} to {}: {error}",
                    attachment.hook, attachment.interface
                ));
            }
        }
        fault::here(Point::SyncAttached);
    }

    /// The tables. Returns what they hold then, if parts of it can be planned alone.
    fn fill(&mut self, desired: Desired, outcome: &mut Outcome) -> Result<Option<Mirror>> {
        let start = Instant::now();
        let mut actual = Actual::read(&self.store).context("cannot read the tables")?;
        let resting = self.resting.take();
        if resting.is_none() {
            // Nobody has seen which services went before.
            let named = shed::named(&self.store).context("cannot read the flows")?;
            let now = Instant::now();
            for service in named.into_iter().filter(|id| !actual.services.contains_key(id)) {
                self.reusable.retired.entry(service).or_insert(now);
            }
        }
        actual.reusable = self.reusable.clone();
        let plan = if explained() { plan::diff } else { plan::writes }(&desired, &actual);
        let left = plan::left(&desired, &actual, resting.as_ref().unwrap_or(&Resting::new()));
        outcome.phases[1] = start.elapsed();
        fault::here(Point::SyncPlanned);

        let start = Instant::now();
        let mut ended = Ok(0);
        let report = plan::apply_with(&plan, &mut self.store, |store| {
            let strays = resting.is_none().then(|| plan::Strays::new(&desired, &actual));
            if strays.is_some() || !left.is_empty() {
                ended = shed::shed(store, |flow| {
                    left.contains(&(flow.service, flow.backend)) || strays.is_some_and(|strays| strays.has(flow))
                });
            }
        });
        // Of what failed nothing is lost by this either.
        let now = Instant::now();
        plan.ops.iter().for_each(|op| self.reusable.note(op, now));
        let ended = ended?;
        if ended > 0 {
            tracing::info!(target: "lb::sync", flows = ended, "flows leave backends that other services still use");
        }
        self.resting = report.is_complete().then(|| plan::resting(&desired).collect());
        let Desired { separate, drained, .. } = desired;
        outcome.phases[2] = start.elapsed();
        fault::here(Point::SyncApplied);
        outcome.writes += report.done;
        outcome.complete = report.is_complete() && plan.problems.is_empty();
        outcome.problems.extend(plan.problems.iter().cloned());
        if !report.is_complete() {
            outcome.problems.push(report.to_string());
        } else if self.shed != drained {
            let leave = shed::drained(&self.store, &drained)?;
            let mut moved = 0;
            if !leave.is_empty() {
                // A program that has read the old slots may be writing its flow down.
                self.store.settle();
                moved = shed::shed(&self.store, |flow| leave.contains(&(flow.service, flow.backend)))?;
            }
            if moved > 0 {
                tracing::info!(target: "lb::sync", flows = moved, "UDP flows leave what drains in their service alone");
            }
            self.shed = drained;
        }
        say(&plan);
        Ok((separate && outcome.complete).then(|| {
            plan.ops.iter().for_each(|op| actual.note(op));
            Mirror::new(actual)
        }))
    }
}

/// Whether anybody wants to know what changes.
pub(super) fn explained() -> bool {
    tracing::enabled!(target: "lb::sync", tracing::Level::DEBUG)
}

pub(super) fn say(plan: &Plan) {
    for change in &plan.changes {
        tracing::debug!(target: "lb::sync", action = ?change.action, object = change.object, name = %change.name,
            detail = %change.detail, "change");
    }
}
