//! `cargo xtask test --kernel 6.1`: tests on Debian 12's kernel, in a machine that qemu emulates; and what is measured there.
//!
//! The guest runs the binaries of this machine's build, whose directories it shares; nothing is copied, and nothing of
//! the host is written but what failing tests leave. It needs no root, once the packages are installed.

mod archive;
mod bench;
mod kernel;
mod machine;
mod record;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::count::Counts;
use crate::process::{cargo, read};
use crate::{ebpf, kernels, setup, test, workspace};

pub(crate) use bench::bench;
use kernel::Kernel;
use machine::{Clock, Machine, Share};
use record::{BEGINS, ENDED, Record};
use suites::ALL;
pub(crate) use suites::{Extent, QUICK, SUITES, Suite};

/// Kernels that can be asked for: the oldest that is supported.
const KERNELS: &[&str] = &["6.1"];
/// How long after a suite's own limit it is told from one that hangs.
const GRACE: Duration = Duration::from_secs(30);
/// The part in which the kernel is asked.
const PROBE: &str = "probe";
/// How long that may take; usually 20 s.
const PROBING: Duration = Duration::from_secs(600);

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
/// `all`: without a part of a name, every test that fits.
///
/// # Errors
/// As [`run`], or no test is called so.
pub(crate) fn test(kernel: &str, words: &[String], all: bool) -> Result<Counts> {
    let (suites, filter) = select(words)?;
    let extent = match filter {
        Some(filter) => Extent::Named(filter),
        None if all => Extent::All,
        None => Extent::Chosen,
    };
    let counts = run(kernel, &suites, extent)?;
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

/// Runs tests of `suites` on `kernel`.
///
/// # Errors
/// This machine cannot run the guest, or the guest does not come up.
pub(crate) fn run(kernel: &str, suites: &[Suite], extent: Extent<'_>) -> Result<Counts> {
    check(kernel)?;
    let binaries = build(suites)?;
    let whole = !matches!(extent, Extent::Named(_));
    let mut script = if whole { asking()? } else { String::new() };
    for suite in suites {
        script += &part(suite, extent, &binaries)?;
    }
    let mut record = Record::default();
    let ended = boot(kernel, &script, &mut record, |name| {
        let suite = suites.iter().find(|suite| suite.name == name);
        suite.map_or(PROBING, |suite| limit(suite, extent) + GRACE)
    });
    let mut counts = record.counts(suites);
    match ended {
        Err(error) if counts.failed == 0 => return Err(error),
        Err(error) => eprintln!("error: {error:#}"),
        Ok(()) => {}
    }
    if whole {
        let checked = answer(&record).and_then(|now| kernels::check(kernel, &now));
        if let Err(error) = &checked {
            eprintln!("error: {error:#}");
        }
        counts += Counts::check(checked.is_ok());
    }
    Ok(counts)
}

/// What `kernel` says about itself and our programs.
///
/// # Errors
/// As [`run`], or it cannot be asked.
pub(crate) fn probe(kernel: &str) -> Result<kernels::Kernel> {
    check(kernel)?;
    let mut record = Record::default();
    boot(kernel, &asking()?, &mut record, |_| PROBING)?;
    answer(&record)
}

/// What the kernel said in [`PROBE`].
fn answer(record: &Record) -> Result<kernels::Kernel> {
    kernels::parse(record.of(PROBE).context("the guest's kernel could not be asked")?)
}

/// # Errors
/// This machine cannot run a guest with this kernel.
pub(crate) fn check(kernel: &str) -> Result<()> {
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
    Ok(())
}

/// Boots `kernel`, runs `script` there and records what it says; `limit` says how long a suite may take from its begin.
fn boot(kernel: &str, script: &str, record: &mut Record, limit: impl Fn(&str) -> Duration) -> Result<()> {
    let target = test::target_directory()?;
    let kernel = Kernel::get(kernel, &target.join("guest"))?;
    let machine = Machine {
        kernel: &kernel,
        clock: Clock::Time,
        shares: &shares(&target)?,
        script: format!(
            "export HOME=/root PATH=/usr/sbin:/usr/bin LB_TEST_STRICT=1 LB_TEST_SLOWNESS=10 RUST_BACKTRACE=1\nexport LB_BIN_DIR={}\n{script}",
            quoted(&target.join("debug"))
        ),
        scratch: target.join(format!("guest/run-{}", std::process::id())),
    };
    println!("guest: boots {}", kernel.image().display());
    machine.run(|line| {
        println!("{line}");
        record.take(line).map(|name| limit(&name))
    })
}

/// Builds the tests of `suites` and all that they run, and says which files are the tests.
fn build(suites: &[Suite]) -> Result<Vec<Binary>> {
    let mut command = cargo();
    command
        .args(["build", "--bins", "--message-format=json-render-diagnostics"])
        .args(test::PACKAGES)
        .args(suites.iter().flat_map(|suite| ["--test", suite.target]));
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

/// Longer than this a suite may not take.
fn limit(suite: &Suite, extent: Extent<'_>) -> Duration {
    match extent {
        Extent::All => suite.limit * ALL,
        _ => suite.limit,
    }
}

/// What the guest's shell runs for a suite.
fn part(suite: &Suite, extent: Extent<'_>, binaries: &[Binary]) -> Result<String> {
    let binary = binaries.iter().find(|binary| binary.name == suite.target);
    let binary = binary.with_context(|| format!("there is no test target {}", suite.target))?;
    let word = |name: &str| quoted(name.as_ref());
    let words: Vec<String> = match extent {
        Extent::Named(filter) => vec![word(filter)],
        Extent::Chosen => suite.tests.iter().map(|name| word(name)).collect(),
        Extent::All => {
            for (name, reason) in suite.unfit {
                println!("not on another kernel: {name}: {reason}");
            }
            let skips = suite.unfit.iter().map(|(name, _)| format!("--skip {}", word(name)));
            skips.collect()
        }
    };
    let command = format!(
        "timeout --kill-after=5 {} {} --color=never --test-threads={} {}",
        limit(suite, extent).as_secs(),
        quoted(&binary.path),
        suite.threads,
        words.join(" ")
    );
    Ok(between_marks(
        suite.name,
        &format!("cd {}\n{command}", quoted(&binary.directory)),
    ))
}

/// What the guest's shell runs to ask the kernel: this program, there.
fn asking() -> Result<String> {
    let target = test::target_directory()?;
    let object = target.join("guest/lb.o");
    if let Some(directory) = object.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::write(&object, ebpf::object()?).with_context(|| object.display().to_string())?;
    // Not the file that runs here: the build may have put another in its place.
    let command = format!(
        "{} probe --raw {}",
        quoted(&target.join("debug/xtask")),
        quoted(&object)
    );
    Ok(between_marks(PROBE, &command))
}

/// Between two lines that [`Record`] understands.
fn between_marks(name: &str, command: &str) -> String {
    // What is cut short may end without an end of line.
    format!("echo '{BEGINS}{name}'\n{command}\nprintf '\\n{ENDED}{name} %s\\n' $?\n")
}

/// A word of a shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
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
