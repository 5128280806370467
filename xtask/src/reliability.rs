//! `cargo xtask reliability`: runs the tests that prove the promises, gathers their figures (`tests/harness/evidence.rs`)
//! and writes docs/reliability.md from both.

mod beyond;
mod document;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::process::{cargo, run, run_and_read};
use crate::{setup, test, workspace};

use beyond::Proof;
use promises::{LONG, PROMISES, Promise};

/// Where it is written.
const DOCUMENT: &str = "docs/reliability.md";

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// As many flows, updates and cases as are promised; without it, as many as fit among all the other tests.
    #[arg(long)]
    long: bool,
    /// And every namespace test that fits it on the oldest supported kernel, in a guest, which takes hours.
    #[arg(long, requires = "long")]
    oldest_kernel: bool,
    /// Only these promises, by name; prints the document instead of writing it.
    #[arg(value_name = "PROMISE")]
    only: Vec<String>,
}

/// One line of evidence.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Figure {
    promise: String,
    test: String,
    figure: String,
    value: u64,
}

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// There is no such test, or it did not come to its end.
    Missing,
}

/// A test by package, target and name.
type Key = (&'static str, &'static str, &'static str);

/// What the tests said.
#[derive(Debug, Default)]
struct Findings {
    outcomes: BTreeMap<Key, Outcome>,
    /// Sums by promise, test and figure.
    figures: BTreeMap<(String, String, String), u64>,
    /// What is no test of this build; `None`: it was not asked for.
    beyond: Option<Vec<Proof>>,
}

/// Runs the proofs and writes the document, also if something is not proven.
///
/// # Errors
/// Nothing could be run, a test failed or is not there, a promise has no figure, or a figure no promise.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    for name in &arguments.only {
        let names: Vec<_> = PROMISES.iter().map(|promise| promise.name).collect();
        ensure!(
            names.contains(&name.as_str()),
            "no promise is called {name}; there are {}",
            names.join(", ")
        );
    }
    let wanted = |promise: &&Promise| arguments.only.is_empty() || arguments.only.iter().any(|n| n == promise.name);
    let promises: Vec<&Promise> = PROMISES.iter().filter(wanted).collect();
    setup::ensure(setup::Wanted::default())?;
    let mut build = cargo();
    build.args(["build", "--bins", "--tests"]).args(test::PACKAGES);
    run(&mut build).context("build of the tests and of the binaries that they run")?;
    let file = test::target_directory()?.join(format!("evidence-{}.jsonl", std::process::id()));
    let findings = prove(&promises, arguments.long, &file);
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    let mut findings = findings?;
    if arguments.long {
        findings.beyond = Some(beyond::prove(&promises, arguments.oldest_kernel));
    }
    let mut faults = findings.gather(&text, &promises)?;
    faults.extend(findings.faults(&promises));
    let document = document::write(&promises, &findings, arguments.long);
    if arguments.only.is_empty() {
        let path = workspace().join(DOCUMENT);
        fs::write(&path, document).with_context(|| path.display().to_string())?;
        println!("wrote {DOCUMENT}");
    } else {
        println!("{document}");
    }
    if !faults.is_empty() {
        bail!("not everything is proven:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Runs every test once, each target's together.
fn prove(promises: &[&Promise], long: bool, evidence: &Path) -> Result<Findings> {
    let mut targets: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for tests in promises.iter().flat_map(|promise| promise.tests) {
        let names = targets.entry((tests.package, tests.target)).or_default();
        names.extend(tests.names);
    }
    let mut findings = Findings::default();
    for ((package, target), names) in targets {
        let mut command = cargo();
        command.args(["test", "--package", package]);
        match target {
            "" => command.arg("--lib"),
            target => command.args(["--test", target]),
        };
        command.args(["--", "--exact"]).args(&names);
        command.env("LB_TEST_STRICT", "1").env("LB_EVIDENCE", evidence);
        command.envs(LONG.iter().copied().filter(|_| long));
        let (_, text) = run_and_read(&mut command)?;
        for name in names {
            findings.outcomes.insert((package, target, name), outcome(&text, name));
        }
    }
    Ok(findings)
}

/// How a test went, from what `cargo test` writes.
fn outcome(text: &str, name: &str) -> Outcome {
    let ends = |result: &str| {
        let line = format!("test {name} ... {result}");
        text.lines().any(|there| there.trim_end() == line)
    };
    if ends("FAILED") {
        Outcome::Failed
    } else if ends("ok") {
        Outcome::Passed
    } else {
        Outcome::Missing
    }
}

impl Findings {
    /// Adds the lines of the evidence. Returns what no promise asks for.
    fn gather(&mut self, text: &str, promises: &[&Promise]) -> Result<Vec<String>> {
        let mut strangers = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            let figure: Figure =
                serde_json::from_str(line).with_context(|| format!("evidence, line {}", number + 1))?;
            let promise = PROMISES.iter().find(|promise| promise.name == figure.promise);
            let listed = promise.is_some_and(|promise| promise.has(&figure.test));
            if !listed {
                strangers.insert(format!(
                    "{} gives evidence for {}, whose list does not have it",
                    figure.test, figure.promise
                ));
            } else if promises.iter().any(|promise| promise.name == figure.promise) {
                let key = (figure.promise, figure.test, figure.figure);
                *self.figures.entry(key).or_default() += figure.value;
            }
        }
        Ok(strangers.into_iter().collect())
    }

    fn outcome(&self, key: Key) -> Outcome {
        self.outcomes.get(&key).copied().unwrap_or(Outcome::Missing)
    }

    /// Figures of one promise: test, figure, value.
    fn of<'a>(&'a self, promise: &'a Promise) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
        self.figures
            .iter()
            .filter(|((name, _, _), _)| name == promise.name)
            .map(|((_, test, figure), value)| (test.as_str(), figure.as_str(), *value))
    }

    /// What is no test of this build, for one promise.
    fn beyond<'a>(&'a self, promise: &'a Promise) -> impl Iterator<Item = &'a Proof> {
        self.beyond
            .iter()
            .flatten()
            .filter(|proof| proof.promise == promise.name)
    }

    /// What is wrong with the proof of one promise; empty: it is proven.
    fn lacks(&self, promise: &Promise) -> Vec<String> {
        let mut lacks = Vec::new();
        if promise.tests.is_empty() {
            lacks.push("no test".into());
        }
        for key in promise.keys() {
            match self.outcome(key) {
                Outcome::Passed => {}
                Outcome::Failed => lacks.push(format!("{} failed", key.2)),
                Outcome::Missing => lacks.push(format!("{} did not run", key.2)),
            }
        }
        for proof in self.beyond(promise) {
            if let beyond::Result::Broken(why) = &proof.result {
                lacks.push(format!("{}: {why}", proof.by));
            }
        }
        if !promise.tests.is_empty() && self.of(promise).next().is_none() {
            lacks.push("no figures".into());
        }
        lacks
    }

    fn faults(&self, promises: &[&Promise]) -> Vec<String> {
        let lacks = promises.iter().flat_map(|promise| {
            let told = self.lacks(promise).into_iter();
            told.map(|lack| format!("{}: {lack}", promise.name))
        });
        lacks.collect()
    }
}

impl Promise {
    /// Its tests.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let each =
            |tests: &'static promises::Tests| tests.names.iter().map(|name| (tests.package, tests.target, *name));
        self.tests.iter().flat_map(each)
    }

    fn has(&self, test: &str) -> bool {
        self.keys().any(|(_, _, name)| name == test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVEN: Promise = Promise {
        name: "drain",
        title: "Drain",
        claim: "It drains.",
        tests: &[promises::Tests {
            package: "p",
            target: "t",
            names: &["a::b", "a::c"],
        }],
    };

    fn line(promise: &str, test: &str, value: u64) -> String {
        format!("{{\"promise\":\"{promise}\",\"test\":\"{test}\",\"figure\":\"runs\",\"value\":{value}}}\n")
    }

    #[test]
    fn names_are_unique_and_every_promise_says_something() {
        let names: BTreeSet<_> = PROMISES.iter().map(|promise| promise.name).collect();
        assert_eq!(names.len(), PROMISES.len());
        assert!(PROMISES.iter().all(|p| p.claim.ends_with('.') && !p.title.is_empty()));
    }

    #[test]
    fn the_end_of_a_test_is_read_from_the_output() {
        let text = "test a::b ... ok\ntest a::bc ... FAILED\n";
        assert_eq!(outcome(text, "a::b"), Outcome::Passed);
        assert_eq!(outcome(text, "a::bc"), Outcome::Failed);
        assert_eq!(outcome(text, "a"), Outcome::Missing);
    }

    #[test]
    fn what_failed_or_is_missing_is_no_proof() {
        let mut findings = Findings::default();
        findings.outcomes.insert(("p", "t", "a::b"), Outcome::Passed);
        let lacks = findings.lacks(&PROVEN);
        assert_eq!(lacks, ["a::c did not run", "no figures"]);
        findings.outcomes.insert(("p", "t", "a::c"), Outcome::Failed);
        let key = ("drain".to_owned(), "a::b".to_owned(), "runs".to_owned());
        findings.figures.insert(key, 3);
        assert_eq!(findings.lacks(&PROVEN), ["a::c failed"]);
        let document = document::write(&[&PROVEN], &findings, false);
        assert!(document.contains("**NOT PROVEN**: a::c failed"), "{document}");
        assert!(document.contains("| `a::b` | runs | 3 |"), "{document}");
    }

    #[test]
    fn what_is_no_test_is_told_and_is_a_fault_only_if_it_failed() {
        let proof = |result| Proof {
            promise: "drain",
            by: "libFuzzer".into(),
            result,
        };
        let findings = |results: Vec<beyond::Result>| Findings {
            beyond: Some(results.into_iter().map(proof).collect()),
            ..Findings::default()
        };
        let absent = findings(vec![beyond::Result::Absent("no compiler".into())]);
        let held = findings(vec![beyond::Result::Held("inputs", 7)]);
        let broken = findings(vec![beyond::Result::Broken("a find".into())]);
        let lacks = |findings: &Findings| findings.lacks(&PROVEN).iter().any(|lack| lack.contains("libFuzzer"));
        assert_eq!([lacks(&absent), lacks(&held), lacks(&broken)], [false, false, true]);
        let written = |findings: &Findings| document::write(&[&PROVEN], findings, true);
        assert!(
            written(&absent).contains("| libFuzzer | **did not run**: no compiler | |"),
            "{}",
            written(&absent)
        );
        assert!(written(&held).contains("| libFuzzer | inputs | 7 |"));
        assert!(written(&broken).contains("| libFuzzer | **FAILED**: a find | |"));
    }

    #[test]
    fn figures_are_added_up_and_strangers_named() {
        let proof = PROMISES
            .iter()
            .find(|promise| promise.name == "drain")
            .expect("a promise");
        let (_, _, test) = proof.keys().next().expect("a test");
        let text = [
            line("drain", test, 3),
            line("drain", test, 4),
            line("drain", "unknown", 1),
            line("unknown", test, 1),
        ];
        let mut findings = Findings::default();
        let strangers = findings.gather(&text.concat(), &[proof]).expect("JSON");
        assert_eq!(findings.of(proof).collect::<Vec<_>>(), [(test, "runs", 7)]);
        assert_eq!(strangers.len(), 2, "{strangers:?}");
        assert!(findings.gather("{\"promise\":1}\n", &[proof]).is_err());
    }
}
