//! `cargo xtask gen`: documents that are made from the code, so that they cannot go stale.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{cargo, run as run_command};
use crate::{kernels, setup, test, workspace};

/// Writes the documents, or with `check` only compares them.
///
/// # Errors
/// A binary cannot be built or run, or with `check` a document is out of date.
pub(crate) fn run(check: bool) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    let mut build = cargo();
    build.args(["build", "--quiet", "--bins", "--package", "lb-userspace"]);
    run_command(&mut build).context("build of the agent and lbctl")?;
    let binaries = test::target_directory()?.join("debug");
    let documents = [
        ("docs/lbctl.md", output(&binaries.join("lbctl"), &["docs", "lbctl"])?),
        (
            "docs/metrics.md",
            output(&binaries.join("lbctl"), &["docs", "metrics"])?,
        ),
        ("docs/lb-agent.md", command_line(&binaries, "lb-agent")?),
        (
            "docs/agent.toml",
            output(&binaries.join("lb-agent"), &["config", "default"])?,
        ),
        kernels::document()?,
    ];
    let mut stale = Vec::new();
    for (name, text) in documents {
        let path = workspace().join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            stale.push(name);
        } else {
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("wrote {name}");
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask gen`", stale.join(", "));
    }
    Ok(())
}

const MADE: &str = "<!-- Made by `cargo xtask gen`; do not edit. -->\n";

/// The help of a program and of all its subcommands.
fn command_line(binaries: &Path, program: &str) -> Result<String> {
    let mut text = format!("{MADE}# {program}\n");
    let mut waiting = vec![vec![program.to_owned()]];
    while let Some(words) = waiting.pop() {
        let mut arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        arguments.push("--help");
        let help = output(&binaries.join(program), &arguments)?;
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(text, "\n## {}\n\n```text\n{}\n```\n", words.join(" "), lines.join("\n"))?;
        let below = subcommands(&help)
            .into_iter()
            .map(|name| words.iter().cloned().chain([name]).collect());
        waiting.extend(below.collect::<Vec<_>>().into_iter().rev());
    }
    Ok(text)
}

/// Names under `Commands:` in the help that clap writes.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // Names are indented by two spaces, continued descriptions by more.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    // The width that clap wraps at, and nothing else of the environment, may decide about the text.
    let output = Command::new(program)
        .args(arguments)
        .env_remove("COLUMNS")
        .env("NO_COLOR", "1")
        .output();
    let output = output.with_context(shown)?;
    ensure!(
        output.status.success(),
        "{}: {}",
        shown(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_read_from_the_help() {
        let help = "Usage: lbctl <COMMAND>\n\nCommands:\n  status   One screen,\n             and more\n  service  Services [alias: svc]\n  help     Print this message\n\nOptions:\n  -h, --help\n";
        assert_eq!(subcommands(help), ["status", "service"]);
        assert!(subcommands("Usage: lbctl status\n").is_empty());
    }
}
