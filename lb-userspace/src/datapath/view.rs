//! [`View`]: read-only access to the pinned maps and links, for the agent's reports and for `lbctl` without an agent.
//!
//! Needs read permission on the pins, not the capability to load programs. Never writes.

mod counters;
mod info;
mod iterate;
mod open;
mod programs;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lb_common::abi::{Backends, Cursors, Nodes, SERVICE_COUNTERS, Services, Table};

use self::iterate::Until;
use super::{clock, sys};
use crate::plan::store::{ReadTables, StoreError};

pub use info::MapInfo;
pub use open::ViewError;
pub use programs::ProgramInfo;

struct Map {
    fd: OwnedFd,
    id: u32,
    kind: u32,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

/// Read-only handles on every map.
pub struct View {
    directory: PathBuf,
    maps: BTreeMap<&'static str, Map>,
    cpus: usize,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl View {
    /// The directory that holds the pins.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Calls `each` for every entry, without holding them all. Of an array, for every element that is not all zero.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn for_each<T: Table>(&self, mut each: impl FnMut(T::Key, T::Value)) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        self.each_bytes(T::NAME, |key, value| each(pod(key), pod(value)))
    }

    fn map(&self, name: &'static str) -> &Map {
        // Every name that reaches here was opened by `open`.
        &self.maps[name]
    }

    /// How far a map is worth reading: arrays are as long as their capacity.
    fn until(&self, name: &'static str) -> Result<Until, StoreError> {
        if name == Backends::NAME || name == Nodes::NAME {
            return Ok(Until::Unused);
        }
        if name == Cursors::NAME || name == SERVICE_COUNTERS {
            let mut end = 0;
            self.for_each::<Services>(|id, _| end = end.max(id + 1))?;
            return Ok(Until::Index(end));
        }
        Ok(Until::End)
    }

    fn each_bytes(&self, name: &'static str, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let map = self.map(name);
        let array = map.is_array();
        let until = self.until(name)?;
        map.for_each(self.cpus, until, |key, value| {
            if !array || value.iter().any(|b| *b != 0) {
                each(key, value);
            }
        })
        .map_err(|source| StoreError {
            map: name,
            operation: "read",
            source,
        })
    }

    /// The pinned programs and links, by name.
    ///
    /// # Errors
    /// When a directory of pins cannot be listed; an object that may not be opened is listed by its name alone.
    pub fn programs(&self) -> io::Result<Vec<ProgramInfo>> {
        programs::list(&self.directory)
    }
}

impl ReadTables for View {
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        let mut all = BTreeMap::new();
        self.for_each::<T>(|key, value| {
            if !T::ARRAY || value != T::Value::default() {
                all.insert(key, value);
            }
        })?;
        Ok(all)
    }

    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        let mut value = vec![0; size_of::<T::Value>()];
        // SAFETY: Pod keys are plain bytes without padding.
        let key = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(key).cast::<u8>(), size_of::<T::Key>()) };
        let there = sys::lookup(self.map(T::NAME).fd.as_fd(), key, &mut value).map_err(|source| StoreError {
            map: T::NAME,
            operation: "read",
            source,
        })?;
        let value: T::Value = pod(&value);
        Ok((there && (!T::ARRAY || value != T::Value::default())).then_some(value))
    }
}

/// The tick of this moment, on the programs' clock.
pub fn now_ticks() -> u32 {
    clock::now()
}

/// Reads a plain value out of the first bytes.
fn pod<T: aya::Pod>(bytes: &[u8]) -> T {
    assert!(
        bytes.len() >= size_of::<T>(),
        "sizes were checked when the map was opened"
    );
    // SAFETY: long enough, and any bytes are a valid Pod.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
