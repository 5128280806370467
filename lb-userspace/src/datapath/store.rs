//! [`Store`]: the pinned maps as [`ReadTables`] and [`WriteTables`].
//!
//! Arrays that only the agent writes are mirrored in memory up to their last element in use, so that a
//! reconciliation does not read a quarter of a million empty elements. After [`Store::forget`] they are read
//! again as far as they were in use, and on while elements follow: ids are given from the lowest on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use aya_obj::generated::bpf_map_info;
use lb_common::abi::{self, Table};

use super::walk::Walk;
use super::{layout, sys};
use crate::plan::store::{ReadTables, StoreError, WriteTables};

/// Elements read by one system call.
const BATCH: usize = 4096;

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
    mirror: Mutex<HashMap<&'static str, Mirror>>,
    collector: OnceLock<OwnedFd>,
}

/// An array up to its last element that is not zero.
#[derive(Default)]
struct Mirror {
    bytes: Vec<u8>,
    fresh: bool,
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
            mirror: Mutex::default(),
            collector: OnceLock::new(),
        })
    }

    /// Where the maps are pinned.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Distrusts what is remembered, so that the next read asks the kernel again.
    pub fn forget(&self) {
        for mirror in self.mirror.lock().expect("no panic while locked").values_mut() {
            mirror.fresh = false;
        }
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

    /// Runs `read` on the bytes of an array up to its last element that is not zero.
    fn with_array<T: Table, R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let map = self.map::<T>("read")?;
        let mut mirrors = self.mirror.lock().expect("no panic while locked");
        let known = mirrors.get(T::NAME);
        // The programs write cursors themselves.
        let fresh = known.is_some_and(|m| m.fresh) && T::NAME != <abi::Cursors as Table>::NAME;
        if !fresh {
            let enough = known.map_or(usize::MAX, |m| m.bytes.len());
            let mut bytes = read_array(map.fd.as_fd(), &map.info, enough).map_err(|e| error::<T>("read", e))?;
            trim(&mut bytes, size_of::<T::Value>());
            mirrors.insert(T::NAME, Mirror { bytes, fresh: true });
        }
        Ok(read(&mirrors[T::NAME].bytes))
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
            self.with_array::<T, _>(|bytes| {
                for (index, value) in bytes.chunks_exact(size_of::<T::Value>()).enumerate() {
                    let value: T::Value = from_bytes(value);
                    if value != unused {
                        entries.push((from_bytes(&(index as u32).to_ne_bytes()), value));
                    }
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
        if let Some(Mirror { bytes, .. }) = self.mirror.get_mut().expect("no panic while locked").get_mut(T::NAME) {
            let size = size_of::<T::Value>();
            let start = u32::from_ne_bytes(as_bytes(key).try_into().expect("arrays have u32 keys")) as usize * size;
            if bytes.len() < start + size {
                bytes.resize(start + size, 0);
            }
            bytes[start..start + size].copy_from_slice(as_bytes(value));
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

/// Reads an array to its end, or, once `enough` bytes are read, to the first batch without any element in use.
fn read_array(fd: BorrowedFd<'_>, info: &bpf_map_info, enough: usize) -> io::Result<Vec<u8>> {
    let (key_size, value_size) = (info.key_size as usize, info.value_size as usize);
    let mut bytes = Vec::new();
    let mut walk = Walk::new(fd, key_size, value_size, BATCH);
    while let Some((_, values)) = walk.next_batch()? {
        bytes.extend_from_slice(values);
        if bytes.len() >= enough && values.iter().all(|&b| b == 0) {
            break;
        }
    }
    Ok(bytes)
}

/// Cuts the elements after the last that is not zero.
fn trim(bytes: &mut Vec<u8>, size: usize) {
    let used = bytes
        .iter()
        .rposition(|&b| b != 0)
        .map_or(0, |last| (last / size + 1) * size);
    bytes.truncate(used);
    bytes.shrink_to_fit();
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
    fn trim_keeps_whole_elements() {
        let mut bytes = vec![0, 0, 1, 0, 0, 0, 0, 0];
        trim(&mut bytes, 4);
        assert_eq!(bytes, [0, 0, 1, 0]);
        let mut bytes = vec![0; 8];
        trim(&mut bytes, 4);
        assert!(bytes.is_empty());
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 9];
        trim(&mut bytes, 4);
        assert_eq!(bytes.len(), 8);
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
