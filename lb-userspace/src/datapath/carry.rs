//! Tables go over from an earlier version's pins: flows outlive a change of the layout that is not a change of theirs.
//!
//! A table whose rows mean today what they meant then is not copied: the same map is pinned a second time, below this
//! version's directory. The programs of both versions share it for as long as some hooks still run the old ones, so
//! nothing that happens meanwhile is missed. All others begin empty and are filled from the cluster state before a
//! hook is handed over. A table is shared only together with those that it refers to, because ids live in the rows.
//!
//! Killed at any step, the next start goes on: what is pinned below this version's directory stays, the rest is looked
//! for again, until the last hook has been handed over and the old directory is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::layout::{self, Shape};
use super::load::LoadError;
use super::sys;
use crate::fault::{self, Point};

/// Which tables each table's rows refer to by id.
const REFERS: &[(&str, &[&str])] = &[
    ("frontends", &["services"]),
    ("services", &["slots"]),
    ("slots", &["backends"]),
    ("cursors", &["services"]),
    ("sources", &["services"]),
    ("service_counters", &["services"]),
    ("local_backends", &["backends"]),
    ("backends", &["nodes"]),
    ("addresses", &["nodes"]),
    ("path_mtus", &["nodes"]),
    ("flows4", &["backends", "services", "nodes"]),
    ("flows6", &["backends", "services", "nodes"]),
    ("replies4", &["flows4"]),
    ("replies6", &["flows6"]),
    ("overflow4", &["backends", "services", "nodes"]),
    ("overflow6", &["backends", "services", "nodes"]),
    ("overflow_replies4", &["overflow4"]),
    ("overflow_replies6", &["overflow6"]),
];
/// Where what attached programs go on with is: as long as they are the old ones, in old programs.
const NEVER: &str = lb_common::abi::JUMPS;

/// What became of the tables of other versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Directories of other versions whose links are still to be handed over.
    pub directories: Vec<PathBuf>,
    /// Tables that begin empty now although another version has them.
    pub empty: Vec<String>,
    /// The tables must be filled before programs are exchanged.
    pub fill_first: bool,
}

impl Carried {
    /// Flows of the other version are lost: they begin empty, because they or what they refer to have another layout.
    pub fn loses_flows(&self) -> bool {
        self.empty.iter().any(|name| layout::is_flow_table(name))
    }
}

/// Pins the maps of other versions below `directory`, each from the newest that has it, as far as `shapes` (those of the
/// object) and [`layout::same_since`] allow and none is pinned there yet. (Several are left where agents of several versions
/// were killed before they were done.)
///
/// # Errors
/// A pin cannot be read or made.
pub(super) fn carry(
    bpffs: &Path,
    directory: &Path,
    shapes: &BTreeMap<&str, Shape>,
    pinned: impl Fn(&Path) -> Result<Option<Shape>, LoadError>,
) -> Result<Carried, LoadError> {
    let others = layout::others(bpffs);
    if others.is_empty() {
        return Ok(Carried::default());
    }
    let mut there = BTreeMap::new();
    let mut fits = BTreeSet::new();
    for (name, shape) in shapes.iter().filter(|(name, _)| **name != NEVER) {
        for (version, source) in &others {
            let pin = source.join(name);
            let Some(found) = pinned(&pin)? else { continue };
            there.insert(*name, pin);
            let same = layout::same_since(name).is_some_and(|since| (since..=layout::version()).contains(version));
            if same && layout::check(name, shape, &found).is_ok() {
                fits.insert(*name);
            }
            break;
        }
    }
    let shared = closed(fits);
    let mut empty = Vec::new();
    for (name, from) in &there {
        let pin = directory.join(name);
        // Also what an agent that was killed has pinned already, or what an earlier version finds again.
        if pinned(&pin)?.is_some() {
            continue;
        }
        if !shared.contains(name) {
            empty.push((*name).to_owned());
            continue;
        }
        let again = sys::open_pin(from, sys::READ_WRITE).and_then(|fd| sys::pin(fd.as_fd(), &pin));
        again.map_err(|source| LoadError::Pin {
            operation: "take over",
            pin: from.clone(),
            source,
        })?;
        fault::here(Point::MigrateMap);
    }
    fault::here(Point::MigrateMaps);
    Ok(Carried {
        directories: others.into_iter().map(|(_, path)| path).collect(),
        empty,
        fill_first: shared.len() < there.len(),
    })
}

/// Those of `tables` that refer to nothing outside of what remains.
fn closed(mut tables: BTreeSet<&str>) -> BTreeSet<&str> {
    loop {
        let refers = |name: &str| {
            REFERS
                .iter()
                .find(|(from, _)| *from == name)
                .map_or(&[][..], |(_, to)| *to)
        };
        let lost = |name: &&&str| refers(name).iter().any(|to| !tables.contains(to));
        let Some(name) = tables.iter().find(lost).copied() else {
            return tables;
        };
        tables.remove(name);
    }
}

/// Removes the pins of another version, whose links have been handed over.
///
/// # Errors
/// What the kernel said. What is left is removed next time.
pub(super) fn retire(directory: &Path) -> io::Result<()> {
    for folder in [
        layout::programs(directory),
        layout::links(directory),
        directory.to_owned(),
    ] {
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries.collect::<io::Result<Vec<_>>>()? {
            if !entry.path().is_dir() {
                fs::remove_file(entry.path())?;
                fault::here(Point::MigrateRemoving);
            }
        }
        fs::remove_dir(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lb_common::abi;

    use super::*;

    #[test]
    fn a_table_is_not_shared_without_those_that_it_refers_to() {
        let all: BTreeSet<&str> = abi::TABLE_NAMES.iter().copied().collect();
        assert_eq!(closed(all.clone()), all);
        let without = |name| closed(all.iter().copied().filter(|table| *table != name).collect());
        assert_eq!(without("settings").len(), all.len() - 1);
        assert_eq!(without("frontends").len(), all.len() - 1);
        assert_eq!(
            without("nodes").into_iter().collect::<Vec<_>>(),
            ["interfaces", "marks", "ports", "pressure", "settings", "vips"]
        );
        assert!(!without("backends").contains("flows4") && !without("backends").contains("replies6"));
        assert!(without("flows4").contains("flows6") && !without("flows4").contains("replies4"));
    }

    #[test]
    fn what_refers_is_a_table() {
        let known = |name: &str| layout::is_pinned(name);
        for (from, to) in REFERS {
            assert!(known(from) && to.iter().all(|name| known(name)), "{from}");
        }
    }
}
