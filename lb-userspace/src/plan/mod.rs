//! From [`crate::model::desired::Desired`] and what the maps hold to a [`Plan`], and its application.
//!
//! | file | holds |
//! |---|---|
//! | [`actual`] | what the tables hold now |
//! | [`ids`] | which number stands for which name |
//! | [`left()`] | backends that have left one of their services |
//! | [`slots`] | the order of a service's slots |
//! | [`diff()`] | the plan: make before break |
//! | [`apply()`] | its execution, step by step |
//! | [`marks`] | on which ports the programs look for frontends at all |
//! | [`mirror`] | what the tables hold, remembered, and plans for a part of it |
//! | [`rest`] | ends of plans, until programs have settled |
//! | [`store`], [`memory`] | where tables are |

pub mod actual;
pub mod apply;
pub mod diff;
mod explain;
pub mod ids;
mod join;
mod left;
pub mod marks;
pub mod memory;
pub mod mirror;
mod print;
pub mod rest;
pub mod slots;
pub mod store;

use lb_common::abi::{self, EndpointKey, Frontend, NodeAddress, SlotKey, SourceKey, Vip, VipKey};
use lb_common::address::Address;
use serde::Serialize;

pub use actual::{Actual, Reusable};
pub use apply::{Report, apply, apply_with, begin, remove};
pub use diff::{diff, writes};
pub use left::{Resting, Strays, left, resting};
pub use memory::MemoryTables;
pub use mirror::Mirror;
pub use rest::Rest;

/// The difference between desired and actual: every write in the order in which it must be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// What changes, in the operator's words.
    pub changes: Vec<Change>,
    /// The writes. Whatever prefix of them is done, every lookup that is valid before and wanted after is valid.
    pub ops: Vec<Op>,
    /// What is desired and cannot be planned, because a table is full.
    pub problems: Vec<String>,
}

impl Plan {
    /// Nothing to write: the tables hold what they should, as far as they have room.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// One write to one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Why it is where it is in the order.
    pub phase: Phase,
    /// What it does to the row.
    pub action: Action,
    /// The row as it will be; of a row that is deleted, as it was.
    pub row: Row,
    /// Indexes of ops without which this one must not be done.
    pub after: Vec<usize>,
}

/// Stages of a plan, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Rows to which nothing leads yet.
    Make,
    /// One write per service puts its new slots in force; frontends that change their service do it here.
    Flip,
    /// Backends that drain from now on, then frontends and VIPs that lead to what has been made.
    Expose,
    /// Rows that nobody should reach any more are cut off.
    Close,
    /// Rows to which nothing leads any more.
    Break,
}

/// What happens to a row or to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Add,
    /// It is replaced.
    Change,
    /// It goes. Rows of `nodes` and `backends` stay as tombstones that keep address and generation.
    Remove,
}

/// A row of one of the tables that plans write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    /// Of `nodes`.
    Node(u32, abi::Node),
    /// Of `addresses`.
    Address(Address, NodeAddress),
    /// Of `backends`.
    Backend(u32, abi::Backend),
    /// Of `local_backends`.
    LocalBackend(EndpointKey, u32),
    /// Of `slots`.
    Slot(SlotKey, u32),
    /// Of `services`.
    Service(u32, abi::Service),
    /// Of `frontends`.
    Frontend(EndpointKey, Frontend),
    /// Of `vips`.
    Vip(VipKey, Vip),
    /// Of `sources`.
    Source(SourceKey, u32),
}

/// One change in the operator's words, with those inside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What happens. A changed object with changes inside is only their heading.
    pub action: Action,
    /// Kind of the object: `node`, `service`, `backend`, `frontend`, ...
    pub object: &'static str,
    /// Which one.
    pub name: String,
    /// What about it, may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Changes inside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl Change {
    fn new(action: Action, object: &'static str, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            action,
            object,
            name: name.into(),
            detail: detail.into(),
            changes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
