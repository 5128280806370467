//! Walking through a map: in batches where the kernel has them, key by key otherwise.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya_obj::generated::bpf_map_type;

use super::Map;
use super::sys::{self, Read};

/// Elements per system call: enough to make its cost vanish, and under a megabyte for the largest value.
const BATCH: u32 = 4096;

/// How far a map is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// To its end.
    End,
    /// An array whose numbers are given out from the lowest and whose elements, once used, are never zero again: to the
    /// first stretch of zeros. The rest, most of its capacity, is not copied at each look.
    Unused,
    /// An array: to this index.
    Index(u32),
}

impl Map {
    fn is_percpu(&self) -> bool {
        self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32
            || self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32
    }

    pub(super) fn is_array(&self) -> bool {
        self.kind == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32
            || self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32
    }

    /// Calls `each` with the bytes of every element, up to where `until` says; of per-CPU maps with the values of all CPUs
    /// behind each other.
    pub(super) fn for_each(&self, cpus: usize, until: Until, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        // Per-CPU values are laid out at multiples of eight bytes; our own are such already.
        let value_size = if self.is_percpu() {
            self.value_size.next_multiple_of(8) * cpus
        } else {
            self.value_size
        };
        let fd = self.fd.as_fd();
        let mut count = BATCH.min(self.max_entries);
        let mut left = match until {
            Until::Index(end) => end as usize,
            Until::End | Until::Unused => usize::MAX,
        };
        count = count.min(u32::try_from(left.max(1)).unwrap_or(u32::MAX));
        let mut cursor = vec![0; self.key_size.max(4)];
        let mut keys = vec![0; self.key_size * count as usize];
        let mut values = vec![0; value_size * count as usize];
        let mut first = true;
        loop {
            let mut emit = |n: usize, keys: &[u8], values: &[u8]| {
                for (key, value) in keys
                    .chunks_exact(self.key_size)
                    .zip(values.chunks_exact(value_size))
                    .take(n)
                {
                    each(key, value);
                }
            };
            match sys::lookup_batch(fd, first, &mut cursor, &mut keys, &mut values, count)? {
                Read::More(n) => {
                    emit(n.min(left), &keys, &values);
                    left -= n.min(left);
                    let unused = || values[..n * value_size].iter().all(|b| *b == 0);
                    if left == 0 || until == Until::Unused && unused() {
                        return Ok(());
                    }
                }
                Read::Last(n) => {
                    emit(n.min(left), &keys, &values);
                    return Ok(());
                }
                Read::TooSmall => {
                    count *= 2;
                    keys.resize(self.key_size * count as usize, 0);
                    values.resize(value_size * count as usize, 0);
                    continue;
                }
                Read::Unsupported => return key_by_key(fd, self.key_size, value_size, each),
            }
            first = false;
        }
    }
}

fn key_by_key(
    fd: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let (mut key, mut next) = (vec![0; key_size], vec![0; key_size]);
    let mut value = vec![0; value_size];
    let mut more = sys::next_key(fd, None, &mut next)?;
    while more {
        std::mem::swap(&mut key, &mut next);
        // An element that was deleted meanwhile is skipped, and the kernel starts again from the front.
        if sys::lookup(fd, &key, &mut value)? {
            each(&key, &value);
        }
        more = sys::next_key(fd, Some(&key), &mut next)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aya::maps::{HashMap, Map as AyaMap, MapData};
    use lb_common::testing::skip::skip;

    use super::*;

    #[test]
    fn key_by_key_finds_what_batches_find() {
        let definition = aya_obj::maps::bpf_map_def {
            map_type: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
            key_size: 4,
            value_size: 8,
            max_entries: 1000,
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
        let data = match MapData::create(object, "view_test", None) {
            Ok(data) => data,
            Err(e) => {
                skip(&format!("needs CAP_BPF: {e}"));
                return;
            }
        };
        let fd = data.fd().as_fd().try_clone_to_owned().unwrap();
        let mut aya = HashMap::<_, u32, u64>::try_from(AyaMap::HashMap(data)).unwrap();
        for i in 0..700 {
            aya.insert(i, u64::from(i) * 3, 0).unwrap();
        }
        let kind = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
        let map = Map {
            fd,
            id: 0,
            kind,
            key_size: 4,
            value_size: 8,
            max_entries: 1000,
        };
        let mut batched = BTreeMap::new();
        map.for_each(1, Until::End, |key, value| {
            assert!(batched.insert(key.to_vec(), value.to_vec()).is_none())
        })
        .unwrap();
        let mut single = BTreeMap::new();
        key_by_key(map.fd.as_fd(), 4, 8, |key, value| {
            single.insert(key.to_vec(), value.to_vec());
        })
        .unwrap();
        assert_eq!(batched.len(), 700);
        assert_eq!(batched, single);
        assert_eq!(batched[&5u32.to_ne_bytes().to_vec()], 15u64.to_ne_bytes());
    }
}
