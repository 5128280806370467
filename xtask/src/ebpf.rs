//! `cargo xtask ebpf`: builds the object, loads it, and keeps an eye on what it costs the verifier.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::programs::{Program, ProgramError, ProgramInfo};
use clap::Args;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::object::{Build, Machine};
use crate::toolchain::{Toolchain, choose, probe};
use crate::{setup, workspace};

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Arguments {
    /// Fail if a program's verified instructions differ by more than 5 % from lb-ebpf/insns.toml.
    #[arg(long)]
    check: bool,
    /// Write lb-ebpf/insns.toml.
    #[arg(long, conflicts_with = "check")]
    bless: bool,
}

impl Arguments {
    pub(crate) const CHECK: Self = Self {
        check: true,
        bless: false,
    };
}

/// `lb-ebpf/insns.toml`: what the verifier of one kernel said.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Record {
    /// Release of the kernel, major and minor number; another one counts differently.
    kernel: String,
    /// Program to verified instructions.
    verified: BTreeMap<String, u32>,
}

/// What a kernel says about a program it has loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) verified: u32,
    translated: u32,
    jited: u32,
}

/// In percent.
const TOLERANCE: u32 = 5;
/// Lines of a verifier's log that are printed.
const SHOWN: usize = 25;
const RECORD: &str = "lb-ebpf/insns.toml";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    let (bytes, logs) = build()?;
    if !geteuid().is_root() {
        if arguments.check || arguments.bless {
            bail!("loading the programs needs root");
        }
        println!("not loaded: that needs root");
        return Ok(());
    }
    let costs = load(&bytes, &logs)?;
    print(&costs);
    let verified = costs.into_iter().map(|(name, cost)| (name, cost.verified)).collect();
    let now = Record {
        kernel: kernel()?,
        verified,
    };
    let path = workspace().join(RECORD);
    if arguments.bless {
        let text = format!("# Written by `cargo xtask ebpf --bless`.\n{}", toml::to_string(&now)?);
        return fs::write(&path, text).with_context(|| path.display().to_string());
    }
    if arguments.check {
        let text = fs::read_to_string(&path).with_context(|| format!("{RECORD} (write it with --bless)"))?;
        let then: Record = toml::from_str(&text).context(RECORD)?;
        if then.kernel != now.kernel {
            println!(
                "not compared: {RECORD} is from kernel {}, this is {}",
                then.kernel, now.kernel
            );
            return Ok(());
        }
        let differences = differences(&then.verified, &now.verified);
        if !differences.is_empty() {
            bail!(
                "{}\nif that is wanted: cargo xtask ebpf --bless",
                differences.join("\n")
            );
        }
    }
    Ok(())
}

/// The object that the agent embeds: the ready one, or one that is built.
pub(crate) fn object() -> Result<Vec<u8>> {
    match std::env::var_os("LB_EBPF_OBJECT") {
        Some(path) => fs::read(&path).with_context(|| format!("LB_EBPF_OBJECT={}", path.display())),
        None => Ok(build()?.0),
    }
}

/// Builds the object and says where it is; its bytes, and its directory.
fn build() -> Result<(Vec<u8>, PathBuf)> {
    let toolchain = choose(&probe())?;
    with_build(&toolchain, |build| {
        let bytes = build.run().context("build of lb-ebpf")?;
        println!(
            "{}: {} bytes, built with {}",
            build.object().display(),
            bytes.len(),
            toolchain.compiler
        );
        Ok((bytes, build.directory()))
    })
}

/// Lints the programs with the clippy of the compiler that builds them.
pub(crate) fn clippy() -> Result<()> {
    let toolchain = choose(&probe())?;
    with_build(&toolchain, |build| {
        crate::process::run(build.clippy().args(["--", "-D", "warnings"]))
    })
}

fn with_build<T>(toolchain: &Toolchain, act: impl FnOnce(&Build<'_>) -> Result<T>) -> Result<T> {
    let machine = Machine {
        architecture: std::env::consts::ARCH.to_owned(),
        big_endian: cfg!(target_endian = "big"),
    };
    act(&Build {
        workspace: &workspace(),
        toolchain,
        machine: &machine,
    })
}

/// Loads every program, attaches none, and forgets them again.
///
/// # Errors
/// The kernel refuses one; all are tried first, and each verifier's log is kept whole in a file.
pub(crate) fn load(object: &[u8], logs: &Path) -> Result<BTreeMap<String, Cost>> {
    let mut ebpf = EbpfLoader::new()
        .load(object)
        .context("the kernel refuses the object")?;
    let (mut costs, mut refusals) = (BTreeMap::new(), Vec::new());
    for (name, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => bail!("{name} is of a type that xtask/src/ebpf.rs does not load yet"),
        };
        match loaded.and_then(|()| program.info()) {
            Ok(info) => _ = costs.insert(name.to_owned(), cost(&info)),
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                let file = logs.join(format!("{name}.log"));
                let log = verifier_log.to_string();
                fs::write(&file, &log).with_context(|| file.display().to_string())?;
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
                refusals.push(format!(
                    "{name}: {io_error}; the whole log is in {}\n{tail}",
                    file.display()
                ));
            }
            Err(error) => refusals.push(format!("{name}: {error}")),
        }
    }
    if !refusals.is_empty() {
        bail!("the kernel refuses {}", refusals.join("\n\n"));
    }
    Ok(costs)
}

fn print(costs: &BTreeMap<String, Cost>) {
    println!(
        "{:<20} {:>10} {:>12} {:>10}",
        "PROGRAM", "VERIFIED", "INSTRUCTIONS", "JITED"
    );
    for (name, cost) in costs {
        println!(
            "{name:<20} {:>10} {:>12} {:>9}B",
            cost.verified,
            cost.translated / 8,
            cost.jited
        );
    }
}

fn cost(info: &ProgramInfo) -> Cost {
    Cost {
        verified: info.verified_instruction_count().unwrap_or(0),
        translated: info.size_translated().unwrap_or(0),
        jited: info.size_jitted(),
    }
}

/// Major and minor number of the running kernel, such as `6.18`.
pub(crate) fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("release of the kernel")?;
    Ok(release.trim().split('.').take(2).collect::<Vec<_>>().join("."))
}

fn differences(then: &BTreeMap<String, u32>, now: &BTreeMap<String, u32>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let differs = |name: &&String| match (then.get(*name), now.get(*name)) {
        (Some(&old), Some(&new)) if u64::from(old.abs_diff(new)) * 100 > u64::from(old) * u64::from(TOLERANCE) => {
            Some(format!("{name}: {old} verified instructions became {new}"))
        }
        (None, Some(new)) => Some(format!("{name}: new, {new} verified instructions")),
        (Some(_), None) => Some(format!("{name}: gone")),
        _ => None,
    };
    names.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_or_shrinks_by_more_than_the_tolerance_is_told() {
        let record = |entries: &[(&str, u32)]| entries.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        let then = record(&[("a", 1000), ("b", 1000), ("c", 1000), ("gone", 1)]);
        let now = record(&[("a", 1050), ("b", 1051), ("c", 940), ("new", 2)]);
        let expected = [
            "b: 1000 verified instructions became 1051",
            "c: 1000 verified instructions became 940",
            "gone: gone",
            "new: new, 2 verified instructions",
        ];
        assert_eq!(differences(&then, &now), expected);
    }
}
