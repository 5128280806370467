//! `cargo xtask ci`: all that a change must pass, one step after the other, also after one has failed.

use std::time::Instant;

use anyhow::Result;

use crate::count::Counts;
use crate::process::{cargo, interrupted, run as run_command};
use crate::{ebpf, generate, guest, kernels, rules, setup, test};

type Step = fn() -> Result<Counts>;

/// The sum of all steps; each that is not the tests counts as one.
pub(crate) fn run() -> Counts {
    let steps: [(&str, Step); 10] = [
        ("setup", || check(setup::run(setup::Wanted::CI))),
        ("format", || {
            check(run_command(cargo().args(["fmt", "--all", "--check"])))
        }),
        ("rules", || check(rules::check())),
        ("clippy, host", || check(run_command(&mut clippy()))),
        ("clippy, BPF", || check(ebpf::clippy())),
        ("programs", || check(ebpf::run(&ebpf::Arguments::CHECK))),
        ("kernel", || check(kernels::run(&kernels::Arguments::default()))),
        ("tests", || test::execute(&test::Arguments::STRICT)),
        ("kernel 6.1", || {
            guest::run("6.1", &guest::SUITES[..guest::QUICK], guest::Extent::Chosen)
        }),
        ("documents", || check(generate::run(true))),
    ];
    let mut sum = Counts::default();
    let mut table = Vec::new();
    for (name, step) in steps {
        if interrupted() {
            break;
        }
        println!("=== {name}");
        let start = Instant::now();
        let counts = step().unwrap_or_else(|error| {
            eprintln!("error: {name}: {error:#}");
            Counts::check(false)
        });
        table.push(format!("{name:<14} {:>5} s   {counts}", start.elapsed().as_secs()));
        sum += counts;
    }
    println!("=== summary\n{}", table.join("\n"));
    test::print_reasons(&sum);
    if interrupted() {
        sum += Counts::check(false);
    }
    sum
}

fn check(result: Result<()>) -> Result<Counts> {
    result.map(|()| Counts::check(true))
}

fn clippy() -> std::process::Command {
    let mut command = cargo();
    command
        .args(["clippy", "--all-targets"])
        .args(test::PACKAGES)
        .args(["--", "-D", "warnings"]);
    command
}
