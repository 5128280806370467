//! Memory of one kind for all tables.
//!
//! The kernel first hands out what lies scattered among memory in use, then whole blocks. What waits for memory, as programs do with
//! many flows, takes up to a third longer with tables of scattered pages: who came first would be the slower one.

use std::fs;

use anyhow::{Context as _, Result};
use aya::Ebpf;

use crate::yardstick;

/// Entries of one table that takes memory; some 80 bytes each.
const ENTRIES: u32 = 1 << 20;
const ENTRY: u64 = 80;
const PAGE: u64 = 4096;
/// Orders of blocks from which on they do not count as scattered: 2 MiB.
const WHOLE: usize = 9;
/// Of the memory that is free, no more than this share is taken.
const SHARE: u64 = 4;

/// Takes the kernel's scattered memory, for as long as the result is held.
///
/// # Errors
/// If the kernel does not say what lies scattered, or refuses tables.
pub(super) fn take_scattered(object: &[u8]) -> Result<Vec<Ebpf>> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let wanted = scattered(&read("/proc/pagetypeinfo")?).min(available(&read("/proc/meminfo")?) / SHARE);
    let tables = wanted.div_ceil(u64::from(ENTRIES) * ENTRY);
    (0..tables)
        .map(|_| yardstick::load_for_memory(object, ENTRIES))
        .collect()
}

/// Bytes of what the kernel would use for itself, in blocks that are not whole, as `/proc/pagetypeinfo` lists them.
fn scattered(pagetypeinfo: &str) -> u64 {
    let kinds = ["Unmovable", "Reclaimable"];
    let counted = pagetypeinfo.lines().take_while(|line| !line.starts_with("Number"));
    counted
        .filter_map(|line| line.split_once("type")?.1.trim_start().split_once(' '))
        .filter(|(kind, _)| kinds.contains(kind))
        .flat_map(|(_, counts)| counts.split_whitespace().take(WHOLE).enumerate())
        // The kernel stops counting at `>100000`.
        .filter_map(|(order, count)| Some(count.trim_start_matches('>').parse::<u64>().ok()? << order))
        .sum::<u64>()
        * PAGE
}

/// Bytes that are free.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scattered_is_counted() {
        let text = "Page block order: 9\n\n\
            Free pages count per migrate type at order  0 1 2 3 4 5 6 7 8 9 10\n\
            Node    0, zone   Normal, type    Unmovable 3 2 0 0 0 0 0 0 1 7 7\n\
            Node    0, zone   Normal, type      Movable 9 9 9 9 9 9 9 9 9 9 9\n\
            Node    0, zone   Normal, type  Reclaimable >100000 0 0 0 0 0 0 0 0 5 5\n\n\
            Number of blocks type     Unmovable      Movable\n\
            Node 0, zone   Normal         1108         4865\n";
        assert_eq!(scattered(text), (3 + 4 + 256 + 100_000) * 4096);
    }

    #[test]
    fn what_is_free_is_read() {
        assert_eq!(
            available("MemTotal:  9 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n"),
            2 << 20
        );
        assert_eq!(available(""), 0);
    }
}
