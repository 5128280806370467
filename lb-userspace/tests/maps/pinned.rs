//! A bpffs of the test's own, with every map of the layout pinned in it (small ones).

use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData};
use aya_obj::generated::bpf_map_type;
use lb_common::abi::{self, Table};
use lb_common::testing::skip::skip;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Unmounts the bpffs, and with it every pin, when dropped.
pub(crate) struct Pinned {
    directory: tempfile::TempDir,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// None, after saying so, where BPF cannot be used; in strict mode a failure.
pub(crate) fn bpffs() -> Option<Pinned> {
    let directory = tempfile::tempdir().unwrap();
    let mounted = mount(
        Some("bpf"),
        directory.path(),
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    );
    if let Err(e) = mounted {
        skip(&format!("needs root to mount a bpffs: {e}"));
        return None;
    }
    Some(Pinned { directory })
}

impl Pinned {
    /// The `--bpffs` directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the maps are pinned.
    pub(crate) fn maps(&self) -> PathBuf {
        self.path().join(format!("v{}", abi::SCHEMA_VERSION))
    }

    /// Creates and pins one map.
    pub(crate) fn create(&self, name: &str, kind: bpf_map_type, key: usize, value: usize, entries: u32) -> MapData {
        std::fs::create_dir_all(self.maps()).unwrap();
        let definition = aya_obj::maps::bpf_map_def {
            map_type: kind as u32,
            key_size: key as u32,
            value_size: value as u32,
            max_entries: entries,
            // The kernel makes no trie without.
            map_flags: match kind {
                bpf_map_type::BPF_MAP_TYPE_LPM_TRIE => aya_obj::generated::BPF_F_NO_PREALLOC,
                _ => 0,
            },
            ..Default::default()
        };
        let object = aya_obj::Map::Legacy(aya_obj::maps::LegacyMap {
            section_index: 0,
            section_kind: aya_obj::EbpfSectionKind::Maps,
            symbol_index: None,
            def: definition,
            inner_def: None,
            data: Vec::new(),
        });
        let map = MapData::create(object, name, None).unwrap();
        map.pin(self.maps().join(name)).unwrap();
        map
    }

    fn table<T: Table>(&self) {
        // More than one batch fits.
        let (kind, entries) = match T::ARRAY {
            true => (bpf_map_type::BPF_MAP_TYPE_ARRAY, 10_000),
            false => (bpf_map_type::BPF_MAP_TYPE_HASH, 20_000),
        };
        self.create(T::NAME, kind, size_of::<T::Key>(), size_of::<T::Value>(), entries);
    }

    /// Creates and pins every map.
    pub(crate) fn create_all(&self) {
        macro_rules! tables {
            ($($table:ident)*) => { $( self.table::<abi::$table>(); )* };
        }
        tables!(SettingsTable Interfaces Frontends Services Slots Cursors Backends LocalBackends Nodes Addresses Vips);
        tables!(Flows4 Flows6 Replies4 Replies6);
        tables!(Overflow4 Overflow6 OverflowReplies4 OverflowReplies6 PressureTable PathMtus Marks Ports);
        let trie = bpf_map_type::BPF_MAP_TYPE_LPM_TRIE;
        self.create(abi::Sources::NAME, trie, size_of::<abi::SourceKey>(), 4, 100);
        let percpu = bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
        self.create(abi::COUNTERS, percpu, 4, size_of::<abi::Counter>(), 64);
        self.create(abi::SERVICE_COUNTERS, percpu, 4, size_of::<abi::ServiceCounter>(), 100);
    }

    fn pin(&self, name: &str) -> MapData {
        MapData::from_pin(self.maps().join(name)).unwrap()
    }

    /// Writes one element of an array.
    pub(crate) fn set<T: Table<Key = u32>>(&self, index: u32, value: T::Value)
    where
        T::Value: aya::Pod,
    {
        Array::<_, T::Value>::try_from(Map::Array(self.pin(T::NAME)))
            .unwrap()
            .set(index, value, 0)
            .unwrap();
    }

    /// Writes entries of a hash.
    pub(crate) fn insert<T: Table>(&self, entries: impl IntoIterator<Item = (T::Key, T::Value)>)
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let mut map = HashMap::<_, T::Key, T::Value>::try_from(Map::HashMap(self.pin(T::NAME))).unwrap();
        for (key, value) in entries {
            map.insert(key, value, 0).unwrap();
        }
    }

    /// Writes one element of a per-CPU array: `value(cpu)` on each CPU.
    pub(crate) fn set_percpu<V: aya::Pod>(&self, name: &str, index: u32, value: impl Fn(u64) -> V) {
        let cpus = aya::util::nr_cpus().unwrap();
        let values: Vec<V> = (0..cpus as u64).map(value).collect();
        let values = aya::maps::PerCpuValues::try_from(values).unwrap();
        let mut map = aya::maps::PerCpuArray::<_, V>::try_from(Map::PerCpuArray(self.pin(name))).unwrap();
        map.set(index, values, 0).unwrap();
    }
}
