//! [`Machine`]: what a host is to those who live on it, made of namespaces around a network namespace of ours.
//!
//! | of its own | so that |
//! |---|---|
//! | processes | ending its first one ends every other, whatever they started |
//! | mounts | `/run`, `/sys/fs/bpf` and `/var/lib/docker` are its own, and what is written to `/etc`, `/opt`, `/root` and the rest of `/var` stays there |
//! | host name | nodes of a cluster have different ones |
//! | control groups | no container is seen among those of this host |
//!
//! `/run` and `/var/lib/docker` are directories of ours: a Unix socket in them can be reached from outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hierarchy::Hierarchy;
use crate::cleanup::{Guard, Resource, unique_name};
use crate::netns::{Netns, run};

/// Joins the control groups before the mark, then becomes what is behind it.
const JOIN: &str = r#"while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@""#;

/// A running machine. Dropped, its processes are ended, and nothing of it is left but its directory.
#[derive(Debug)]
pub struct Machine {
    name: String,
    directory: PathBuf,
    /// Its first process, as this process knows it.
    pid: Pid,
    /// Where a process joins its control groups, as seen inside.
    procs: Vec<PathBuf>,
    /// `unshare`, which ends with the first process.
    child: Child,
    /// While it is open, the machine lives.
    _life: ChildStdin,
    process: Option<Guard>,
    /// Last: a group can go only when its processes have.
    _cgroup: Guard,
}

impl Machine {
    /// Boots a machine with host name `name` in `netns`. What it keeps over a reboot is in `directory`/docker.
    ///
    /// # Errors
    /// If the kernel or a program refuses something; the message holds what it said.
    pub fn boot(netns: &Netns, name: &str, directory: &Path, nameserver: IpAddr) -> Result<Self> {
        // As after a reboot, nothing is in /run.
        drop(fs::remove_dir_all(directory.join("run")));
        for part in ["docker", "run", "scratch"] {
            fs::create_dir_all(directory.join(part)).with_context(|| format!("create {}", directory.display()))?;
        }
        let hierarchies = Hierarchy::all()?;
        let cgroup = format!("{}-{name}", unique_name());
        let cgroup_guard = Guard::new(Resource::Cgroup(cgroup.clone()));
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "sh"]);
        for hierarchy in &hierarchies {
            command.arg(hierarchy.create(&cgroup)?.join("cgroup.procs"));
        }
        command.args([
            "--",
            "unshare",
            "--fork",
            "--kill-child",
            "--pid",
            "--mount",
            "--uts",
            "--ipc",
            "--cgroup",
        ]);
        command.args(["sh", "-c", include_str!("boot.sh"), "sh"]).arg(directory);
        command.args([name, &nameserver.to_string()]);
        command.args(hierarchies.iter().flat_map(Hierarchy::arguments));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = netns.start(&mut command)?;
        let guard = Guard::new(Resource::Process(child.id().cast_signed()));
        let life = child.stdin.take().expect("piped");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let Ok(pid) = line.trim().parse() else {
            let mut error = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut error)?;
            bail!("machine {name}: {}: {}", child.wait()?, error.trim());
        };
        Ok(Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            pid: Pid::from_raw(pid),
            procs: hierarchies.iter().map(Hierarchy::procs_inside).collect(),
            child,
            _life: life,
            process: Some(guard),
            _cgroup: cgroup_guard,
        })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of its first process, as this process knows it: `/proc/<pid>/root` is its file system, with all
    /// that is mounted there.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// A path of the machine, as this process can open it while the machine lives. Not for Unix sockets' short paths:
    /// those in `/run` are also at [`Machine::run_directory`].
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// The machine's `/run`, without what is mounted below it.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// `program` on the machine: in all its namespaces and control groups.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid.to_string();
        command.args([
            "--target", &pid, "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup",
        ]);
        command
            .args(["--", "sh", "-c", JOIN, "sh"])
            .args(&self.procs)
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a program on the machine to its end and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the message holds its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments), "").with_context(|| format!("on {}", self.name))
    }

    /// Starts a program on the machine; it ends with the machine. The child is `nsenter`: signals for the program go
    /// to its process id on the machine, by [`Machine::signal`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        command
            .spawn()
            .with_context(|| format!("start {command:?} on {}", self.name))
    }

    /// Sends a signal to a process, by its id on the machine.
    ///
    /// # Errors
    /// If there is none.
    pub fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        // The shell's own: not every system has the program.
        self.output("sh", &["-c", &format!("kill -{} {pid}", signal as i32)])?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        // Its first process can be waited for only when all others are gone.
        drop(self.child.wait());
        if let Some(guard) = self.process.take() {
            guard.release();
        }
    }
}
