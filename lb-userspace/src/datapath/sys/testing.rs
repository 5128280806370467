//! What tests need to have something to look at.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya_obj::generated::bpf_cmd;

use super::{bpf, owned};

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
    super::pin(fd.as_fd(), path).unwrap();
}
