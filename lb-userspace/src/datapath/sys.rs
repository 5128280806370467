//! The few `bpf(2)` commands that aya does not offer: batches, link information, and descriptors that may only read.
//!
//! aya opens every pin for writing: a reader in the pins' group may not do that.

mod element;
mod object;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::bpf_cmd;

pub(super) use element::{Read, delete, lookup, lookup_batch, next_key, update};
pub(super) use object::{
    LinkTarget, READ_ONLY, READ_WRITE, detach_link, link_info, link_target, map_info, open_pin, pin, program_by_id,
    program_info, run,
};

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

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
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

#[cfg(test)]
pub(super) mod testing;
