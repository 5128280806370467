//! The few bpf(2) commands that aya does not offer: batches, link information and reads by file descriptor.
//!
//! Everything here is about a map or link that is already open; sizes are checked against what the kernel
//! says before a pointer is handed over.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_map_info};

/// Opens a pin without the right to write.
pub(super) const READ_ONLY: u32 = 1 << 3;

/// The interface that a pinned link is attached to; 0 if the interface is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    /// Id of the link.
    pub id: u32,
    /// Id of the program behind it.
    pub program: u32,
    /// Interface index, 0 if the interface is gone.
    pub ifindex: u32,
}

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapState {
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// Id of the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole bpf_attr, zeroed before its fields were set; every pointer in it was made
    // from a live buffer of the size that the command needs (see the callers).
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn zeroed() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain old data, for which all zeroes is valid.
    unsafe { mem::zeroed() }
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = name.as_ptr() as u64;
    attr.__bindgen_anon_4.file_flags = flags;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info<T: Copy>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: only called for bpf_link_info and bpf_map_info, plain old data.
    let mut value: T = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(&mut value) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(value)
}

/// State of a link.
pub(super) fn link_state(fd: BorrowedFd<'_>) -> io::Result<LinkState> {
    let info: bpf_link_info = info(fd)?;
    let ifindex = if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        // SAFETY: the type says which member of the union the kernel filled in.
        unsafe { info.__bindgen_anon_1.xdp.ifindex }
    } else if info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        // SAFETY: as above.
        unsafe { info.__bindgen_anon_1.tcx.ifindex }
    } else {
        0
    };
    Ok(LinkState {
        id: info.id,
        program: info.prog_id,
        ifindex,
    })
}

/// State of a map.
pub(super) fn map_state(fd: BorrowedFd<'_>) -> io::Result<MapState> {
    let info: bpf_map_info = info(fd)?;
    Ok(MapState {
        map_type: info.type_,
        id: info.id,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
    })
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: u64, flags: u64) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    attr.__bindgen_anon_2.flags = flags;
    attr
}

/// Reads one element into `value`; `false` if there is none. The lengths are those of the map.
pub(super) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = element(map, key, value.as_mut_ptr() as u64, 0);
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Creates or replaces one element. The lengths are those of the map.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut element(map, key, value.as_ptr() as u64, 0),
    )
    .map(drop)
}

/// Removes one element; `false` if there was none.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut element(map, key, 0, 0)) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A walk over a map, a batch at a time. Elements written or removed meanwhile may be seen or not.
pub(super) struct Walk<'a> {
    map: BorrowedFd<'a>,
    key_size: usize,
    value_size: usize,
    size: usize,
    /// Opaque position: four bytes for hash tables, a key for others.
    position: Vec<u8>,
    started: bool,
    finished: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A walk in batches of `size` elements.
    pub(super) fn new(map: BorrowedFd<'a>, key_size: usize, value_size: usize, size: usize) -> Self {
        Self {
            map,
            key_size,
            value_size,
            size,
            position: vec![0; key_size.max(8)],
            started: false,
            finished: false,
            keys: vec![0; key_size * size],
            values: vec![0; value_size * size],
        }
    }

    /// The next batch as (keys, values), whole elements side by side; `None` at the end.
    pub(super) fn next_batch(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        while !self.finished {
            let mut next = vec![0u8; self.position.len()];
            let mut attr = zeroed();
            attr.batch.in_batch = if self.started { self.position.as_ptr() as u64 } else { 0 };
            attr.batch.out_batch = next.as_mut_ptr() as u64;
            attr.batch.keys = self.keys.as_mut_ptr() as u64;
            attr.batch.values = self.values.as_mut_ptr() as u64;
            attr.batch.count = self.size as u32;
            attr.batch.map_fd = self.map.as_raw_fd() as u32;
            let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
            // SAFETY: `batch` is the member that was set; the kernel wrote the count back.
            let count = unsafe { attr.batch.count } as usize;
            match result {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => self.finished = true,
                // A bucket holds more elements than the batch: ask again with more room.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && self.size < 1 << 20 => {
                    self.size *= 2;
                    self.keys.resize(self.key_size * self.size, 0);
                    self.values.resize(self.value_size * self.size, 0);
                    continue;
                }
                Err(e) => return Err(e),
            }
            self.position = next;
            self.started = true;
            if count > 0 {
                return Ok(Some((
                    &self.keys[..count * self.key_size],
                    &self.values[..count * self.value_size],
                )));
            }
        }
        Ok(None)
    }
}
