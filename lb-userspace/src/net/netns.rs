//! [`Namespace`]: another network namespace, and work done inside it. Nothing else in the agent calls `setns`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lb_common::abi::NAMESPACE_NODE;
use nix::sched::{CloneFlags, setns};

/// A network namespace. It stays as long as somebody holds this.
#[derive(Clone, Debug)]
pub struct Namespace {
    cookie: u64,
    place: Option<Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    file: File,
    path: PathBuf,
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.cookie == other.cookie
    }
}

impl Eq for Namespace {}

impl Namespace {
    /// The agent's own.
    pub const NODE: Self = Self {
        cookie: NAMESPACE_NODE,
        place: None,
    };

    /// The namespace that is mounted at `path`, as `ip netns` and container engines leave them.
    ///
    /// # Errors
    /// If there is none at that path, or this process may not enter it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut namespace = Self {
            cookie: NAMESPACE_NODE,
            place: Some(Arc::new(Place {
                file,
                path: path.to_owned(),
            })),
        };
        namespace.cookie = namespace.run(cookie)??;
        Ok(namespace)
    }

    /// The number by which the tables know it: unique until the machine starts again, [`NAMESPACE_NODE`] for the agent's own.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The name of its file; empty for the agent's own.
    pub fn name(&self) -> String {
        let path = self.place.as_ref().and_then(|place| place.path.file_name());
        path.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Runs `work` inside it, on a thread of its own. Sockets that it opens stay inside.
    ///
    /// # Errors
    /// If the thread cannot be made or may not enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some(place) = &self.place else {
            return Ok(work());
        };
        std::thread::scope(|scope| {
            let inside = || {
                setns(place.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            };
            let thread = std::thread::Builder::new()
                .name("lb-netns".into())
                .spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Cookie of the calling thread's namespace.
fn cookie() -> io::Result<u64> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the value and its length are valid for the call, and the kernel writes no more than the length.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if code == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Namespace::open(file.path()).is_err());
        assert!(Namespace::open(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn the_node_runs_in_place() {
        let thread = std::thread::current().id();
        assert_eq!(Namespace::NODE.run(|| std::thread::current().id()).unwrap(), thread);
        assert_eq!(Namespace::NODE.cookie(), NAMESPACE_NODE);
        assert_ne!(cookie().unwrap(), NAMESPACE_NODE);
    }
}
