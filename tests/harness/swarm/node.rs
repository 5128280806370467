//! [`Node`]: a machine with a dockerd.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Host;
use super::build::Settings;
use super::engine::{self, Engine};
use super::machine::Machine;
use crate::netns::{Netns, within};

/// A machine with a dockerd. Its network namespace stays when it is off.
#[derive(Debug)]
pub struct Node {
    // Before the namespace that its processes are in.
    pub(super) inner: Mutex<Inner>,
    pub(super) name: String,
    pub(super) socket: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) nameserver: IpAddr,
    pub(super) host: Host,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) machine: Option<Machine>,
}

impl Node {
    /// `node1`, `node2` ...: its host name, and so its name in the Swarm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address on the underlay: advertised, and where VXLAN packets for it go.
    pub fn address(&self) -> IpAddr {
        self.host.address()
    }

    /// Both its addresses on the underlay.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.host.addresses
    }

    /// Its network namespace. For code that needs more of the node than that, see [`Node::on_machine`].
    pub fn netns(&self) -> &Netns {
        &self.host.netns
    }

    /// Its dockerd's socket, as this process can connect to it. On the node it is `/run/docker.sock`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The node's `/run`, as this process can open the files and sockets in it.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Where its dockerd writes, over restarts.
    pub fn log(&self) -> PathBuf {
        self.inner().engine.log().to_owned()
    }

    /// Its machine, held while `work` uses it.
    ///
    /// # Errors
    /// If it is off.
    pub fn on_machine<T>(&self, work: impl FnOnce(&Machine) -> T) -> Result<T> {
        Ok(work(self.inner().machine()?))
    }

    /// A program on the node, in all its namespaces, as a child of this process; see [`Machine::start`].
    ///
    /// # Errors
    /// If the node is off.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        self.on_machine(|machine| machine.command(program))
    }

    /// Starts what [`Node::command`] made; it ends with the node.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        self.on_machine(|machine| machine.start(command))?
    }

    /// Runs a program on the node to its end and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the message holds its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program)?;
        crate::netns::run(command.args(arguments), "").with_context(|| format!("on {}", self.name))
    }

    /// Runs `work` on a thread inside a network namespace of the node: a path on it such as
    /// `/run/docker/netns/ingress_sbox`.
    ///
    /// # Errors
    /// If there is none.
    pub fn within<T: Send>(&self, namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(within(&self.open_namespace(namespace)?, work))
    }

    /// A network namespace of the node, for [`spawn_within`](crate::netns::spawn_within).
    ///
    /// # Errors
    /// If there is none.
    pub fn open_namespace(&self, namespace: &str) -> Result<File> {
        let path = self.on_machine(|machine| machine.path(namespace))?;
        File::open(&path).with_context(|| format!("{}: {namespace}", self.name))
    }

    /// Runs a program of this host inside a network namespace of the node and returns its standard output as JSON;
    /// for `ip -json` and `bridge -json`.
    ///
    /// # Errors
    /// As [`Node::within`], or if the program fails or prints none.
    pub fn json_within(&self, namespace: &str, program: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(program);
        command.arg("-json").args(arguments);
        let text = self.within(namespace, || crate::netns::run(&mut command, ""))??;
        serde_json::from_str(&text).with_context(|| format!("{program} {arguments:?} printed no JSON: {text}"))
    }

    /// Runs `docker` against the node's dockerd and returns its standard output, without the last newline.
    ///
    /// # Errors
    /// If it fails; the message holds its standard error.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        // Not under the lock: it may take long.
        engine::docker(&self.socket, arguments).with_context(|| format!("on {}", self.name))
    }

    /// `GET` of a path of its dockerd's API, such as `/networks/ingress?verbose=true`.
    ///
    /// # Errors
    /// If the status is not 200.
    pub fn api(&self, path: &str) -> Result<Value> {
        engine::api(&self.socket, path).with_context(|| format!("on {}", self.name))
    }

    /// SIGTERM for its dockerd, which ends its containers with itself.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn stop_engine(&self) -> Result<()> {
        self.end_engine(Signal::SIGTERM)
    }

    /// SIGKILL for its dockerd. Its containers run on until it is started again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_engine(&self) -> Result<()> {
        self.end_engine(Signal::SIGKILL)
    }

    /// Pulls its plug: every process on it is gone, what was in `/run` too. See [`Swarm::turn_on`].
    ///
    /// # Errors
    /// If it is off.
    pub fn turn_off(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.machine()?;
        inner.machine = None;
        inner.engine.forget();
        Ok(())
    }

    pub(super) fn turn_on(&self, settings: &Settings) -> Result<()> {
        let mut inner = self.inner();
        if inner.machine.is_some() {
            bail!("{} is on", self.name);
        }
        let machine = Machine::boot(&self.host.netns, &self.name, &self.directory, self.nameserver)?;
        inner.engine.spawn(&machine, settings)?;
        inner.machine = Some(machine);
        inner.engine.wait_ready()
    }

    pub(super) fn start_engine(&self, settings: &Settings) -> Result<()> {
        let mut inner = self.inner();
        let Inner { engine, machine } = &mut *inner;
        engine.spawn(on(machine)?, settings)?;
        engine.wait_ready()
    }

    pub(super) fn end_engine(&self, signal: Signal) -> Result<()> {
        let mut inner = self.inner();
        let Inner { engine, machine } = &mut *inner;
        engine.end(on(machine)?, signal)
    }

    pub(super) fn wait_ready(&self) -> Result<()> {
        self.inner()
            .engine
            .wait_ready()
            .with_context(|| format!("on {}", self.name))
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn machine(&self) -> Result<&Machine> {
        on(&self.machine)
    }
}

fn on(machine: &Option<Machine>) -> Result<&Machine> {
    machine.as_ref().context("the node is off")
}
