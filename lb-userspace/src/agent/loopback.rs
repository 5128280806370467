//! What the kernel must allow on the loopback interface, so that replies to the node's own processes can be put in there: that
//! they come from one of its own addresses, and go to 127.0.0.1. No packet from outside arrives on this interface.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// File in the run directory with the values from before, for [`restore`].
pub(super) const CHANGED: &str = "sysctl-before";

/// Each must be 1. IPv6 needs none.
const NEEDED: [&str; 2] = ["net.ipv4.conf.lo.accept_local", "net.ipv4.conf.lo.route_localnet"];
const ON: &str = "1";

/// Sets what is not set, and remembers in `run` what it was.
///
/// # Errors
/// If the kernel refuses, or the file cannot be written; then nothing is changed.
pub(super) fn prepare(run: &Path) -> Result<()> {
    change(run, read, write)
}

fn change(
    run: &Path,
    read: impl Fn(&str) -> io::Result<String>,
    write: impl Fn(&str, &str) -> io::Result<()>,
) -> Result<()> {
    let file = run.join(CHANGED);
    for name in NEEDED {
        let value = read(name).with_context(|| format!("cannot read {name}"))?;
        if value == ON {
            continue;
        }
        // Before it is changed; and what an earlier agent noted is older, so it counts.
        let mut noted = fs::read_to_string(&file).unwrap_or_default();
        if !noted.lines().any(|line| parse(line).is_some_and(|(n, _)| n == name)) {
            noted.push_str(&format!("{name} = {value}\n"));
            fs::write(&file, noted).with_context(|| format!("cannot write {}", file.display()))?;
        }
        write(name, ON).with_context(|| format!("cannot set {name} = {ON}"))?;
    }
    Ok(())
}

/// Gives the settings their values from before, and says what did not work.
pub(super) fn restore(run: &Path) -> Vec<String> {
    let noted = fs::read_to_string(run.join(CHANGED)).unwrap_or_default();
    let known = noted
        .lines()
        .filter_map(parse)
        .filter(|(name, _)| NEEDED.contains(name));
    known
        // Somebody else's change stays.
        .filter(|(name, _)| read(name).is_ok_and(|value| value == ON))
        .filter_map(|(name, value)| {
            let error = write(name, value).err()?;
            Some(format!("cannot set {name} = {value}: {error}"))
        })
        .collect()
}

/// `name = value`, as sysctl.conf(5) has it.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    Some((name.trim(), value.trim()))
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim().to_owned())
}

fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_oldest_values_are_remembered() {
        let run = tempfile::tempdir().expect("a directory");
        let kernel = RefCell::new(BTreeMap::from(NEEDED.map(|name| (name.to_owned(), "0".to_owned()))));
        let read = |name: &str| Ok(kernel.borrow()[name].clone());
        let write = |name: &str, value: &str| {
            kernel.borrow_mut().insert(name.into(), value.into());
            Ok(())
        };
        change(run.path(), read, write).expect("changed");
        assert!(kernel.borrow().values().all(|value| value == ON));
        // Somebody sets one anew; the agent starts again.
        write(NEEDED[0], "2").expect("set");
        change(run.path(), read, write).expect("changed");
        let noted = fs::read_to_string(run.path().join(CHANGED)).expect("a file");
        let noted: Vec<_> = noted.lines().filter_map(parse).collect();
        assert_eq!(noted, NEEDED.map(|name| (name, "0")));
    }

    #[test]
    fn nothing_is_changed_that_could_not_be_undone() {
        let nowhere = Path::new("/nonexistent/run");
        let refuse = |_: &str, _: &str| panic!("it was not noted");
        let error = change(nowhere, |_| Ok("0".into()), refuse).expect_err("no directory");
        assert!(format!("{error:#}").contains("sysctl-before"), "{error:#}");
    }

    #[test]
    fn what_is_set_already_is_nobodys_change() {
        let run = tempfile::tempdir().expect("a directory");
        let refuse = |_: &str, _: &str| panic!("it is set");
        change(run.path(), |_| Ok(ON.into()), refuse).expect("nothing to do");
        assert!(!run.path().join(CHANGED).exists());
    }
}
