//! `cargo xtask ebpf`: builds the object and says how large it is.

use anyhow::{Context, Result};

use crate::object::{Build, Machine};
use crate::toolchain::{choose, probe};
use crate::workspace;

pub(crate) fn run() -> Result<()> {
    let toolchain = choose(&probe())?;
    let workspace = workspace();
    let machine = host();
    let build = Build {
        workspace: &workspace,
        toolchain: &toolchain,
        machine: &machine,
    };
    let bytes = build.run().context("build of lb-ebpf")?;
    println!(
        "{}: {} bytes, built with {}",
        build.object().display(),
        bytes.len(),
        toolchain.compiler
    );
    Ok(())
}

/// The machine that runs us.
fn host() -> Machine {
    Machine {
        architecture: std::env::consts::ARCH.to_owned(),
        big_endian: cfg!(target_endian = "big"),
    }
}
