//! What this process must remove again: by guards when they drop, all at once on Ctrl-C, by the next run after `kill -9`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// First letters of every name that a run gives to a namespace or directory; its process id follows.
const PREFIX: &str = "lbt";
/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// Where control groups are, in one hierarchy or in several.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long the kernel may take to end processes that were killed.
const DYING: Duration = Duration::from_secs(3);

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    next: 0,
    resources: BTreeMap::new(),
});
static COUNTER: AtomicU64 = AtomicU64::new(0);
static START: Once = Once::new();

struct Registry {
    next: u64,
    resources: BTreeMap<u64, Resource>,
}

/// Something outside this process's memory that must not outlive it. In the order in which they are removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A child process, by id: killed. Its parent reaps it, so the id cannot be another's.
    Process(i32),
    /// A named network namespace: deleted, and with it every interface inside.
    Netns(String),
    /// A mount point: unmounted.
    Mount(PathBuf),
    /// A control group, by its name at the root of every hierarchy: removed with those below it, once nobody is in.
    Cgroup(String),
    /// A directory with all it holds: removed.
    Directory(PathBuf),
}

/// Removes its [`Resource`] when dropped.
#[derive(Debug)]
#[must_use = "dropping it removes the resource"]
pub struct Guard(u64);

impl Guard {
    /// Takes `resource` into care; call it before the resource comes into being.
    pub fn new(resource: Resource) -> Self {
        START.call_once(start);
        let mut registry = registry();
        let id = registry.next;
        registry.next += 1;
        registry.resources.insert(id, resource);
        Self(id)
    }

    /// The resource is gone already.
    pub fn release(self) {
        registry().resources.remove(&self.0);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let resource = registry().resources.remove(&self.0);
        if let Some(resource) = resource {
            resource.remove();
        }
    }
}

impl Resource {
    /// Best effort: a second removal, or one of something that never came to be, is no error.
    fn remove(&self) {
        match self {
            Self::Process(pid) => {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            Self::Netns(name) => delete_netns(name),
            Self::Mount(path) => {
                let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
            }
            Self::Cgroup(name) => remove_cgroups(name),
            Self::Directory(path) => remove_directory(path),
        }
    }
}

/// A name that no other running test process has: `lbt<pid>-<counter>`.
pub fn unique_name() -> String {
    START.call_once(start);
    format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once per process: the signal handler and the sweep.
fn start() {
    let installed = ctrlc::set_handler(|| remove_all_and_exit(130));
    if let Err(error) = installed {
        eprintln!("note: Ctrl-C will not clean up: {error}");
    }
    sweep();
}

/// Removes everything that is in care, and ends this process. Other threads can neither take more into care meanwhile
/// nor let go of anything.
fn remove_all_and_exit(code: i32) -> ! {
    let mut registry = registry();
    let mut resources: Vec<_> = std::mem::take(&mut registry.resources).into_values().collect();
    // Processes first, so that nothing uses what goes next.
    resources.sort();
    for resource in &resources {
        if let Resource::Netns(name) = resource {
            // Also those that were started but not yet in care.
            kill_inside(name);
        }
        resource.remove();
    }
    // What another thread was just about to make.
    std::thread::sleep(Duration::from_millis(50));
    for resource in resources
        .iter()
        .filter(|resource| !matches!(resource, Resource::Process(_)))
    {
        resource.remove();
    }
    std::process::exit(code)
}

/// Ends the processes inside a namespace of ours; this process itself is never inside with its first thread.
fn kill_inside(name: &str) {
    let pids = Command::new("ip")
        .args(["netns", "pids", name])
        .stderr(Stdio::null())
        .output();
    let pids = pids
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        if pid != std::process::id().cast_signed() {
            Resource::Process(pid).remove();
        }
    }
}

/// Removes what runs left behind whose process is dead.
fn sweep() {
    for name in directory_entries(Path::new(NAMED)).filter(|name| is_stale(name)) {
        kill_inside(&name);
        Resource::Netns(name).remove();
    }
    let mut cgroups: Vec<_> = hierarchies()
        .flat_map(|path| directory_entries(&path).collect::<Vec<_>>())
        .collect();
    cgroups.sort();
    cgroups.dedup();
    for name in cgroups.into_iter().filter(|name| is_stale(name)) {
        Resource::Cgroup(name).remove();
    }
    let base = std::env::temp_dir();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for name in directory_entries(&base).filter(|name| is_stale(name)) {
        let directory = base.join(&name);
        for target in mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
            if target.starts_with(&directory) {
                Resource::Mount(target.to_owned()).remove();
            }
        }
        Resource::Directory(directory).remove();
    }
}

fn directory_entries(path: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Ours by its name, and the process in its name is no more.
fn is_stale(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    let Some(owner) = owner.and_then(|digits| digits.parse::<u32>().ok()) else {
        return false;
    };
    !Path::new("/proc").join(owner.to_string()).exists()
}

fn delete_netns(name: &str) {
    let status = Command::new("ip")
        .args(["netns", "delete", name])
        .stderr(Stdio::null())
        .status();
    if Path::new(NAMED).join(name).exists() {
        eprintln!("note: network namespace {name} is still there: {status:?}");
    }
}

/// The roots of all hierarchies of control groups.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (fields.next()?, fields.next()?);
        let wanted = kind.starts_with("cgroup") && target.starts_with(CGROUPS);
        wanted.then(|| PathBuf::from(target))
    });
    roots.collect::<Vec<_>>().into_iter()
}

fn remove_cgroups(name: &str) {
    let start = Instant::now();
    for path in hierarchies().map(|root| root.join(name)) {
        // Busy until the kernel is done with the last process inside.
        while path.exists() && !remove_cgroup(&path) && start.elapsed() < DYING {
            std::thread::sleep(Duration::from_millis(10));
        }
        if path.exists() {
            eprintln!("note: control group {} is still there", path.display());
        }
    }
}

/// Only the directories: the files inside are the kernel's.
fn remove_cgroup(path: &Path) -> bool {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    std::fs::remove_dir(path).is_ok()
}

/// Again and again while somebody who is just dying still writes into it.
fn remove_directory(path: &Path) {
    let start = Instant::now();
    while path.exists() && std::fs::remove_dir_all(path).is_err() && start.elapsed() < DYING {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_owners_are_stale() {
        assert!(!is_stale(&unique_name()));
        assert!(!is_stale("lbtx-1"));
        assert!(!is_stale("cni-1234"));
        // Larger than any process id can be.
        assert!(is_stale("lbt4194305-3-node1"));
    }

    #[test]
    fn a_guard_removes_its_directory_also_in_a_panic() {
        let path = std::env::temp_dir().join(unique_name());
        let inner = path.clone();
        let result = std::panic::catch_unwind(move || {
            let _guard = Guard::new(Resource::Directory(inner.clone()));
            std::fs::create_dir_all(&inner).unwrap();
            panic!("on purpose");
        });
        assert!(result.is_err());
        assert!(!path.exists());
    }
}
