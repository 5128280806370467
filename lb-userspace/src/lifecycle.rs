//! Signals, the lock that keeps a second agent away, and what systemd is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The agent may not start, or cannot hear signals.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// Another agent uses the same run directory.
    #[error(
        "another agent ({holder}) uses {}: stop it first, or give this one its own paths.run and paths.bpffs",
        .path.display()
    )]
    Running {
        /// The lock.
        path: PathBuf,
        /// `process 123`, as far as it is known.
        holder: String,
    },
    /// The run directory cannot be used.
    #[error("cannot use {}: {source}", .path.display())]
    Directory {
        /// The directory or the lock in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No signal handler.
    #[error("cannot handle signals: {0}")]
    Signal(#[source] io::Error),
}

/// Held as long as an agent (or `uninstall`) works on one run directory. The kernel releases it with the process.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Makes the run directory and takes its lock.
    ///
    /// # Errors
    /// If another process holds it, or the directory cannot be used.
    pub fn acquire(run: &Path) -> Result<Self, LifecycleError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LifecycleError::Directory { path, source }
        };
        fs::create_dir_all(run).map_err(fail(run))?;
        let path = run.join("agent.lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail(&path))?;
        Self::of_file(file, &path)
    }

    /// Takes the lock of a directory that is there already: two agents with run directories of their own may still
    /// not share their pins. `None` if there is no such directory yet.
    ///
    /// # Errors
    /// If another process holds it.
    pub fn of_directory(path: &Path) -> Result<Option<Self>, LifecycleError> {
        let fail = |source| LifecycleError::Directory {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(LifecycleError::Running {
                path: path.to_owned(),
                holder: "with another run directory".into(),
            }),
            Err((_, error)) => Err(fail(error.into())),
        }
    }

    fn of_file(file: File, path: &Path) -> Result<Self, LifecycleError> {
        let fail = |source| LifecycleError::Directory {
            path: path.to_owned(),
            source,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let written = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(fail)?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::Error::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let holder = match pid.trim() {
                    "" => "its process is not known".into(),
                    pid => format!("process {pid}"),
                };
                Err(LifecycleError::Running {
                    path: path.to_owned(),
                    holder,
                })
            }
            Err((_, error)) => Err(fail(error.into())),
        }
    }
}

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_on_signals() -> Result<CancellationToken, LifecycleError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(LifecycleError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(LifecycleError::Signal)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if token.is_cancelled() {
                tracing::warn!(target: "lb::agent", signal = name, "second signal, ending at once");
                std::process::exit(1);
            }
            tracing::info!(target: "lb::agent", signal = name, "stopping");
            token.cancel();
        }
    });
    Ok(stop)
}

/// What systemd is told. Without systemd nothing happens; one that does not listen holds nothing up.
#[derive(Debug)]
pub struct Notifier {
    ready: bool,
    status: String,
    /// Leads to a thread that may block.
    messages: SyncSender<String>,
}

impl Default for Notifier {
    fn default() -> Self {
        let (messages, waiting) = sync_channel::<String>(64);
        // Without the thread nothing is told, and nothing else is lost.
        let _ = std::thread::Builder::new().name("lb-notify".into()).spawn(move || {
            for message in waiting {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&message)]) {
                    tracing::debug!(target: "lb::agent", %error, "cannot notify systemd");
                }
            }
        });
        Self {
            ready: false,
            status: String::new(),
            messages,
        }
    }
}

impl Notifier {
    /// Half of the time after which systemd takes the agent for stuck, if it watches.
    pub fn watchdog_interval() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
    }

    /// The first synchronisation is done. Told once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.send(NotifyState::Ready);
        }
    }

    /// One line for `systemctl status`. Told when it changes.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            self.send(NotifyState::Status(&status));
            self.status = status;
        }
    }

    /// The agent's loop turns.
    pub fn alive(&self) {
        self.send(NotifyState::Watchdog);
    }

    /// The agent stops on purpose.
    pub fn stopping(&self) {
        self.send(NotifyState::Stopping);
    }

    fn send(&self, state: NotifyState<'_>) {
        if self.messages.try_send(state.to_string()).is_err() {
            tracing::debug!(target: "lb::agent", %state, "systemd does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_runs() {
        let run = tempfile::tempdir().expect("directory");
        let first = Lock::acquire(run.path()).expect("first");
        let error = Lock::acquire(run.path()).expect_err("second").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Lock::acquire(run.path()).expect("after the first has ended");
    }

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(
            Lock::of_directory(&directory.path().join("none"))
                .expect("not there")
                .is_none()
        );
        let first = Lock::of_directory(directory.path()).expect("first");
        assert!(first.is_some());
        assert!(Lock::of_directory(directory.path()).is_err());
        drop(first);
        assert!(Lock::of_directory(directory.path()).expect("free").is_some());
    }

    #[test]
    fn a_run_directory_that_cannot_be_made_is_named() {
        let error = Lock::acquire(Path::new("/proc/nowhere"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("/proc/nowhere"), "{error}");
    }
}
