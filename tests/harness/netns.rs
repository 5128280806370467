//! [`Netns`]: a network namespace of our own, and what is inside it.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::cleanup::{Guard, Resource, unique_name};

/// A named network namespace, deleted on drop. `ip netns exec` knows it too, while it lives.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    _guard: Guard,
}

impl Netns {
    /// A new namespace with loopback up, no duplicate address detection, and a name that ends in `role`.
    ///
    /// # Errors
    /// Without root, or without iproute2.
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("{}-{role}", unique_name());
        let guard = Guard::new(Resource::Netns(name.clone()));
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let file = File::open(format!("/run/netns/{name}"))?;
        let netns = Self {
            name,
            file,
            _guard: guard,
        };
        for family in ["all", "default"] {
            netns.sysctl(&format!("ipv6.conf.{family}.accept_dad"), "0")?;
            netns.sysctl(&format!("ipv6.conf.{family}.dad_transmits"), "0")?;
            netns.sysctl(&format!("ipv6.conf.{family}.router_solicitations"), "0")?;
            netns.sysctl(&format!("ipv4.conf.{family}.rp_filter"), "0")?;
        }
        // Lets `client::ping` do without raw sockets.
        netns.sysctl("ipv4.ping_group_range", "0 2147483647")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// As `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace and hands back what it returns; a panic goes on in the caller.
    /// Sockets that it opens stay in the namespace wherever they are used afterwards.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.file, work)
    }

    /// Starts `work` on a thread inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        spawn_within(self.open(), work)
    }

    /// The namespace itself, for [`within`] and [`spawn_within`].
    pub fn open(&self) -> File {
        self.file.try_clone().expect("a duplicate descriptor")
    }

    /// Starts a process inside the namespace.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        let child = self.run(|| command.spawn());
        child.with_context(|| format!("start {command:?}"))
    }

    /// Runs a program inside the namespace to its end and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the message holds its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run(|| run(Command::new(program).args(arguments), ""))
            .with_context(|| format!("in {}", self.name))
    }

    /// Runs lines of `ip -batch` inside the namespace: `link`, `address`, `route`, `neighbour` ...
    ///
    /// # Errors
    /// If one of them fails; the message holds what `ip` said and its line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
            .with_context(|| format!("in {}: ip -batch:\n{lines}", self.name))?;
        Ok(())
    }

    /// Sets `net.<key>` inside the namespace; `key` has dots, interface names in it must have none.
    ///
    /// # Errors
    /// If the kernel does not know the key or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{}", key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("in {}: {path} = {value}", self.name))
    }

    /// Lets the namespace route, both families.
    ///
    /// # Errors
    /// As [`Netns::sysctl`].
    pub fn route(&self) -> Result<()> {
        self.sysctl("ipv4.ip_forward", "1")?;
        self.sysctl("ipv6.conf.all.forwarding", "1")
    }

    /// `ethtool -K interface features...`, as in `["tx", "off"]`.
    ///
    /// # Errors
    /// Without ethtool, or if the interface refuses.
    pub fn offload(&self, interface: &str, features: &[&str]) -> Result<()> {
        let mut arguments = vec!["-K", interface];
        arguments.extend(features);
        self.output("ethtool", &arguments)?;
        Ok(())
    }

    /// The interface's MAC address.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn mac(&self, interface: &str) -> Result<String> {
        let text = self.output("ip", &["-json", "link", "show", "dev", interface])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        Ok(links[0]["address"].as_str().context("no MAC address")?.to_owned())
    }

    /// A veth pair between two namespaces, both ends down.
    ///
    /// # Errors
    /// If a name is taken or too long (15 bytes).
    pub fn veth(&self, interface: &str, peer: &Self, peer_interface: &str) -> Result<()> {
        self.ip(&format!(
            "link add {interface} type veth peer name {peer_interface} netns {}",
            peer.name
        ))
    }
}

/// As [`Netns::run`], in any network namespace: `file` is one of `/proc/<pid>/ns/net` and the like.
pub fn within<T: Send>(file: &File, work: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let inside = || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("setns into a network namespace");
            work()
        };
        // Named as the test, so that a panic names it.
        let name = std::thread::current().name().unwrap_or("netns").to_owned();
        std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, inside)
            .expect("a thread")
            .join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// As [`Netns::spawn`], in any network namespace.
pub fn spawn_within<T: Send + 'static>(
    file: File,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    })
}

/// Runs `command` with `input` to its end.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{program}`"))?;
    // A program that fails early closes its input; its own message says more than ours would.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
