//! Everything a person types to build, try, test and check the project.

mod bench;
mod ci;
mod count;
mod demo;
mod dist;
mod ebpf;
mod fuzz;
mod generate;
mod guest;
mod kernels;
mod object;
mod process;
mod reliability;
mod rules;
mod services;
mod setup;
mod test;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, try, test and check the load balancer.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing; says what it will do before it does it.
    Setup {
        /// Also what only `ci` needs.
        #[arg(long)]
        ci: bool,
        /// Also what `test --kernel` needs.
        #[arg(long)]
        guest: bool,
    },
    /// Three nodes on one machine balance real traffic.
    Demo {
        /// As of lb-demo: --swarm shows it on a real Docker Swarm, --keep leaves everything running.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build what the tests need and run them.
    Test(test::Arguments),
    /// Measure the load balancer and its peers side by side; writes docs/benchmarks.md.
    Bench {
        /// As of lb-bench: rows (program, frames, traffic, control, dns), --rounds, --quick, --report.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the eBPF object; as root also load it and show what the verifier and the JIT say.
    Ebpf(ebpf::Arguments),
    /// Ask a kernel what it offers, and hold it against what is recorded.
    Probe(kernels::Arguments),
    /// Let libFuzzer look for inputs that break a promise.
    Fuzz(fuzz::Arguments),
    /// Write the generated documents.
    Gen {
        /// Write nothing; fail if one is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Run the tests that prove the promises and write docs/reliability.md with their figures.
    Reliability(reliability::Arguments),
    /// Static programs, a container image and checksums, to install on nodes.
    Dist(dist::Arguments),
    /// All that a change must pass: format, lints, rules, every test, documents.
    Ci,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    process::handle_interrupts()?;
    match Arguments::parse().verb {
        Verb::Setup { ci, guest } => setup::run(setup::Wanted {
            lint: ci,
            guest: guest || ci,
            ..setup::Wanted::default()
        })?,
        Verb::Demo { arguments } => demo::execute(&arguments)?,
        Verb::Bench { arguments } => bench::execute(&arguments)?,
        Verb::Ebpf(arguments) => ebpf::run(&arguments)?,
        Verb::Probe(arguments) => kernels::run(&arguments)?,
        Verb::Fuzz(arguments) => fuzz::run(&arguments)?,
        Verb::Dist(arguments) => dist::run(&arguments)?,
        Verb::Reliability(arguments) => reliability::execute(&arguments)?,
        Verb::Gen { check } => generate::run(check)?,
        Verb::Test(arguments) => {
            let counts = test::execute(&arguments)?;
            test::print_reasons(&counts);
            return Ok(close(&counts, arguments.strict));
        }
        Verb::Ci => return Ok(close(&ci::run(), true)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the closing line.
fn close(counts: &count::Counts, strict: bool) -> ExitCode {
    println!("{counts}");
    let failed = counts.failed > 0 || (strict && counts.skipped > 0);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The workspace that this xtask was built from.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}
