//! What the machine is, on which of its CPUs a thread runs, and how busy they are.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The machine, as far as numbers depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    /// In GiB.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// When, UTC.
    pub(crate) date: String,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub(crate) fn this() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": "))
                .map_or("unknown", |(_, value)| value)
                .trim()
                .to_owned()
        };
        let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let total: u64 = memory
            .split_whitespace()
            .nth(1)
            .context("/proc/meminfo")?
            .parse()
            .context("/proc/meminfo")?;
        let name = uname()?;
        let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
        Ok(Self {
            cpu: format!(
                "{} (family {}, model {})",
                field("model name"),
                field("cpu family"),
                field("model\t")
            ),
            cpus: std::thread::available_parallelism()?.get(),
            memory: total.div_ceil(1 << 20),
            kernel: name.release().to_string_lossy().into_owned(),
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
        })
    }
}

/// Keeps the calling thread, and those that it starts, on one CPU; modulo the number of CPUs.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    // A machine of one CPU runs everything there.
    set.set(if cpus > cpu { cpu } else { 0 })?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin a thread to a CPU")
}

/// How long this machine's CPUs have been busy, all of them together, but for what is nice; in steps of 10 ms.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let first = text.lines().next().context("/proc/stat")?;
    let fields: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // User, (nice,) system, (idle, waiting,) interrupts, soft interrupts; in units of USER_HZ, which is 100.
    let busy = [0, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<u64>();
    Ok(Duration::from_millis(busy * 10))
}
