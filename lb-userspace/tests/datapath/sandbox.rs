//! Where a test may do as it likes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::testing::skip::skip;
use lb_userspace::datapath::{OBJECT, load};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A private network and mount namespace with a BPF file system, on a thread of its own.
pub(crate) struct Sandbox {
    directory: PathBuf,
}

impl Sandbox {
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf/lb")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = umount2(&self.directory.join("bpf"), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Flow tables of so many entries.
pub(crate) fn capacity(flows: u32) -> load::Capacity {
    load::Capacity { flows, overflow: 1024 }
}

/// Why BPF cannot be used here, if so.
fn obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root");
    }
    OBJECT.is_empty().then_some("built without an eBPF object")
}

/// Runs `test` in a sandbox, or says why not.
pub(crate) fn in_sandbox(name: &str, test: impl FnOnce(&Sandbox) + Send + 'static) {
    if let Some(why) = obstacle() {
        skip(why);
        return;
    }
    let name = name.to_owned();
    // Namespaces belong to threads, and end with them.
    std::thread::spawn(move || {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("lb-{name}-{}-{unique}", std::process::id()));
        fs::create_dir_all(directory.join("bpf")).expect("directory");
        let sandbox = Sandbox { directory };
        mount(
            Some("bpf"),
            &sandbox.directory.join("bpf"),
            Some("bpf"),
            MsFlags::empty(),
            nothing,
        )
        .expect("bpffs");
        ip("link set lo up");
        test(&sandbox);
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {arguments}");
}

/// Runs in the calling thread, and with it in its network namespace.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}
