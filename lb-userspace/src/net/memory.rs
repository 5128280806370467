//! Memory of this process, as the kernel sees it.

/// Sets the allocator up for a process that is small but for moments: whatever is large is memory of its own, which goes back
/// to the system as soon as it is free, and threads share what is small. Before the first thread is started.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [
        (libc::M_MMAP_THRESHOLD, 256 << 10),
        (libc::M_TRIM_THRESHOLD, 1 << 20),
        (libc::M_ARENA_MAX, 2),
    ] {
        // SAFETY: no pointers, and no other thread allocates yet.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Gives memory that was needed for a moment back to the system. The allocator of glibc keeps what lies between pieces that
/// are still in use; others give it back themselves.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
