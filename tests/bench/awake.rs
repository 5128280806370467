//! Keeps CPUs from being halted while something is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};

use crate::machine::pin;

/// A thread on every CPU that spins whenever nobody else wants it (`SCHED_IDLE`), until dropped.
///
/// A virtual machine gives a halted CPU back to its host, and gets it again when the host pleases: what sleeps and wakes
/// thousands of times a second, as sockets on both ends of a connection do, then measures the host.
pub(crate) struct Awake {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Begins.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn begin() -> Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let mut awake = Self {
            done,
            threads: Vec::new(),
        };
        for cpu in 0..std::thread::available_parallelism()?.get() {
            let done = Arc::clone(&awake.done);
            let (ready, readied) = std::sync::mpsc::sync_channel(1);
            awake.threads.push(std::thread::spawn(move || {
                let settled = pin(cpu).and_then(|()| yield_to_all());
                let spins = settled.is_ok();
                let _ = ready.send(settled);
                while spins && !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }));
            readied.recv().context("a thread that keeps a CPU awake")??;
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The calling thread runs when no other wants to, and its time counts as `nice` in `/proc/stat`.
fn yield_to_all() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; `parameters` outlives the call.
    let scheduled = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    ensure!(scheduled == 0, "SCHED_IDLE: {}", std::io::Error::last_os_error());
    // SAFETY: no memory is passed; 0 is the calling thread.
    let niced = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    ensure!(niced == 0, "nice 19: {}", std::io::Error::last_os_error());
    Ok(())
}
