//! [`Store`]: the pinned maps as [`ReadTables`] and [`WriteTables`].
//!
//! Of arrays it is remembered how far they are in use, so that a reconciliation does not read a quarter of a million empty
//! elements: they are read so far, and on while elements follow, because ids are given from the lowest on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use aya_obj::generated::bpf_map_info;
use lb_common::abi::{self, Table};

use super::walk::Walk;
use super::{layout, sys};
use crate::plan::store::{ReadTables, StoreError, WriteTables};

/// Elements read by one system call.
const BATCH: usize = 4096;
/// At least, of an array: of what is not in use.
const BATCH_MIN: usize = 64;

/// The maps could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No map is pinned here.
    #[error("no maps are pinned in {0}: the agent has not run with this directory, or was uninstalled")]
    NoMaps(PathBuf),
    /// One map could not be opened.
    #[error("cannot open the pinned map {path}: {source}")]
    Map {
        /// Pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

struct Map {
    fd: OwnedFd,
    info: bpf_map_info,
}

/// The pinned maps of one agent.
pub struct Store {
    directory: PathBuf,
    maps: HashMap<&'static str, Map>,
    /// Bytes of each array up to its last element that is not zero.
    ends: Mutex<HashMap<&'static str, usize>>,
    collector: OnceLock<OwnedFd>,
    counters: OnceLock<Map>,
}

/// Whether the maps are opened for reading only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads only: permission to read the pins is enough.
    Read,
    /// Reads and writes.
    Write,
}

impl Store {
    /// Opens every map of [`abi::TABLE_NAMES`] pinned in `directory` (the one that holds the version).
    ///
    /// # Errors
    /// If the directory holds none, or one cannot be opened.
    pub fn open(directory: &Path, access: Access) -> Result<Self, OpenError> {
        let flags = if access == Access::Read { sys::READ_ONLY } else { 0 };
        let mut maps = HashMap::new();
        for &name in abi::TABLE_NAMES {
            let path = directory.join(name);
            let fd = match sys::open_pin(&path, flags) {
                Ok(fd) => fd,
                Err(e) if e.kind() == io::ErrorKind::NotFound && maps.is_empty() => {
                    return Err(OpenError::NoMaps(directory.to_owned()));
                }
                Err(source) => return Err(OpenError::Map { path, source }),
            };
            let info = sys::map_info(fd.as_fd()).map_err(|source| OpenError::Map { path, source })?;
            maps.insert(name, Map { fd, info });
        }
        Ok(Self {
            directory: directory.to_owned(),
            maps,
            ends: Mutex::default(),
            collector: OnceLock::new(),
            counters: OnceLock::new(),
        })
    }

    /// Where the maps are pinned.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Capacity of a table.
    pub fn capacity<T: Table>(&self) -> u32 {
        self.maps.get(T::NAME).map_or(0, |m| m.info.max_entries)
    }

    /// Calls `visit` for every entry of a hash table, a batch at a time, resting `pause` between batches.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn walk<T: Table>(
        &self,
        pause: std::time::Duration,
        mut visit: impl FnMut(&T::Key, &T::Value),
    ) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let map = self.map::<T>("read")?;
        let mut walk = Walk::new(map.fd.as_fd(), size_of::<T::Key>(), size_of::<T::Value>(), BATCH);
        while let Some((keys, values)) = walk.next_batch().map_err(|e| error::<T>("read", e))? {
            for (key, value) in keys
                .chunks_exact(size_of::<T::Key>())
                .zip(values.chunks_exact(size_of::<T::Value>()))
            {
                visit(&from_bytes(key), &from_bytes(value));
            }
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// Packets that the programs have counted, for whatever reason.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn packets(&self) -> Result<u64, StoreError> {
        let fail = |source| StoreError {
            map: abi::COUNTERS,
            operation: "read",
            source,
        };
        let counters = match self.counters.get() {
            Some(counters) => counters,
            None => {
                let fd = sys::open_pin(&self.directory.join(abi::COUNTERS), sys::READ_ONLY).map_err(fail)?;
                let info = sys::map_info(fd.as_fd()).map_err(fail)?;
                self.counters.get_or_init(|| Map { fd, info })
            }
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| fail(source))?;
        let one = size_of::<abi::Counter>();
        let count = counters.info.max_entries as usize;
        let mut walk = Walk::new(counters.fd.as_fd(), size_of::<u32>(), one * cpus, count);
        let mut packets = 0u64;
        while let Some((_, values)) = walk.next_batch().map_err(fail)? {
            let counters = values.chunks_exact(one).map(from_bytes::<abi::Counter>);
            packets = counters.fold(packets, |sum, counter| sum.wrapping_add(counter.packets));
        }
        Ok(packets)
    }

    /// Asks the kernel's part to remove an entry that looks dead (`lb_common::collect`). Whether it did.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn collect(&self, request: &abi::Collect) -> Result<bool, StoreError> {
        let fail = |source| StoreError {
            map: abi::program::COLLECT,
            operation: "run",
            source,
        };
        let program = match self.collector.get() {
            Some(program) => program,
            None => {
                let pin = layout::programs(&self.directory).join(abi::program::COLLECT);
                let program = sys::open_pin(&pin, sys::READ_WRITE).map_err(fail)?;
                self.collector.get_or_init(|| program)
            }
        };
        Ok(sys::run(program.as_fd(), &request.frame()).map_err(fail)? == 1)
    }

    /// Removes an entry of a hash table without the right to write elsewhere (expiry of flows).
    ///
    /// # Errors
    /// When the kernel refuses; not if there is no such entry, then `false`.
    pub fn remove<T: Table>(&self, key: &T::Key) -> Result<bool, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let map = self.map::<T>("delete")?;
        sys::delete(map.fd.as_fd(), as_bytes(key)).map_err(|e| error::<T>("delete", e))
    }

    fn map<T: Table>(&self, operation: &'static str) -> Result<&Map, StoreError> {
        let map = self
            .maps
            .get(T::NAME)
            .ok_or_else(|| error::<T>(operation, io::ErrorKind::NotFound.into()))?;
        let (key, value) = (size_of::<T::Key>() as u32, size_of::<T::Value>() as u32);
        if (map.info.key_size, map.info.value_size) != (key, value) {
            let detail = format!(
                "its entries have {} + {} bytes, this program's {key} + {value}: it belongs to another version",
                map.info.key_size, map.info.value_size
            );
            return Err(error::<T>(
                operation,
                io::Error::new(io::ErrorKind::InvalidData, detail),
            ));
        }
        Ok(map)
    }

    /// Calls `visit` for every element of an array up to the last that is not zero.
    fn elements<T: Table>(&self, mut visit: impl FnMut(u32, T::Value)) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let map = self.map::<T>("read")?;
        let known = self.ends.lock().expect("no panic while locked").get(T::NAME).copied();
        let size = size_of::<T::Value>();
        // Not much more than is in use, so that small clusters read little.
        let batch = known.map_or(BATCH, |end| (end / size + BATCH_MIN).min(BATCH));
        let mut walk = Walk::new(map.fd.as_fd(), size_of::<T::Key>(), size, batch);
        let (mut index, mut end) = (0, 0);
        while let Some((_, values)) = walk.next_batch().map_err(|e| error::<T>("read", e))? {
            let used = used(values, size);
            for value in values[..used].chunks_exact(size) {
                visit(index, from_bytes(value));
                index += 1;
            }
            index += ((values.len() - used) / size) as u32;
            if used > 0 {
                end = (index as usize * size) - (values.len() - used);
            } else if known.is_some_and(|known| index as usize * size >= known) {
                break;
            }
        }
        self.ends.lock().expect("no panic while locked").insert(T::NAME, end);
        Ok(())
    }
}

impl ReadTables for Store {
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        // Gathered first: a tree that is made from everything at once is made faster, and is smaller.
        let mut entries = Vec::new();
        if T::ARRAY {
            let unused = T::Value::default();
            self.elements::<T>(|index, value| {
                if value != unused {
                    entries.push((from_bytes(&index.to_ne_bytes()), value));
                }
            })?;
        } else {
            self.walk::<T>(std::time::Duration::ZERO, |key, value| {
                entries.push((*key, *value));
            })?;
        }
        Ok(entries.into_iter().collect())
    }

    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        let map = self.map::<T>("read")?;
        let mut value = vec![0; size_of::<T::Value>()];
        let found = sys::lookup(map.fd.as_fd(), as_bytes(key), &mut value).map_err(|e| error::<T>("read", e))?;
        Ok(found.then(|| from_bytes(&value)))
    }
}

impl WriteTables for Store {
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        let map = self.map::<T>("write")?;
        sys::update(map.fd.as_fd(), as_bytes(key), as_bytes(value)).map_err(|e| error::<T>("write", e))?;
        if T::ARRAY {
            let index = u32::from_ne_bytes(as_bytes(key).try_into().expect("arrays have u32 keys"));
            let ends = self.ends.get_mut().expect("no panic while locked");
            if let Some(end) = ends.get_mut(T::NAME) {
                *end = (*end).max((index as usize + 1) * size_of::<T::Value>());
            }
        }
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        if T::ARRAY {
            self.set::<T>(key, &T::Value::default())
        } else {
            self.remove::<T>(key).map(drop)
        }
    }

    fn settle(&mut self) {
        sys::wait_for_programs();
    }
}

/// Returns when no program that began before the call is still running ([`WriteTables::settle`]). Takes some
/// milliseconds, often more.
pub fn wait_for_programs() {
    sys::wait_for_programs();
}

/// Bytes up to the last element, of so many bytes each, that is not zero.
fn used(bytes: &[u8], size: usize) -> usize {
    let last = bytes.iter().rposition(|&b| b != 0);
    last.map_or(0, |last| (last / size + 1) * size)
}

fn error<T: Table>(operation: &'static str, source: io::Error) -> StoreError {
    StoreError {
        map: T::NAME,
        operation,
        source,
    }
}

fn as_bytes<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod types have no padding and live as long as the borrow.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn from_bytes<T: aya::Pod>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: the length was checked, any bit pattern is a valid Pod, and the read needs no alignment.
    unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_elements_are_in_use() {
        assert_eq!(used(&[0, 0, 1, 0, 0, 0, 0, 0], 4), 4);
        assert_eq!(used(&[0; 8], 4), 0);
        assert_eq!(used(&[0, 0, 0, 0, 0, 0, 0, 9], 4), 8);
    }

    #[test]
    fn bytes_round_trip() {
        let key = abi::SlotKey {
            service: 1,
            generation: 2,
            index: 3,
        };
        assert_eq!(from_bytes::<abi::SlotKey>(as_bytes(&key)), key);
    }
}
