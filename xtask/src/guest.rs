//! `cargo xtask test --kernel 6.1`: tests on Debian 12's kernel, in a machine that qemu emulates.
//!
//! The guest runs the binaries of this machine's build, whose directories it shares; nothing is copied, and nothing of
//! the host is written but what failing tests leave. It needs no root, once the packages are installed.

mod archive;
mod kernel;
mod machine;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::count::Counts;
use crate::process::{cargo, read};
use crate::{setup, test, workspace};

use kernel::Kernel;
use machine::{Machine, Share};
pub(crate) use suites::{QUICK, SUITES, Suite};

/// Kernels that can be asked for: the oldest that is supported.
const KERNELS: &[&str] = &["6.1"];
/// How long after a suite's own limit it is told from one that hangs.
const GRACE: Duration = Duration::from_secs(30);
/// What `timeout` returns when the time is up, and when it had to kill.
const TIMED_OUT: [i32; 2] = [124, 137];

/// A test binary.
#[derive(Clone, Debug)]
struct Binary {
    name: String,
    path: PathBuf,
    /// Directory of its package, in which it runs.
    directory: PathBuf,
}

/// `cargo xtask test --kernel`: a suite's name, a part of a test's name, both or neither.
///
/// # Errors
/// As [`run`], or no test is called so.
pub(crate) fn test(kernel: &str, words: &[String]) -> Result<Counts> {
    let (suites, filter) = select(words)?;
    let counts = run(kernel, &suites, filter)?;
    ensure!(counts != Counts::default(), "no test is called so: {}", words.join(" "));
    Ok(counts)
}

fn select(words: &[String]) -> Result<(Vec<Suite>, Option<&str>)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let named = |name: &str| SUITES.iter().copied().find(|suite| suite.name == name);
    match words[..] {
        [] => Ok((SUITES.into(), None)),
        [name] if named(name).is_some() => Ok((Vec::from_iter(named(name)), None)),
        [name, filter] => match named(name) {
            Some(suite) => Ok((vec![suite], Some(filter))),
            None => {
                let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
                bail!("{name}: on another kernel there are the tiers {}", names.join(", "))
            }
        },
        [name, ..] if test::is_tier(name) => bail!("the tier {name} does not run on another kernel"),
        [filter, ..] => Ok((SUITES.into(), Some(filter))),
    }
}

/// Runs `suites` on `kernel`; with a filter, all their tests with it in their names.
///
/// # Errors
/// This machine cannot run the guest, or the guest does not come up.
pub(crate) fn run(kernel: &str, suites: &[Suite], filter: Option<&str>) -> Result<Counts> {
    if !KERNELS.contains(&kernel) {
        bail!("kernel {kernel}: there is {}", KERNELS.join(", "));
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "the guest runs this machine's binaries on an x86_64 kernel, and this is {}",
            std::env::consts::ARCH
        );
    }
    setup::ensure(setup::Wanted::GUEST)?;
    if let Some(package) = setup::missing_for_guest().first() {
        bail!("{package} is not installed (`cargo xtask setup --guest` does it)");
    }
    let binaries = build()?;
    let target = test::target_directory()?;
    let kernel = Kernel::get(kernel, &target.join("guest"))?;
    let machine = Machine {
        kernel: &kernel,
        shares: &shares(&target)?,
        script: script(suites, filter, &binaries, &target)?,
        scratch: target.join(format!("guest/run-{}", std::process::id())),
    };
    let mut record = Record::default();
    println!("guest: boots {}", kernel.image().display());
    let ended = machine.run(|line| {
        println!("{line}");
        record.take(line).map(|name| {
            let suite = suites.iter().find(|suite| suite.name == name);
            suite.map_or(GRACE, |suite| suite.limit + GRACE)
        })
    });
    let counts = record.counts(suites);
    match ended {
        Err(error) if counts.failed == 0 => Err(error),
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(counts)
        }
        Ok(()) => Ok(counts),
    }
}

/// Builds all that the tests run, and says which files are the tests.
fn build() -> Result<Vec<Binary>> {
    let mut command = cargo();
    command
        .args(["build", "--bins", "--tests", "--message-format=json-render-diagnostics"])
        .args(test::PACKAGES);
    let text = read(&mut command).context("build of the tests")?;
    Ok(text.lines().filter_map(binary).collect())
}

/// A message of cargo's that tells of a test binary.
fn binary(message: &str) -> Option<Binary> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    if message["reason"] != "compiler-artifact" || target["kind"][0] != "test" {
        return None;
    }
    Some(Binary {
        name: target["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
        directory: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
    })
}

/// Programs and libraries, sources (tests read some), what was built, and a place for what failing tests leave.
fn shares(target: &Path) -> Result<Vec<Share>> {
    let artifacts = target.join("test-artifacts");
    fs::create_dir_all(&artifacts).with_context(|| artifacts.display().to_string())?;
    let mut read = vec![PathBuf::from("/usr"), workspace()];
    if !target.starts_with(&read[1]) {
        read.push(target.to_owned());
    }
    let share = |path, writable| Share { path, writable };
    let read = read.into_iter().map(|path| share(path, false));
    Ok(read.chain([share(artifacts, true)]).collect())
}

/// What the guest's shell runs: each suite between two lines that [`Record`] understands.
fn script(suites: &[Suite], filter: Option<&str>, binaries: &[Binary], target: &Path) -> Result<String> {
    let mut text = format!(
        "export HOME=/root PATH=/usr/sbin:/usr/bin LB_TEST_STRICT=1 RUST_BACKTRACE=1\nexport LB_BIN_DIR={}\n",
        quoted(&target.join("debug"))
    );
    for suite in suites {
        let binary = binaries.iter().find(|binary| binary.name == suite.target);
        let binary = binary.with_context(|| format!("there is no test target {}", suite.target))?;
        let arguments: Vec<String> = match filter {
            Some(filter) => vec![quoted(filter.as_ref())],
            None => suite.tests.iter().map(|name| quoted(name.as_ref())).collect(),
        };
        text.push_str(&format!(
            "echo '{BEGINS}{name}'\ncd {directory}\n\
             timeout --kill-after=5 {limit} {path} --color=never --test-threads={threads} {arguments}\n\
             echo \"{ENDED}{name} $?\"\n",
            name = suite.name,
            directory = quoted(&binary.directory),
            limit = suite.limit.as_secs(),
            path = quoted(&binary.path),
            threads = suite.threads,
            arguments = arguments.join(" "),
        ));
    }
    Ok(text)
}

/// A word of a shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

const BEGINS: &str = "guest: begins ";
const ENDED: &str = "guest: ended ";

/// What the suites wrote and how they ended.
#[derive(Clone, Debug, Default)]
struct Record {
    suites: Vec<(String, String, Option<i32>)>,
}

impl Record {
    /// Takes a line; the suite's name if one begins with it.
    fn take(&mut self, line: &str) -> Option<String> {
        if let Some(name) = line.strip_prefix(BEGINS) {
            self.suites.push((name.to_owned(), String::new(), None));
            return Some(name.to_owned());
        }
        let (name, text, code) = self.suites.last_mut()?;
        let ended = line.strip_prefix(ENDED).and_then(|rest| rest.strip_prefix(&**name));
        match ended.and_then(|rest| rest.trim().parse().ok()) {
            Some(number) => *code = Some(number),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
        None
    }

    /// All that is asked for has to have run: a suite without an end, or that ends badly without a failed test, counts as
    /// one that failed.
    fn counts(&self, suites: &[Suite]) -> Counts {
        let mut sum = Counts::default();
        for suite in suites {
            let Some((_, text, code)) = self.suites.iter().find(|(name, ..)| *name == suite.name) else {
                eprintln!("error: {} did not begin", suite.name);
                sum += Counts::check(false);
                continue;
            };
            let counts = Counts::from_output(text);
            let silent = counts.failed == 0;
            sum += counts;
            let trouble = match code {
                Some(0) => continue,
                Some(code) if TIMED_OUT.contains(code) => format!("took longer than {} s", suite.limit.as_secs()),
                Some(code) => format!("ended with {code}"),
                None => "did not come to its end".to_owned(),
            };
            if silent {
                eprintln!("error: {} {trouble}", suite.name);
                sum += Counts::check(false);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_a_filter_both_or_none() {
        let selected = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let (suites, filter) = select(&words).map_err(|error| error.to_string())?;
            Ok::<_, String>((suites.len(), suites[0].name, filter.map(str::to_owned)))
        };
        assert_eq!(selected(&[]), Ok((SUITES.len(), "packet", None)));
        assert_eq!(selected(&["netns"]), Ok((1, "netns", None)));
        assert_eq!(selected(&["netns", "drain"]), Ok((1, "netns", Some("drain".into()))));
        assert_eq!(selected(&["drain"]), Ok((SUITES.len(), "packet", Some("drain".into()))));
        assert!(selected(&["swarm"]).unwrap_err().contains("swarm does not run"));
        assert!(
            selected(&["swarm", "drain"])
                .unwrap_err()
                .contains("packet, attach, netns")
        );
    }

    fn counted(lines: &[&str]) -> String {
        let mut record = Record::default();
        for line in lines {
            record.take(line);
        }
        let named = |name| Suite { name, ..SUITES[0] };
        record.counts(&[named("one"), named("two")]).to_string()
    }

    #[test]
    fn a_suite_counts_by_its_results() {
        let passed = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let all = [
            "guest: begins one",
            passed,
            "guest: ended one 0",
            "guest: begins two",
            passed,
            "guest: ended two 0",
        ];
        assert_eq!(counted(&all), "6 passed, 0 failed, 0 skipped");
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored";
        let some = [
            "guest: begins one",
            passed,
            "guest: ended one 0",
            "guest: begins two",
            failed,
            "guest: ended two 101",
        ];
        assert_eq!(counted(&some), "4 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_suite_that_does_not_come_to_its_end_has_failed() {
        let begun = [
            "guest: begins one",
            "test a ... ok",
            "guest: ended one 124",
            "guest: begins two",
            "test b",
        ];
        assert_eq!(counted(&begun), "0 passed, 2 failed, 0 skipped");
        assert_eq!(counted(&[]), "0 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_test_binary_is_read_from_a_message_of_cargo() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],
            "name":"packet"},"executable":"/t/debug/deps/packet-1"}"#;
        let found = binary(message).unwrap();
        assert_eq!((&*found.name, found.directory.to_str()), ("packet", Some("/w/tests")));
        assert!(binary(&message.replace("[\"test\"]", "[\"bin\"]")).is_none());
        assert!(binary("Compiling").is_none());
    }

    #[test]
    fn a_word_of_a_shell_may_hold_anything() {
        assert_eq!(quoted("/a b/it's".as_ref()), r"'/a b/it'\''s'");
    }
}
