//! Elements of maps, one by one and in batches.

use std::io;
use std::os::fd::BorrowedFd;

use aya_obj::generated::bpf_cmd;

use super::{bpf, raw};

/// `ENOTSUPP`, which the kernel lets out for map types without batch operations.
const ENOTSUPP: i32 = 524;

#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    cursor_in: u64,
    cursor_out: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Whether there is such an element, which the kernel tells as an error.
fn found<T>(answer: io::Result<T>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads one element into `value`, which must have the map's (for per-CPU maps: all CPUs') size. False: not there.
pub(in crate::datapath) fn lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers size key and value from the map's own info.
    found(unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attribute) })
}

/// Creates or replaces one element. Key and value must have the map's sizes.
pub(in crate::datapath) fn update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers size key and value from the map's own info; the kernel only reads them.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attribute) }.map(drop)
}

/// Removes one element. False: not there.
pub(in crate::datapath) fn delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.as_ptr() as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: callers size the key from the map's own info.
    found(unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attribute) })
}

/// The key after `key` into `next`; from the start without `key`. False: there is none.
pub(in crate::datapath) fn next_key(fd: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.map_or(0, |k| k.as_ptr() as u64),
        value: next.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers size both keys from the map's own info; a null key asks for the first.
    found(unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attribute) })
}

/// Outcome of [`lookup_batch`].
pub(in crate::datapath) enum Read {
    /// So many elements; ask again from the cursor.
    More(usize),
    /// So many elements, and no more.
    Last(usize),
    /// One bucket of the hash holds more than fits: ask again with larger buffers.
    TooSmall,
    /// The kernel or the map type has no batches.
    Unsupported,
}

/// Reads up to `count` elements. `cursor` is opaque (the kernel writes at most 4 bytes or one key of it).
pub(in crate::datapath) fn lookup_batch(
    fd: BorrowedFd<'_>,
    first: bool,
    cursor: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<Read> {
    let position = cursor.as_mut_ptr() as u64;
    let mut attribute = Batch {
        cursor_in: if first { 0 } else { position },
        cursor_out: position,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map: raw(fd),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: callers size the buffers as `count` times the map's own key and value sizes, the cursor as one key
    // but at least four bytes.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attribute) };
    match result.map_err(|e| (e.raw_os_error(), e)) {
        Ok(_) => Ok(Read::More(attribute.count as usize)),
        Err((Some(libc::ENOENT), _)) => Ok(Read::Last(attribute.count as usize)),
        Err((Some(libc::ENOSPC), _)) => Ok(Read::TooSmall),
        Err((Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP), _)) if first => Ok(Read::Unsupported),
        Err((_, e)) => Err(e),
    }
}
