//! docs/reliability.md: the promises, who proves them, and the figures. No dates: it changes when what it says does.

use std::fmt::Write as _;
use std::fs;

use super::beyond::{Proof, Result as Came};
use super::promises::{LONG, Promise};
use super::{Findings, Outcome};

const MADE: &str = "<!-- Made by `cargo xtask reliability`; do not edit. -->\n";

/// The whole document.
pub(super) fn write(promises: &[&Promise], findings: &Findings, long: bool) -> String {
    let mut text = format!("{MADE}# Reliability\n\n");
    let run = if long {
        let settings: Vec<_> = LONG.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
        format!("the long run: {}", settings.join(", "))
    } else {
        "the bounded run, as among all the other tests; `cargo xtask reliability --long` does all that is promised, libFuzzer \
         among it, and `--oldest-kernel` every test that fits it there too"
            .into()
    };
    let _ = write!(
        text,
        "What holds whatever happens, the tests that fail without it, and how much of it they saw. Measured on {}; {run}.\n\n\
         | promise | |\n|---|---|\n",
        machine()
    );
    for promise in promises {
        let state = state(promise, findings);
        let _ = writeln!(text, "| [{}](#{}) | {state} |", promise.title, anchor(promise.title));
    }
    for promise in promises {
        section(&mut text, promise, findings);
    }
    text
}

fn state(promise: &Promise, findings: &Findings) -> &'static str {
    match (findings.lacks(promise).is_empty(), promise.tests.is_empty()) {
        (true, _) => "proven",
        (false, true) => "**NO EVIDENCE**",
        (false, false) => "**NOT PROVEN**",
    }
}

fn section(text: &mut String, promise: &Promise, findings: &Findings) {
    let _ = write!(text, "\n## {}\n\n{}\n", promise.title, promise.claim);
    let lacks = findings.lacks(promise);
    if !lacks.is_empty() {
        let _ = write!(text, "\n{}: {}\n", state(promise, findings), lacks.join("; "));
    }
    if promise.tests.is_empty() {
        return;
    }
    text.push_str("\n| test | of | |\n|---|---|---|\n");
    for key in promise.keys() {
        let (package, target, name) = key;
        let state = match findings.outcome(key) {
            Outcome::Passed => "passed",
            Outcome::Failed => "**FAILED**",
            Outcome::Missing => "**DID NOT RUN**",
        };
        let of = [package, target].into_iter().filter(|word| !word.is_empty());
        let of = of.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "| `{name}` | {of} | {state} |");
    }
    let mut figures = findings.of(promise).peekable();
    if figures.peek().is_some() {
        text.push_str("\n| test | figure | |\n|---|---|---:|\n");
    }
    for (test, figure, value) in figures {
        let _ = writeln!(text, "| `{test}` | {figure} | {value} |");
    }
    let mut beyond = findings.beyond(promise).peekable();
    if beyond.peek().is_some() {
        text.push_str("\n| by | figure | |\n|---|---|---:|\n");
    }
    for Proof { by, result, .. } in beyond {
        let _ = match result {
            Came::Held(what, count) => writeln!(text, "| {by} | {what} | {count} |"),
            Came::Broken(why) => writeln!(text, "| {by} | **FAILED**: {} | |", row(why)),
            Came::Absent(why) => writeln!(text, "| {by} | **did not run**: {} | |", row(why)),
        };
    }
}

/// As one cell of a table.
fn row(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// As GitHub makes it of a heading.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

/// Kernel, processors and memory: what figures depend on.
fn machine() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<_> = release.trim().split('.').take(2).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Linux {} ({}), {processors} processors, {} GiB",
        kernel.join("."),
        std::env::consts::ARCH,
        kilobytes.unwrap_or(0_u64).div_ceil(1 << 20),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_headings() {
        assert_eq!(
            anchor("Networks are apart, and access is earned"),
            "networks-are-apart-and-access-is-earned"
        );
    }
}
