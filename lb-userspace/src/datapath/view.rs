//! [`View`]: read-only access to the pinned maps and links, for the agent's reports and for `lbctl` without an agent.
//!
//! Needs read permission on the pins, not the capability to load programs. Never writes.

mod iterate;
mod programs;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use lb_common::abi::{
    self, Backends, COUNTERS, Counter, Cursors, Nodes, SCHEMA_VERSION, SERVICE_COUNTERS, ServiceCounter, Services,
    Table,
};

use self::iterate::Until;
use super::{clock, sys};
use crate::plan::store::{ReadTables, StoreError};

pub use programs::ProgramInfo;

/// Why the pinned maps cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Nothing is pinned.
    #[error("no maps pinned under {}", .0.display())]
    NotFound(PathBuf),
    /// The caller may not open the pins.
    #[error("may not open {}", .0.display())]
    Denied(PathBuf),
    /// The maps have another layout than this program.
    #[error("{}: {found}; this program reads schema v{SCHEMA_VERSION}", .path.display())]
    Schema {
        /// The pin, or the directory of another version.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Anything else.
    #[error("cannot open {}: {source}", .path.display())]
    Io {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ViewError {
    fn new(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound(path.into()),
            io::ErrorKind::PermissionDenied => Self::Denied(path.into()),
            _ => Self::Io {
                path: path.into(),
                source,
            },
        }
    }
}

/// One map, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Name of the pin.
    pub name: String,
    /// The kernel's id.
    pub id: u32,
    /// `hash`, `array`, `percpu_array` ...
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (on one CPU).
    pub value_size: u32,
    /// Entries in use: of hashes what is there, of arrays what differs from zero.
    pub entries: u64,
    /// Most entries that fit.
    pub max_entries: u32,
    /// Bytes of kernel memory that it holds.
    pub memory: u64,
}

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
    /// Opens every map pinned in `<bpffs>/v<SCHEMA_VERSION>`; names the version found if it is another one.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn find(bpffs: &Path) -> Result<Self, ViewError> {
        let directory = bpffs.join(format!("v{SCHEMA_VERSION}"));
        match Self::open(&directory) {
            Err(ViewError::NotFound(_)) => match other_version(bpffs) {
                Some(path) => {
                    let found = format!(
                        "holds schema {}",
                        path.file_name().unwrap_or_default().to_string_lossy()
                    );
                    Err(ViewError::Schema { path, found })
                }
                None => Err(ViewError::NotFound(directory)),
            },
            result => result,
        }
    }

    /// Opens every map pinned in `pin_dir` and checks key and value sizes against this program's.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when `settings` is not pinned there, [`ViewError::Denied`] when the pins may not be
    /// opened, [`ViewError::Schema`] when a map is missing or has another layout.
    pub fn open(pin_dir: &Path) -> Result<Self, ViewError> {
        let mut view = Self {
            directory: pin_dir.into(),
            maps: BTreeMap::new(),
            cpus: possible_cpus()?,
        };
        view.add::<abi::SettingsTable>()?;
        macro_rules! add {
            ($($table:ident)*) => { $( view.add::<abi::$table>().map_err(missing)?; )* };
        }
        add!(Interfaces Frontends Services Slots Cursors Backends LocalBackends Nodes Addresses Vips Sources);
        add!(Flows4 Flows6 Replies4 Replies6);
        add!(Overflow4 Overflow6 OverflowReplies4 OverflowReplies6 PressureTable PathMtus Marks);
        view.add_map(COUNTERS, size_of::<u32>(), size_of::<Counter>())
            .map_err(missing)?;
        view.add_map(SERVICE_COUNTERS, size_of::<u32>(), size_of::<ServiceCounter>())
            .map_err(missing)?;
        Ok(view)
    }

    fn add<T: Table>(&mut self) -> Result<(), ViewError> {
        self.add_map(T::NAME, size_of::<T::Key>(), size_of::<T::Value>())
    }

    fn add_map(&mut self, name: &'static str, key_size: usize, value_size: usize) -> Result<(), ViewError> {
        let path = self.directory.join(name);
        let fd = sys::open_pin(&path, sys::READ_ONLY).map_err(|e| ViewError::new(&path, e))?;
        let info = sys::map_info(fd.as_fd()).map_err(|e| ViewError::new(&path, e))?;
        let found = (info.key_size as usize, info.value_size as usize);
        if found != (key_size, value_size) {
            let found = format!(
                "keys of {} and values of {} bytes where {key_size} and {value_size} are expected",
                found.0, found.1
            );
            return Err(ViewError::Schema { path, found });
        }
        self.maps.insert(
            name,
            Map {
                fd,
                id: info.id,
                kind: info.type_,
                key_size,
                value_size,
                max_entries: info.max_entries,
            },
        );
        Ok(())
    }

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

    /// Packets and bytes by reason code, summed over CPUs; codes that never occurred are left out.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn counters(&self) -> Result<BTreeMap<u8, Counter>, StoreError> {
        let mut all = BTreeMap::new();
        self.each_bytes(COUNTERS, |key, value| {
            let mut sum = Counter::default();
            for one in value.chunks_exact(size_of::<Counter>()).map(pod::<Counter>) {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
            all.insert(u8::try_from(pod::<u32>(key)).unwrap_or(u8::MAX), sum);
        })?;
        Ok(all)
    }

    /// Traffic by service id, summed over CPUs; services without any are left out.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn service_counters(&self) -> Result<BTreeMap<u32, ServiceCounter>, StoreError> {
        let mut all = BTreeMap::new();
        self.each_bytes(SERVICE_COUNTERS, |key, value| {
            let mut sum = ServiceCounter::default();
            for one in value
                .chunks_exact(size_of::<ServiceCounter>())
                .map(pod::<ServiceCounter>)
            {
                sum.flows += one.flows;
                sum.packets += one.packets;
                sum.bytes += one.bytes;
                sum.reply_packets += one.reply_packets;
                sum.reply_bytes += one.reply_bytes;
            }
            all.insert(pod(key), sum);
        })?;
        Ok(all)
    }

    /// Every map with its fill. Reads every map through to count its entries.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn map_info(&self) -> Result<Vec<MapInfo>, StoreError> {
        let mut all = Vec::new();
        for (name, map) in &self.maps {
            let mut entries = 0;
            self.each_bytes(name, |_, _| entries += 1)?;
            all.push(MapInfo {
                name: (*name).into(),
                id: map.id,
                kind: kind_name(map.kind),
                key_size: map.key_size as u32,
                value_size: map.value_size as u32,
                entries,
                max_entries: map.max_entries,
                memory: memory(map),
            });
        }
        Ok(all)
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

/// A map missing beside `settings` is a layout that we do not know.
fn missing(error: ViewError) -> ViewError {
    match error {
        ViewError::NotFound(path) => ViewError::Schema {
            path,
            found: "no such map".into(),
        },
        other => other,
    }
}

/// A directory `v<N>` beside the one we know.
fn other_version(bpffs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(bpffs).ok()?.flatten();
    entries.map(|e| e.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix('v')
            .and_then(|v| v.parse().ok())
            .is_some_and(|v: u32| v != SCHEMA_VERSION)
            && path.join("settings").exists()
    })
}

/// Number of CPUs that per-CPU maps have room for.
fn possible_cpus() -> Result<usize, ViewError> {
    aya::util::nr_cpus().map_err(|(path, source)| ViewError::Io {
        path: PathBuf::from(path),
        source,
    })
}

fn kind_name(kind: u32) -> String {
    use aya_obj::generated::bpf_map_type as t;
    const NAMES: &[(u32, &str)] = &[
        (t::BPF_MAP_TYPE_HASH as u32, "hash"),
        (t::BPF_MAP_TYPE_ARRAY as u32, "array"),
        (t::BPF_MAP_TYPE_PERCPU_HASH as u32, "percpu_hash"),
        (t::BPF_MAP_TYPE_PERCPU_ARRAY as u32, "percpu_array"),
        (t::BPF_MAP_TYPE_LRU_HASH as u32, "lru_hash"),
        (t::BPF_MAP_TYPE_RINGBUF as u32, "ringbuf"),
    ];
    NAMES
        .iter()
        .find(|(k, _)| *k == kind)
        .map_or_else(|| format!("type {kind}"), |(_, name)| (*name).into())
}

/// The kernel's own account of the map's memory; 0 where it does not say.
fn memory(map: &Map) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", map.fd.as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .and_then(|v| v.trim().parse().ok())
        .unwrap_or(0)
}
