//! Memory of this process, as the kernel sees it.

/// Gives memory that was needed for a moment back to the system. The allocator of glibc keeps what lies between pieces that
/// are still in use; others give it back themselves.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
