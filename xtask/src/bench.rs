//! `cargo xtask bench`: installs the peers, builds everything with optimisation, and runs `lb-bench`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process::{ask, cargo, run};
use crate::{setup, test, workspace};

/// Programs that the bench compares with or is built with, and the Debian package of each.
const PEERS: &[(&str, &str)] = &[
    ("clang", "clang"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    // A directory of modules tells nothing about one of them, so this stands for nginx's module `stream`.
    ("../lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
    ("dnsmasq", "dnsmasq-base"),
    ("unbound", "unbound"),
];

/// Arguments are those of `lb-bench`.
pub(crate) fn execute(arguments: &[String]) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    setup::install(PEERS)?;
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "lb-userspace",
        "--package",
        "lb-tests",
    ]);
    // The last is what a container of dockerd's runs.
    build.args([
        "--bin", "lb-agent", "--bin", "lbctl", "--bin", "lb-bench", "--bin", "lb-task",
    ]);
    run(&mut build).context("build of the agent and the bench")?;
    let bench = test::target_directory()?.join("release/lb-bench");
    let commit = commit();
    let docs = workspace().join("docs");
    if !geteuid().is_root() {
        bail!(
            "network namespaces and BPF need root; all is built, so run\n  sudo {} --output {} --commit {commit}",
            bench.display(),
            docs.display()
        );
    }
    let mut command = Command::new(bench);
    command.arg("--output").arg(docs).args(["--commit", &commit]);
    run(command.args(arguments))
}

/// What is measured, as git names it.
fn commit() -> String {
    let directory = workspace().display().to_string();
    let described = ask(
        "git",
        &["-C", &directory, "describe", "--always", "--dirty", "--abbrev=10"],
    );
    described.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
