//! [`apply`]: executes a [`Plan`] in its order, and says what did not work.

use std::fmt;
use std::ops::Range;

use lb_common::abi::{Addresses, Backends, Frontends, LocalBackends, Nodes, Services, Slots, Sources, Table, Vips};
use serde::Serialize;

use super::marks;
use super::store::{StoreError, WriteTables};
use super::{Action, Op, Phase, Plan, Row};
use crate::fault::{self, Point};

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Ops that were done.
    pub done: usize,
    /// Ops that failed.
    pub failed: Vec<Failure>,
    /// Ops left out, because one that had to come first failed.
    pub skipped: usize,
}

/// An op that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Index into [`Plan::ops`].
    pub op: usize,
    /// What was to be written.
    pub what: String,
    /// What went wrong.
    pub error: String,
}

impl Report {
    /// Everything was done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.skipped == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes done, {} failed, {} left out",
            self.done,
            self.failed.len(),
            self.skipped
        )?;
        match self.failed.first() {
            Some(first) => write!(f, "; first failure: {}: {}", first.what, first.error),
            None => Ok(()),
        }
    }
}

/// Executes `plan`, never in another order. What depends on a failed op is left out and everything else done: a
/// service that cannot be changed keeps its old backends and stops no other. The next diff plans the rest again.
pub fn apply(plan: &Plan, tables: &mut impl WriteTables) -> Report {
    apply_with(plan, tables, |_| {})
}

/// As [`apply`]; calls `settled` when everything that is to be in force is, and nothing was removed yet.
pub fn apply_with<T: WriteTables>(plan: &Plan, tables: &mut T, settled: impl FnOnce(&mut T)) -> Report {
    let mut work = Work::new(plan);
    let removals = removals(plan);
    work.execute(0..removals, tables);
    if removals > 0 && removals < plan.ops.len() {
        tables.settle();
        fault::here(Point::ApplySettled);
    }
    if work.report.is_complete() {
        settled(tables);
    }
    work.execute(removals..plan.ops.len(), tables);
    work.report
}

/// As [`apply`], up to where it would wait until nothing leads to what is to be removed: then everything is in force.
/// The others are left to [`remove`], if this is complete and tables have settled ([`WriteTables::settle`]).
pub fn begin(plan: &Plan, tables: &mut impl WriteTables) -> Report {
    let mut work = Work::new(plan);
    work.execute(0..removals(plan), tables);
    work.report
}

/// What [`begin`] has left: ops that wait for no other.
///
/// # Errors
/// If the table refuses one: the others behind it are not done.
pub fn remove(ops: &[Op], tables: &mut impl WriteTables) -> Result<(), StoreError> {
    ops.iter().try_for_each(|op| {
        fault::here(point(op.phase));
        execute(op, tables)
    })
}

/// Index of the first op that removes what nothing leads to any more.
fn removals(plan: &Plan) -> usize {
    plan.ops.partition_point(|op| op.phase < Phase::Break)
}

struct Work<'a> {
    plan: &'a Plan,
    report: Report,
    /// Ops that were not done.
    missing: Vec<bool>,
}

impl<'a> Work<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            report: Report::default(),
            missing: vec![false; plan.ops.len()],
        }
    }

    fn execute(&mut self, range: Range<usize>, tables: &mut impl WriteTables) {
        for index in range {
            let op = &self.plan.ops[index];
            if op.after.iter().any(|first| self.missing[*first]) {
                self.missing[index] = true;
                self.report.skipped += 1;
                continue;
            }
            fault::here(point(op.phase));
            match execute(op, tables) {
                Ok(()) => self.report.done += 1,
                Err(error) => {
                    self.missing[index] = true;
                    self.report.failed.push(Failure {
                        op: index,
                        what: op.to_string(),
                        error: error.to_string(),
                    });
                }
            }
        }
    }
}

const fn point(phase: Phase) -> Point {
    match phase {
        Phase::Make => Point::ApplyMake,
        Phase::Flip => Point::ApplyFlip,
        Phase::Expose => Point::ApplyExpose,
        Phase::Close => Point::ApplyClose,
        Phase::Break => Point::ApplyBreak,
    }
}

/// Executes one op.
///
/// # Errors
/// If the table refuses the write.
pub fn execute(op: &Op, tables: &mut impl WriteTables) -> Result<(), StoreError> {
    let remove = op.action == Action::Remove;
    match &op.row {
        // These keep a tombstone.
        Row::Node(id, value) => tables.set::<Nodes>(id, value),
        Row::Backend(id, value) => tables.set::<Backends>(id, value),
        Row::Address(key, value) => write::<Addresses>(tables, key, value, remove),
        Row::LocalBackend(key, value) => write::<LocalBackends>(tables, key, value, remove),
        Row::Slot(key, value) => write::<Slots>(tables, key, value, remove),
        Row::Service(id, value) => write::<Services>(tables, id, value, remove),
        Row::Frontend(key, value) => {
            if !remove {
                marks::set(tables, key)?;
            }
            write::<Frontends>(tables, key, value, remove)
        }
        Row::Vip(key, value) => write::<Vips>(tables, key, value, remove),
        Row::Source(key, value) => write::<Sources>(tables, key, value, remove),
    }
}

fn write<T: Table>(
    tables: &mut impl WriteTables,
    key: &T::Key,
    value: &T::Value,
    remove: bool,
) -> Result<(), StoreError>
where
    T::Key: aya::Pod,
    T::Value: aya::Pod + Default,
{
    if remove {
        tables.delete::<T>(key)
    } else {
        tables.set::<T>(key, value)
    }
}
