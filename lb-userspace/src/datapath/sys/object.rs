//! Programs, maps and links as objects: their pins, ids and what the kernel says of them.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info};

use super::{bpf, owned, raw};

/// `BPF_F_RDONLY`: the descriptor may only read.
pub(in crate::datapath) const READ_ONLY: u32 = 1 << 3;
/// No flag: links and programs cannot be opened otherwise.
pub(in crate::datapath) const READ_WRITE: u32 = 0;

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

/// Pins an object at a path, where nothing may be yet.
pub(in crate::datapath) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
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
pub(in crate::datapath) fn open_pin(path: &Path, flags: u32) -> io::Result<OwnedFd> {
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
pub(in crate::datapath) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
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

pub(in crate::datapath) fn map_info(fd: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: integers and arrays of integers only.
    unsafe { info(fd) }
}

pub(in crate::datapath) fn program_info(fd: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: integers and arrays of integers only; null pointers ask for no arrays.
    unsafe { info(fd) }
}

pub(in crate::datapath) fn link_info(fd: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: integers and a union of integers only.
    unsafe { info(fd) }
}

/// What a link is attached to.
pub(in crate::datapath) enum LinkTarget {
    Xdp { ifindex: u32 },
    Tcx { ifindex: u32, ingress: bool },
    Other,
}

pub(in crate::datapath) fn link_target(info: &bpf_link_info) -> LinkTarget {
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
pub(in crate::datapath) fn detach_link(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = raw(fd);
    // SAFETY: the command's attribute is the link's descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attribute) }.map(drop)
}

/// Runs a program on a frame: what it returns.
pub(in crate::datapath) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
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
