//! The few `bpf(2)` commands that aya does not offer: batches, link information, and descriptors that may only read.
//!
//! aya opens every pin for writing: a reader in the pins' group may not do that.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info};

/// `BPF_F_RDONLY`: the descriptor may only read.
pub(super) const READ_ONLY: u32 = 1 << 3;
/// No flag: links and programs cannot be opened otherwise.
pub(super) const READ_WRITE: u32 = 0;

/// `ENOTSUPP`, which the kernel lets out for map types without batch operations.
const ENOTSUPP: i32 = 524;

#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
    path_fd: u32,
    _pad: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
    _pad: u32,
}

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

#[repr(C)]
struct TestRun {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

/// Descriptor as the kernel's attribute wants it.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd() as u32
}

/// # Safety
/// `T` must be the layout of `command`'s attribute, its pointers valid for what the command reads and writes.
unsafe fn bpf<T>(command: bpf_cmd, attribute: &mut T) -> io::Result<i64> {
    // SAFETY: the caller vouches for the attribute; its size is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attribute),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Waits until every program that is running now has ended: programs run as RCU readers, and `membarrier` waits for a grace
/// period (kernel/sched/membarrier.c). Without it, ten milliseconds do: no program runs that long.
pub(super) fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Pins an object at a path, where nothing may be yet.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = ObjectGet {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
        path_fd: 0,
        _pad: 0,
    };
    // SAFETY: BPF_OBJ_PIN has the attribute of BPF_OBJ_GET; the path outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attribute) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = ObjectGet {
        path: path.as_ptr() as u64,
        fd: 0,
        flags,
        path_fd: 0,
        _pad: 0,
    };
    // SAFETY: the path is NUL-terminated and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attribute) }.map(owned)
}

/// Opens a program by its id (needs CAP_SYS_ADMIN).
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attribute = ById {
        id,
        next: 0,
        flags: 0,
        _pad: 0,
    };
    // SAFETY: no pointers.
    unsafe { bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attribute) }.map(owned)
}

/// # Safety
/// `T` must be the kernel's info structure for the kind of object behind `fd`, and valid when all its bytes are zero.
unsafe fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the caller vouches that all-zero is a valid T.
    let mut out: T = unsafe { zeroed() };
    let mut attribute = Info {
        fd: raw(fd),
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut out) as u64,
    };
    // SAFETY: `info` points at `length` writable bytes.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(out)
}

pub(super) fn map_info(fd: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: integers and arrays of integers only.
    unsafe { info(fd) }
}

pub(super) fn program_info(fd: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: integers and arrays of integers only; null pointers ask for no arrays.
    unsafe { info(fd) }
}

pub(super) fn link_info(fd: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: integers and a union of integers only.
    unsafe { info(fd) }
}

/// What a link is attached to.
pub(super) enum LinkTarget {
    Xdp { ifindex: u32 },
    Tcx { ifindex: u32, ingress: bool },
    Other,
}

pub(super) fn link_target(info: &bpf_link_info) -> LinkTarget {
    const XDP: u32 = aya_obj::generated::bpf_link_type::BPF_LINK_TYPE_XDP as u32;
    const TCX: u32 = aya_obj::generated::bpf_link_type::BPF_LINK_TYPE_TCX as u32;
    const INGRESS: u32 = aya_obj::generated::bpf_attach_type::BPF_TCX_INGRESS as u32;
    // Both begin with the interface index; tcx has the attach type behind it.
    // SAFETY: the union is plain integers, written by the kernel or zero.
    let words: [u32; 2] = unsafe {
        std::ptr::from_ref(&info.__bindgen_anon_1)
            .cast::<[u32; 2]>()
            .read_unaligned()
    };
    match info.type_ {
        XDP => LinkTarget::Xdp { ifindex: words[0] },
        TCX => LinkTarget::Tcx {
            ifindex: words[0],
            ingress: words[1] == INGRESS,
        },
        _ => LinkTarget::Other,
    }
}

/// Detaches a link at once. Without this a link goes some time after its last pin and descriptor.
pub(super) fn detach_link(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = raw(fd);
    // SAFETY: the command's attribute is the link's descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attribute) }.map(drop)
}

/// Runs a program on a frame: what it returns.
pub(super) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut attribute = TestRun {
        program: raw(program),
        returned: 0,
        size_in: frame.len() as u32,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the frame outlives the call; nothing is written but the attribute.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attribute) }?;
    Ok(attribute.returned)
}

/// Reads one element into `value`, which must have the map's (for per-CPU maps: all CPUs') size. False: not there.
pub(super) fn lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers size key and value from the map's own info.
    match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attribute) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Creates or replaces one element. Key and value must have the map's sizes.
pub(super) fn update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
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
pub(super) fn delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.as_ptr() as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: callers size the key from the map's own info.
    match unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attribute) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The key after `key` into `next`; from the start without `key`. False: there is none.
pub(super) fn next_key(fd: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attribute = Element {
        map: raw(fd),
        _pad: 0,
        key: key.map_or(0, |k| k.as_ptr() as u64),
        value: next.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers size both keys from the map's own info; a null key asks for the first.
    match unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attribute) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Outcome of [`lookup_batch`].
pub(super) enum Read {
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
pub(super) fn lookup_batch(
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

/// What tests need to have something to look at.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    #[repr(C)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        licence: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }

    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        more: [u64; 4],
    }

    /// A program that returns 0.
    pub(crate) fn load_program(kind: u32, name: &str) -> io::Result<OwnedFd> {
        // mov64 r0, 0; exit
        let instructions: [u64; 2] = [0xb7, 0x95];
        let mut attribute = Load {
            kind,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            licence: c"GPL".as_ptr() as u64,
            log: [0; 2],
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
        };
        attribute.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: instructions and licence outlive the call.
        unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attribute) }.map(owned)
    }

    pub(crate) fn create_link(program: &OwnedFd, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
        let program = program.as_raw_fd() as u32;
        let mut attribute = LinkCreate {
            program,
            target: ifindex,
            attach_type,
            flags,
            more: [0; 4],
        };
        // SAFETY: no pointers.
        unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute) }.map(owned)
    }

    pub(crate) fn pin(fd: &OwnedFd, path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let fd = fd.as_raw_fd() as u32;
        let mut attribute = ObjectGet {
            path: path.as_ptr() as u64,
            fd,
            flags: 0,
            path_fd: 0,
            _pad: 0,
        };
        // SAFETY: the path is NUL-terminated and outlives the call.
        unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attribute) }.unwrap();
    }
}
