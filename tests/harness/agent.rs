//! [`Agent`]: one real `lb-agent run` inside a node's namespace.

use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{Guard, Resource};
use crate::netns::Netns;
use crate::require;

/// How long an agent may take from its start to its first full sync (three may be starting on two cores).
const READY: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// The agent of one node: files, and while it runs its process. Killed on drop.
#[derive(Debug)]
pub struct Agent {
    node: String,
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    guard: Guard,
    supervisor: Supervisor,
}

/// What systemd would be: the agent's notifications come here.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Stays open when nobody listens any more: the agent is not told.
    _socket: UnixDatagram,
    listening: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
}

impl Supervisor {
    /// Listens at `path`.
    pub(crate) fn start(path: &Path) -> Result<Self> {
        drop(fs::remove_file(path));
        let socket = UnixDatagram::bind(path)?;
        let reader = socket.try_clone()?;
        reader.set_read_timeout(Some(Duration::from_millis(50)))?;
        let listening = Arc::new(AtomicBool::new(true));
        let ready = Arc::new(AtomicBool::new(false));
        let (go_on, heard) = (listening.clone(), ready.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while go_on.load(Ordering::Relaxed) {
                let Ok(length) = reader.recv(&mut buffer) else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    heard.store(true, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            _socket: socket,
            listening,
            ready,
        })
    }

    /// Whether the agent has said so.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.listening.store(false, Ordering::Relaxed);
    }
}

impl Agent {
    /// The agent of `node`, not yet started; `directory` holds its configuration, `agent.toml`.
    pub fn new(node: &str, directory: PathBuf) -> Self {
        Self {
            node: node.to_owned(),
            directory,
            environment: Vec::new(),
            process: None,
        }
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// All that it wrote so far, over restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where it writes.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Variables of its environment from its next start on; those of before are forgotten.
    pub fn set_environment(&mut self, variables: &[(&'static str, String)]) {
        self.environment = variables.to_vec();
    }

    /// Starts it in `netns` and returns at once.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn spawn(&mut self, netns: &Netns) -> Result<()> {
        ensure!(self.process.is_none(), "the agent of {} runs already", self.node);
        let binary = require::binary("lb-agent")?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let socket = self.directory.join("notify.sock");
        let supervisor = Supervisor::start(&socket)?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(self.config());
        command.env("NOTIFY_SOCKET", &socket);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = netns.start(&mut command)?;
        let guard = Guard::new(Resource::Process(child.id().cast_signed()));
        self.process = Some(Process {
            child,
            guard,
            supervisor,
        });
        Ok(())
    }

    /// Waits until it says `READY=1`, which it does after its first full sync.
    ///
    /// # Errors
    /// If it ends first, or takes longer than 30 s; the message holds its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the agent was not started")?;
        let start = Instant::now();
        let trouble = loop {
            if process.supervisor.is_ready() {
                return Ok(());
            }
            if let Some(status) = process.child.try_wait()? {
                break format!("ended before it was ready: {status}");
            }
            let patience = READY * require::slowness();
            if start.elapsed() > patience {
                break format!("was not ready after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        bail!("the agent of {} {trouble}; its log:\n{}", self.node, self.log())
    }

    /// From now on nobody reads what it tells its supervisor.
    ///
    /// # Panics
    /// If it does not run.
    pub fn ignore_notifications(&self) {
        let process = self.process.as_ref().expect("a running agent");
        process.supervisor.listening.store(false, Ordering::Relaxed);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not end within 10 s or was not running.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// If it was not running.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGKILL)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it has not after `patience` (then it runs on), or was not running.
    pub fn wait_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let name = &self.node;
        let mut process = self
            .process
            .take()
            .with_context(|| format!("the agent of {name} does not run"))?;
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                process.guard.release();
                return Ok(status);
            }
            if start.elapsed() > patience {
                self.process = Some(process);
                bail!("the agent of {} runs on after {patience:?}", self.node);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut process = self
            .process
            .take()
            .with_context(|| format!("the agent of {} does not run", self.node))?;
        kill(Pid::from_raw(process.child.id().cast_signed()), signal)?;
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                process.guard.release();
                return Ok(status);
            }
            if start.elapsed() > STOP * require::slowness() {
                self.process = Some(process);
                bail!(
                    "the agent of {} runs on {STOP:?} after {signal}; its log:\n{}",
                    self.node,
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.child.kill());
            drop(process.child.wait());
            process.guard.release();
        }
    }
}

/// The last lines of a text, for messages.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Writes `text` to `path` so that a reader sees the old file or the new one, never a part.
///
/// # Errors
/// As the file system says.
pub fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)
}
