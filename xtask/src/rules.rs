//! Which module of the agent may use which: the table in `lb-userspace/src/lib.rs`, checked against the sources.
//!
//! Cargo cannot do this inside one crate. The last column of the table is the rule; prose in it is not checked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// `modules` must not mention any of `forbidden`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    modules: Vec<String>,
    forbidden: Vec<String>,
}

/// Words of the table that are crates; all others are modules of the agent.
const CRATES: &[&str] = &["aya", "tokio", "rtnetlink", "hickory"];

/// Where the wall clock is read: to show it to people, and (`stream`) to tell how old a file is after a restart. All else waits,
/// expires and measures by the monotonic one.
const WALL_CLOCK: &[&str] = &["agent/status.rs", "telemetry", "bin/lbctl", "stream"];

/// # Errors
/// A rule is broken; every place is named.
pub(crate) fn check() -> Result<()> {
    let source = workspace().join("lb-userspace/src");
    let table = fs::read_to_string(source.join("lib.rs")).context("lb-userspace/src/lib.rs")?;
    let rules = parse(&table);
    ensure!(
        rules.len() >= 5,
        "the table of rules in lb-userspace/src/lib.rs was not understood"
    );
    let mut broken = Vec::new();
    for rule in &rules {
        for module in &rule.modules {
            for file in files(&source, module)? {
                let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
                let shown = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
                broken.extend(violations(&shown, &text, &rule.forbidden));
            }
        }
    }
    for file in files(&source, "")? {
        let text = fs::read_to_string(&file)?;
        let shown = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        if !file.ends_with("net/netns.rs") {
            broken.extend(uses(&shown, &text, "setns(", "setns, which only net::netns calls"));
        }
        let place = file.strip_prefix(&source).unwrap_or(&file);
        if !WALL_CLOCK.iter().any(|allowed| place.starts_with(allowed)) {
            let what = "the wall clock, which may jump, where the monotonic one is to be used";
            broken.extend(uses(&shown, &text, "SystemTime::now(", what));
        }
    }
    if !broken.is_empty() {
        bail!(
            "the rules of lb-userspace/src/lib.rs are broken:\n  {}",
            broken.join("\n  ")
        );
    }
    println!("module rules: {} rows hold", rules.len());
    Ok(())
}

/// Rows of the table: `| [`module`], ... | may use | must not use |`.
fn parse(source: &str) -> Vec<Rule> {
    source
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("//! |")?.split('|').map(str::trim).collect();
            let [modules, _, forbidden, ""] = cells[..] else {
                return None;
            };
            let modules: Vec<String> = modules
                .split(',')
                .filter_map(|name| Some(name.trim().strip_prefix("[`")?.strip_suffix("`]")?.to_owned()))
                .collect();
            let forbidden = forbidden
                .split(',')
                .map(|word| word.trim().trim_matches('`').to_owned())
                .collect();
            (!modules.is_empty()).then_some(Rule { modules, forbidden })
        })
        .collect()
}

/// Source files of a module; of all modules if the name is empty.
fn files(source: &Path, module: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![source.join(module)];
    if !module.is_empty() && source.join(format!("{module}.rs")).exists() {
        found.push(source.join(format!("{module}.rs")));
    }
    while let Some(directory) = directories.pop().filter(|directory| directory.is_dir()) {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn violations(file: &str, text: &str, forbidden: &[String]) -> Vec<String> {
    forbidden
        .iter()
        .flat_map(|word| {
            let patterns: Vec<String> = match word.as_str() {
                "I/O" => [
                    "std::fs",
                    "std::net::Tcp",
                    "std::net::Udp",
                    "std::process",
                    "std::os::unix::net",
                ]
                .map(str::to_owned)
                .to_vec(),
                word if CRATES.contains(&word) => vec![format!("{word}::"), format!("{word}_")],
                // A module of the agent, `providers` meaning `provider`.
                word => vec![format!(
                    "crate::{}::",
                    word.strip_suffix('s').filter(|w| *w == "provider").unwrap_or(word)
                )],
            };
            patterns
                .into_iter()
                .flat_map(move |pattern| uses(file, text, &pattern, word))
        })
        .collect()
}

/// Places outside comments and unit tests that contain `pattern`, not as the end of another word.
fn uses(file: &str, text: &str, pattern: &str, what: &str) -> Vec<String> {
    let code = product(text).map(|(number, line)| (number, line.split("//").next().unwrap_or(line)));
    code.filter(|(_, line)| {
        line.match_indices(pattern).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            // The marker of plain old data is a bound on types, and loads nothing.
            !line[at..].starts_with("aya::Pod") && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
    .map(|(number, _)| format!("{file}:{}: uses {what}", number + 1))
    .collect()
}

/// Lines that are not of unit tests, with their numbers from 0: a test module in the file itself is its end, one in a file of its
/// own is one line below its attributes.
fn product(text: &str) -> impl Iterator<Item = (usize, &str)> {
    const TEST: &str = "#[cfg(test)]";
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        if line.trim() != TEST {
            return Some((number, line));
        }
        let (number, item) = lines.find(|(_, line)| !line.trim_start().starts_with("#["))?;
        item.trim_end().ends_with(';').then_some((number, ""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "//! | module | may use | must not use |\n//! |---|---|---|\n\
                     //! | [`model`] | std | aya, I/O |\n//! | [`telemetry`], [`admin`] | x | mutating handles |\n";
        let rules = parse(table);
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].forbidden, ["aya", "I/O"]);
        assert_eq!(rules[1].modules, ["telemetry", "admin"]);
    }

    #[test]
    fn a_forbidden_use_is_found_with_its_place() {
        let forbidden = ["aya", "providers", "I/O"].map(str::to_owned);
        let text = "//! Not aya::this.\nuse aya::Ebpf;\nuse crate::provider::File;\nlet x = std::fs::read(p);\n\
                    let maya::y = 1;\nfn get<T: aya::Pod>() {}\n#[cfg(test)]\nuse aya::Btf;\nuse aya::maps;\n\
                    #[cfg(test)]\nmod tests {\nuse aya::Pod;\n}\n";
        let found = violations("a.rs", text, &forbidden);
        assert_eq!(
            found,
            [
                "a.rs:2: uses aya",
                "a.rs:9: uses aya",
                "a.rs:3: uses providers",
                "a.rs:4: uses I/O"
            ]
        );
    }

    #[test]
    fn a_test_module_with_attributes_does_not_end_the_code() {
        let text = "#[cfg(test)]\n#[path = \"x_tests.rs\"]\n#[allow(dead_code)]\nmod x;\nuse aya::Ebpf;\n\
                    #[cfg(test)]\n#[allow(dead_code)]\nmod tests {\nuse aya::Btf;\n}\n";
        assert_eq!(uses("a.rs", text, "aya::", "aya"), ["a.rs:5: uses aya"]);
    }
}
