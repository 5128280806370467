//! `cargo xtask fuzz <target>`: libFuzzer looks for inputs that break a promise of `tests/fuzz`.
//!
//! What cargo-fuzz does, with the compiler that builds everything else: the passes that count what code was reached are
//! LLVM's own, and no unstable option is needed. Without the address sanitizer, which is one: what reads these bytes is safe code.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::{cargo, run as run_command, run_and_read};
use crate::{setup, test, workspace};

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// One of tests/fuzz/fuzz_targets: pipeline, dns, cluster, docker, stream, disk.
    target: String,
    /// How long it looks.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// What cargo-fuzz gives to LLVM: count edges, and look at what comparisons compare.
const INSTRUMENTED: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Longest input, bytes.
const LENGTH: u32 = 16 << 10;
/// Longest time for one input, seconds.
const PATIENCE: u32 = 10;
/// Memory for one input and all that was learnt, MiB.
const MEMORY: u32 = 2048;

/// Builds the target and runs it; what it has learnt is kept in `target/fuzz/corpus`.
///
/// # Errors
/// There is no such target, it cannot be built, or an input breaks a promise.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let name = &arguments.target;
    let targets = targets()?;
    if !targets.contains(name) {
        bail!("no target is called {name}; there are {}", targets.join(", "));
    }
    setup::ensure(setup::Wanted::FUZZ)?;
    look(name, arguments.seconds).map(drop)
}

/// As [`run`], for a target that there is; how many inputs it was given. [`setup::Wanted::FUZZ`] must be there.
///
/// # Errors
/// It cannot be built, or an input breaks a promise.
pub(crate) fn look(name: &str, seconds: u32) -> Result<u64> {
    let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let directory = test::target_directory()?.join("fuzz");
    let mut build = cargo();
    // With a machine named, build scripts and macros are built apart, and are not instrumented.
    build
        .args([
            "build",
            "--profile",
            "fuzz",
            "--package",
            "lb-fuzz",
            "--features",
            "libfuzzer",
        ])
        .args(["--bin", name, "--target", &machine])
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"))
        .env("CARGO_TARGET_DIR", &directory);
    run_command(&mut build).context("build of the target")?;
    let (corpus, finds) = (directory.join("corpus").join(name), directory.join("finds").join(name));
    for path in [&corpus, &finds] {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    }
    let mut fuzzer = Command::new(directory.join(machine).join("fuzz").join(name));
    fuzzer
        .env("LB_FUZZ_SEEDS", &corpus)
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", finds.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args([format!("-max_len={LENGTH}"), format!("-timeout={PATIENCE}")])
        .args([format!("-rss_limit_mb={MEMORY}"), "-print_final_stats=1".to_owned()]);
    let (succeeded, text) = run_and_read(&mut fuzzer)?;
    if !succeeded {
        bail!(
            "{name} failed: if a promise was broken, the input is in {}; mend it, and keep the input in \
             tests/fuzz/finds/{name}",
            finds.display()
        );
    }
    inputs(&text).with_context(|| format!("{name} does not say how many inputs it was given"))
}

/// What libFuzzer says of itself at its end (`-print_final_stats`).
fn inputs(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    value.trim().parse().ok()
}

/// Names of all targets.
///
/// # Errors
/// Their directory cannot be read.
pub(crate) fn targets() -> Result<Vec<String>> {
    let directory = workspace().join("tests/fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_inputs_is_read_from_the_final_statistics() {
        let text = "Done 7 runs in 2 second(s)\nstat::number_of_executed_units: 4711\nstat::peak_rss_mb: 60\n";
        assert_eq!(inputs(text), Some(4711));
        assert_eq!(inputs("INFO: seed corpus"), None);
    }
}
