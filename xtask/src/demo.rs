//! `cargo xtask demo`: builds the binaries and runs `lb-demo`, which shows three nodes on one machine.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process::{cargo, run};
use crate::{setup, test};

/// Arguments are those of `lb-demo`.
pub(crate) fn execute(arguments: &[String]) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    let mut build = cargo();
    build.args(["build", "--bins", "--package", "lb-userspace", "--package", "lb-tests"]);
    run(&mut build).context("build of the agent, lbctl and the demo")?;
    let demo = test::target_directory()?.join("debug/lb-demo");
    if !geteuid().is_root() {
        bail!(
            "network namespaces and BPF need root; all is built, so run\n  sudo {}",
            demo.display()
        );
    }
    run(Command::new(demo).args(arguments))
}
