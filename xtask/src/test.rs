//! `cargo xtask test`: builds what the tests run, runs them with `cargo test`, and adds up.
//!
//! Not with cargo-nextest: namespace tests share a cluster, and nextest gives every test a process of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::count::Counts;
use crate::process::{ask, cargo, display, run, run_and_read};
use crate::{guest, setup, workspace};

/// Tiers and their test targets; all other targets, and the tests beside the code, are the tier `unit`.
const TIERS: &[(&str, &[&str])] = &[
    ("packet", &["packet"]),
    ("netns", &["netns", "datapath"]),
    ("swarm", &["swarm"]),
    ("cli", &["cli", "lb_agent", "admin", "maps"]),
];

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// Tier (unit, packet, netns, swarm or cli) and a part of a test's name; either may be left out.
    #[arg(value_name = "TIER] [FILTER", num_args = 0..=2)]
    words: Vec<String>,
    /// A test that cannot run here is a failure, not a skip.
    #[arg(long)]
    pub(crate) strict: bool,
    /// On another kernel, in a machine made by qemu; there is `6.1`, that of Debian 12, with the tiers packet, attach and
    /// netns.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// There, every test that fits, which takes an hour or more; without it, a choice.
    #[arg(long, requires = "kernel")]
    all: bool,
}

impl Arguments {
    /// Every test, and none may be skipped.
    pub(crate) const STRICT: Self = Self {
        words: Vec::new(),
        strict: true,
        kernel: None,
        all: false,
    };
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selection<'a> {
    /// `None`: all.
    tier: Option<&'a str>,
    filter: Option<&'a str>,
}

/// Builds and runs the tests; failures are in the counts.
///
/// # Errors
/// The toolchain is missing, or nothing could be built or run.
pub(crate) fn execute(arguments: &Arguments) -> Result<Counts> {
    if let Some(kernel) = &arguments.kernel {
        return guest::test(kernel, &arguments.words, arguments.all);
    }
    let selection = select(&arguments.words);
    setup::ensure(setup::Wanted::default())?;
    let targets = targets(selection.tier, &test_targets()?);
    ensure!(!targets.is_empty(), "there are no tests of this tier yet");
    if selection.tier != Some("unit") {
        // One build with the tests, so that both agree on the features of what they depend on.
        let mut build = cargo();
        build.args(["build", "--bins", "--tests"]).args(PACKAGES);
        run(&mut build).context("build of the binaries that the tests run")?;
    }
    let mut command = cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(PACKAGES)
        .args(&targets)
        .args(selection.filter);
    if arguments.strict {
        command.env("LB_TEST_STRICT", "1");
    } else if !geteuid().is_root() {
        // Some tests say why they are skipped on a stream that only this shows.
        command.args(["--", "--show-output"]);
    }
    let mut counts = count(&mut command)?;
    if selection.tier.is_none_or(|tier| tier == "unit") {
        let mut doc = cargo();
        doc.args(["test", "--doc"]).args(PACKAGES).args(selection.filter);
        counts += count(&mut doc)?;
    }
    ensure!(
        counts != Counts::default(),
        "no test is called so: {}",
        arguments.words.join(" ")
    );
    Ok(counts)
}

/// Runs `cargo test`; a failure that no test explains is an error.
fn count(command: &mut Command) -> Result<Counts> {
    let (succeeded, text) = run_and_read(command)?;
    let counts = Counts::from_output(&text);
    ensure!(succeeded || counts.failed > 0, "{} failed", display(command));
    Ok(counts)
}

/// Says why tests were skipped; the closing line is the caller's.
pub(crate) fn print_reasons(counts: &Counts) {
    for (reason, count) in &counts.reasons {
        println!("skipped {count}: {reason}");
    }
}

/// Everything but the programs for BPF.
pub(crate) const PACKAGES: &[&str] = &["--workspace", "--exclude", "lb-ebpf"];

fn select(words: &[String]) -> Selection<'_> {
    let known = words.first().map(String::as_str).filter(|word| is_tier(word));
    let filter = words.get(usize::from(known.is_some())).map(String::as_str);
    Selection { tier: known, filter }
}

/// Whether there is a tier of this name.
pub(crate) fn is_tier(name: &str) -> bool {
    name == "unit" || tier(name).is_some()
}

/// Test targets of a tier that is not `unit`.
fn tier(name: &str) -> Option<&'static [&'static str]> {
    TIERS
        .iter()
        .find(|(tier, _)| *tier == name)
        .map(|(_, targets)| *targets)
}

/// Arguments that select a tier's test targets among those that there are; empty if there are none.
fn targets(name: Option<&str>, test_targets: &[String]) -> Vec<String> {
    let Some(name) = name else {
        return ["--lib", "--bins", "--tests"].map(str::to_owned).to_vec();
    };
    let tiered = |target: &String| match tier(name) {
        Some(targets) => targets.contains(&target.as_str()),
        None => !TIERS.iter().any(|(_, targets)| targets.contains(&target.as_str())),
    };
    let beside = if name == "unit" {
        ["--lib", "--bins"].map(str::to_owned).to_vec()
    } else {
        Vec::new()
    };
    let named = test_targets
        .iter()
        .filter(|target| tiered(target))
        .flat_map(|target| ["--test".to_owned(), target.clone()]);
    beside.into_iter().chain(named).collect()
}

/// Names of the integration tests of the workspace.
fn test_targets() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect())
}

/// Where cargo builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    Ok(metadata()?["target_directory"]
        .as_str()
        .context("cargo metadata: no target_directory")?
        .into())
}

fn metadata() -> Result<serde_json::Value> {
    let manifest = workspace().join("Cargo.toml");
    let arguments = [
        "metadata",
        "--no-deps",
        "--format-version=1",
        "--manifest-path",
        &manifest.to_string_lossy(),
    ];
    let text = ask(cargo().get_program(), &arguments).context("cargo metadata failed")?;
    serde_json::from_str(&text).context("cargo metadata")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_tier_a_filter_both_or_none() {
        let selected = |given: &[&str]| {
            let words = words(given);
            let Selection { tier, filter } = select(&words);
            (tier.map(str::to_owned), filter.map(str::to_owned))
        };
        assert_eq!(selected(&[]), (None, None));
        assert_eq!(selected(&["netns"]), (Some("netns".into()), None));
        assert_eq!(
            selected(&["netns", "drain"]),
            (Some("netns".into()), Some("drain".into()))
        );
        assert_eq!(selected(&["checksum"]), (None, Some("checksum".into())));
    }

    #[test]
    fn unit_is_everything_that_is_no_other_tier() {
        let all = words(&["packet", "netns", "properties", "datapath"]);
        assert_eq!(targets(Some("unit"), &all), ["--lib", "--bins", "--test", "properties"]);
        assert_eq!(targets(Some("netns"), &all), ["--test", "netns", "--test", "datapath"]);
        assert!(targets(Some("cli"), &all).is_empty());
        assert_eq!(targets(None, &all), ["--lib", "--bins", "--tests"]);
    }
}
