//! `cargo xtask test`: builds what the tests run, runs them with `cargo test`, and adds up.
//!
//! Not with cargo-nextest: namespace tests share a cluster, and nextest gives every test a process of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::count::Counts;
use crate::process::{ask, cargo, display, run, run_and_read};
use crate::{setup, workspace};

/// Test targets that are tiers of their own; all others belong to the tier `unit`.
const TIERS: &[&str] = &["packet", "netns", "cli"];

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// Tier (unit, packet, netns or cli) and a part of a test's name; either may be left out.
    #[arg(value_name = "TIER] [FILTER", num_args = 0..=2)]
    words: Vec<String>,
    /// A test that cannot run here is a failure, not a skip.
    #[arg(long)]
    pub(crate) strict: bool,
}

impl Arguments {
    /// Every test, and none may be skipped.
    pub(crate) const STRICT: Self = Self {
        words: Vec::new(),
        strict: true,
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
    setup::ensure()?;
    let selection = select(&arguments.words);
    let targets = targets(selection.tier, &test_targets()?);
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
    }
    let mut counts = count(&mut command)?;
    if selection.tier.is_none_or(|tier| tier == "unit") {
        let mut doc = cargo();
        doc.args(["test", "--doc"]).args(PACKAGES).args(selection.filter);
        counts += count(&mut doc)?;
    }
    anyhow::ensure!(
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
    anyhow::ensure!(succeeded || counts.failed > 0, "{} failed", display(command));
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
    let tier = words
        .first()
        .map(String::as_str)
        .filter(|word| *word == "unit" || TIERS.contains(word));
    let filter = words.get(usize::from(tier.is_some())).map(String::as_str);
    Selection { tier, filter }
}

/// Arguments that select a tier's test targets.
fn targets(tier: Option<&str>, test_targets: &[String]) -> Vec<String> {
    let named = |name: &String| ["--test".to_owned(), name.clone()];
    match tier {
        None => ["--lib", "--bins", "--tests"].map(str::to_owned).to_vec(),
        Some("unit") => {
            let others = test_targets
                .iter()
                .filter(|name| !TIERS.contains(&name.as_str()))
                .flat_map(named);
            ["--lib", "--bins"]
                .map(str::to_owned)
                .into_iter()
                .chain(others)
                .collect()
        }
        Some(tier) => named(&tier.to_owned()).to_vec(),
    }
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
        let all = words(&["packet", "netns", "properties"]);
        assert_eq!(targets(Some("unit"), &all), ["--lib", "--bins", "--test", "properties"]);
        assert_eq!(targets(Some("netns"), &all), ["--test", "netns"]);
        assert_eq!(targets(None, &all), ["--lib", "--bins", "--tests"]);
    }
}
