//! Gives up every privilege that the agent does not need, for itself and for whatever it may start.
//!
//! The kernel keeps capabilities for each thread; so this comes before the first one is started, and holds for all.

use std::io;

/// What stays, if it was there: loading and attaching programs, netlink, entering network namespaces and mounting a BPF file
/// system, DNS on port 53, the group of the admin socket. The service unit grants the same.
pub const NEEDED: [(u32, &str); 6] = [
    (39, "CAP_BPF"),
    (12, "CAP_NET_ADMIN"),
    (38, "CAP_PERFMON"),
    (21, "CAP_SYS_ADMIN"),
    (10, "CAP_NET_BIND_SERVICE"),
    (0, "CAP_CHOWN"),
];

/// [`NEEDED`] as a set of bits.
const fn needed() -> u64 {
    let (mut set, mut index) = (0, 0);
    while index < NEEDED.len() {
        set |= 1 << NEEDED[index].0;
        index += 1;
    }
    set
}

/// `_LINUX_CAPABILITY_VERSION_3` (include/uapi/linux/capability.h).
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Low and high half of the sets.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Keeps of the calling thread's capabilities what the agent needs, and lets no program that is started have more
/// (`no_new_privs`).
///
/// # Errors
/// If the kernel refuses; then everything is as it was, but for the bounding set.
pub fn restrict() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    for capability in (0..64).filter(|capability| needed() & 1 << capability == 0) {
        // EINVAL: the kernel has no more; EPERM: who cannot change the bounding set has not much to lose.
        if prctl(libc::PR_CAPBSET_DROP, capability, 0).is_err() {
            break;
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: header and sets have the layout of this version, and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    for (half, sets) in sets.iter_mut().enumerate() {
        let keep = (needed() >> (32 * half)) as u32;
        sets.permitted &= keep;
        sets.effective = sets.permitted;
        sets.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> io::Result<()> {
    // SAFETY: none of the options used here takes a pointer.
    check(unsafe { libc::prctl(option, first, second, 0u64, 0u64) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_is_needed_alone() {
        let before = status("CapPrm");
        // On a thread of its own: the other tests keep theirs.
        std::thread::spawn(move || {
            restrict().unwrap();
            assert_eq!(status("CapPrm"), before & needed());
            assert_eq!(status("CapEff"), before & needed());
            assert_eq!((status("CapInh"), status("CapAmb"), status("NoNewPrivs")), (0, 0, 1));
        })
        .join()
        .unwrap();
        assert_eq!(status("CapPrm"), before);
    }
}
