//! [`MapInfo`]: each map as the kernel describes it.

use std::os::fd::AsRawFd;

use super::{Map, View};
use crate::plan::store::StoreError;

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

impl View {
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
