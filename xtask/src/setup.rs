//! `cargo xtask setup`: installs what the build, the demo and the tests need and the machine has not.
//!
//! [`look()`] finds out, [`plan()`] is pure; what it plans is printed before it is done, and a second run plans nothing.

mod look;
mod plan;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process::run as run_command;
use crate::services::NoServices;
use crate::toolchain::{choose, probe};

use look::look;
pub(crate) use look::{find_program, missing_for_guest};
use plan::{Step, by_sudo, plan};

/// What is wanted beside the build, the demo and the tests on this kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// What only `cargo xtask ci` needs.
    pub(crate) lint: bool,
    /// What a guest with another kernel needs.
    pub(crate) guest: bool,
    /// What libFuzzer is built with.
    pub(crate) fuzz: bool,
}

impl Wanted {
    pub(crate) const GUEST: Self = Self {
        lint: false,
        guest: true,
        fuzz: false,
    };
    pub(crate) const FUZZ: Self = Self {
        lint: false,
        guest: false,
        fuzz: true,
    };
    /// All that `cargo xtask ci` needs.
    pub(crate) const CI: Self = Self {
        lint: true,
        guest: true,
        fuzz: false,
    };
}

/// What the build, the demo and the tests need, and what else is wanted.
///
/// # Errors
/// Something can neither be found nor installed; the message holds the mend.
pub(crate) fn run(wanted: Wanted) -> Result<()> {
    // What comes with a package may be known only when it is there: a second look finishes the plan.
    for _ in 0..3 {
        let facts = look(wanted);
        let steps = plan(&facts)?;
        if steps.is_empty() {
            if facts.ready_object {
                println!("setup: nothing to do; LB_EBPF_OBJECT gives the eBPF object");
                return Ok(());
            }
            let toolchain = choose(&facts.installed)?;
            println!("setup: nothing to do; the eBPF object is built with");
            println!("  {}\n  {}", toolchain.compiler, toolchain.linker);
            return Ok(());
        }
        println!("setup: will run");
        for step in &steps {
            println!("  {step}");
        }
        for step in &steps {
            if matches!(step, Step::Apt(_)) && !geteuid().is_root() {
                bail!(
                    "packages are missing, and installing them needs root; run this, then `cargo xtask setup` again:\n  {}",
                    by_sudo(step)
                );
            }
            // docker.io would start a dockerd for the whole machine.
            let _quiet = matches!(step, Step::Apt(_)).then(NoServices::new).transpose()?;
            step.commands().iter_mut().try_for_each(run_command).context("setup")?;
        }
    }
    choose(&probe())?;
    Ok(())
}

/// As [`run`], but quiet when there is nothing to do, and content without the packages that only tests need
/// when they cannot be installed.
pub(crate) fn ensure(wanted: Wanted) -> Result<()> {
    let facts = look(wanted);
    let steps = plan(&facts)?;
    let only_programs = facts.ready_object || choose(&facts.installed).is_ok();
    match steps.first() {
        None => Ok(()),
        Some(step @ Step::Apt(_)) if only_programs && !geteuid().is_root() => {
            println!(
                "note: without these packages some tests will be skipped: {}",
                by_sudo(step)
            );
            Ok(())
        }
        Some(_) => run(wanted),
    }
}

/// Installs the packages of those programs that are not there.
///
/// # Errors
/// They cannot be installed; the message holds the mend.
pub(crate) fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(name, _)| find_program(name).is_none());
    let packages: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let step = Step::Apt(packages);
    if !geteuid().is_root() {
        bail!(
            "packages are missing, and installing them needs root; run this first:\n  {}",
            by_sudo(&step)
        );
    }
    println!("setup: will run\n  {step}");
    let _quiet = NoServices::new()?;
    step.commands().iter_mut().try_for_each(run_command).context("setup")
}
