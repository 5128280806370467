//! `cargo xtask bench`: installs the peers, builds everything with optimisation, and runs `lb-bench`; the rows [`COUNTED`] in
//! a guest, and the others here.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process::{ask, cargo, run};
use crate::{guest, setup, test, workspace};

/// Programs that the bench compares with or is built with, and the Debian package of each.
const PEERS: &[(&str, &str)] = &[
    ("clang", "clang"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ipvsadm", "ipvsadm"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    // A directory of modules tells nothing about one of them, so this stands for nginx's module `stream`.
    ("../lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
    ("dnsmasq", "dnsmasq-base"),
    ("unbound", "unbound"),
];

/// The rows that are counts of instructions: measured in a guest, whose clock counts them, and whose kernel has IPVS.
const COUNTED: &[&str] = &["instructions", "ipvs"];
/// The guest's kernel.
const KERNEL: &str = "6.1";
/// Options of `lb-bench` whose value is a word of its own.
const WITH_VALUE: &[&str] = &["--rounds", "--output", "--commit"];
/// Options that measure nothing.
const WITHOUT_ROWS: &[&str] = &["--report", "--help", "-h"];

/// What runs where.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    /// Arguments of `lb-bench` here.
    here: Option<Vec<String>>,
    /// And in the guest.
    guest: Option<Vec<String>>,
}

impl Split {
    fn of(arguments: &[String]) -> Self {
        let (mut rows, mut options) = (Vec::new(), Vec::new());
        let mut value = false;
        for word in arguments {
            let option = value || word.starts_with('-');
            value = WITH_VALUE.contains(&&**word);
            if option { &mut options } else { &mut rows }.push(word.clone());
        }
        let all = rows.is_empty();
        let measures = !options.iter().any(|option| WITHOUT_ROWS.contains(&&**option));
        let is_counted = |row: &String| COUNTED.contains(&&**row);
        let counted: Vec<String> = rows.extract_if(.., |row| is_counted(row)).collect();
        let here = all || !rows.is_empty() || !measures;
        let guest = measures && (all || !counted.is_empty());
        Self {
            here: here.then(|| [rows, options.clone()].concat()),
            guest: guest.then(|| [counted, vec!["--counted".to_owned()], options].concat()),
        }
    }
}

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
    let split = Split::of(arguments);
    let lb_bench = |arguments: &[String]| {
        let mut command = Command::new(&bench);
        command.arg("--output").arg(&docs).args(["--commit", &commit]);
        run(command.args(arguments))
    };
    // What one row lacks must not cost the others.
    let here = split.here.map_or(Ok(()), |arguments| lb_bench(&arguments));
    if let Some(mut arguments) = split.guest {
        arguments.extend(["--commit".to_owned(), commit.clone()]);
        let output = guest::bench(KERNEL, &arguments)?;
        keep(&output, &docs)?;
        lb_bench(&["--report".to_owned()])?;
    }
    here
}

/// Takes over what the guest has measured, and leaves nothing there that could be taken for the next one's.
fn keep(output: &Path, docs: &Path) -> Result<()> {
    for row in COUNTED {
        let file = format!("benchmarks/{row}.json");
        let (from, to) = (output.join(&file), docs.join(&file));
        if from.is_file() {
            fs::copy(&from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
            fs::remove_file(&from).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_is_measured_in_a_guest_and_the_others_here() {
        let split = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let Split { here, guest } = Split::of(&words);
            (here.map(|words| words.join(" ")), guest.map(|words| words.join(" ")))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(split(""), (text(""), text("--counted")));
        assert_eq!(split("ipvs --rounds 3"), (None, text("ipvs --counted --rounds 3")));
        assert_eq!(split("--quick dns"), (text("dns --quick"), None));
        assert_eq!(
            split("dns ipvs instructions --quick"),
            (text("dns --quick"), text("ipvs instructions --counted --quick"))
        );
        assert_eq!(split("--report"), (text("--report"), None));
        assert_eq!(split("--help"), (text("--help"), None));
    }
}
