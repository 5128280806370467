//! What kernels offer: asked of a running one, recorded in `lb-ebpf/kernels.toml`, told in `docs/kernel.md`.

#[path = "../../lb-userspace/src/datapath/probe.rs"]
#[allow(unreachable_pub, reason = "in the agent's crate it is reached")]
mod agent;

mod document;
mod features;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::{ebpf, guest, workspace};
pub(crate) use document::document;
use features::{FEATURES, Feature, Seen};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// Ask this kernel, in a guest, and not the running one.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Write lb-ebpf/kernels.toml; without, fail if the kernel says something else than is written there.
    #[arg(long)]
    bless: bool,
    /// Only print what the running kernel says, of programs in this file.
    #[arg(long, hide = true, value_name = "OBJECT")]
    raw: Option<PathBuf>,
}

const RECORD: &str = "lb-ebpf/kernels.toml";

/// `lb-ebpf/kernels.toml`: kernels by release.
type Record = BTreeMap<String, Kernel>;

/// What one kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Kernel {
    /// By the features' ids.
    features: BTreeMap<String, bool>,
    /// Instructions that the verifier looked at, by program. For information: `insns.toml` is what changes are held against.
    verified: BTreeMap<String, u32>,
}

/// `cargo xtask probe`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(object) = &arguments.raw {
        let bytes = fs::read(object).with_context(|| object.display().to_string())?;
        print!("{}", toml::to_string(&ask(&bytes)?)?);
        return Ok(());
    }
    let (release, now) = match &arguments.kernel {
        Some(kernel) => (kernel.clone(), guest::probe(kernel)?),
        None => {
            ensure!(geteuid().is_root(), "loading the programs needs root");
            (ebpf::kernel()?, ask(&ebpf::object()?)?)
        }
    };
    let mut record = record()?;
    if !arguments.bless {
        return compare(&record, &release, &now);
    }
    record.insert(release, now);
    let path = workspace().join(RECORD);
    let text = format!(
        "# Written by `cargo xtask probe --bless`.\n{}",
        toml::to_string(&record)?
    );
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Asks the running kernel.
fn ask(object: &[u8]) -> Result<Kernel> {
    let costs = ebpf::load(object, &std::env::temp_dir())?;
    let mut features = BTreeMap::new();
    for feature in FEATURES {
        if let Seen::Asked(asked) = &feature.seen {
            features.insert(feature.id.to_owned(), asked().with_context(|| feature.id)?);
        }
    }
    let verified = costs.into_iter().map(|(name, cost)| (name, cost.verified)).collect();
    Ok(Kernel { features, verified })
}

/// From what `cargo xtask probe --raw` prints.
pub(crate) fn parse(text: &str) -> Result<Kernel> {
    toml::from_str(text).with_context(|| format!("not what a kernel says:\n{text}"))
}

/// Holds what a kernel says against the record.
///
/// # Errors
/// A feature is recorded otherwise.
pub(crate) fn check(release: &str, now: &Kernel) -> Result<()> {
    compare(&record()?, release, now)
}

fn compare(record: &Record, release: &str, now: &Kernel) -> Result<()> {
    let Some(then) = record.get(release) else {
        println!("not compared: {RECORD} has no kernel {release}");
        return Ok(());
    };
    let said = |kernel: &Kernel, id: &str| kernel.features.get(id).copied();
    let differs = |feature: &&Feature| said(then, feature.id) != said(now, feature.id);
    let differences: Vec<&str> = FEATURES.iter().filter(differs).map(|feature| feature.id).collect();
    if !differences.is_empty() {
        bail!(
            "kernel {release} says another thing than {RECORD} about {}; if it is right: cargo xtask probe --bless",
            differences.join(", ")
        );
    }
    println!("kernel {release}: as in {RECORD}");
    Ok(())
}

fn record() -> Result<Record> {
    let path = workspace().join(RECORD);
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).context(RECORD),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::new()),
        Err(error) => Err(error).context(RECORD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn kernel(tcx: bool, count: u32) -> Kernel {
        Kernel {
            features: [("tcx".to_owned(), tcx)].into(),
            verified: [("tc_node".to_owned(), count)].into(),
        }
    }

    #[test]
    fn a_kernel_that_says_something_else_is_told() {
        let record: Record = [("6.1".into(), kernel(false, 5))].into();
        assert!(
            compare(&record, "6.1", &kernel(false, 9)).is_ok(),
            "counts are for information"
        );
        let error = compare(&record, "6.1", &kernel(true, 5)).unwrap_err().to_string();
        assert!(error.contains("tcx"), "{error}");
        assert!(compare(&record, "6.2", &kernel(true, 5)).is_ok());
    }

    #[test]
    fn what_is_printed_is_read() {
        let said = kernel(true, 5);
        assert_eq!(parse(&toml::to_string(&said).unwrap()).unwrap(), said);
    }
}
