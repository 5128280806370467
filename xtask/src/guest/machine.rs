//! The guest: a machine of qemu's with a kernel of ours and directories of the host's.
//!
//! It is emulated (TCG), because virtualisation is not to be had inside most machines that are virtual themselves.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::kernel::{BALANCERS, Kernel, MODULES};
use crate::process::follow;
use crate::setup::find_program;

/// Memory, of which qemu takes what is used.
const MEMORY: &str = "4096";
/// How long it may take from qemu's start until the tests begin; usually less than 10 s, where instructions are counted 30 s.
const BOOT: Duration = Duration::from_secs(300);
/// What `init.sh` says when everything has run.
const DONE: &str = "guest: done";
/// Lines of the kernel's log that are printed when something goes wrong.
const SHOWN: usize = 30;

/// Accounts that programs may ask for.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// A directory of the host that the guest has at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) path: PathBuf,
    /// Whether the guest may write there.
    pub(super) writable: bool,
}

/// What the guest's clock follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// The host's, for tests.
    Time,
    /// The instructions that the guest has run: each is a nanosecond there, however busy the host is. One CPU.
    Instructions,
}

/// What one run needs.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) clock: Clock,
    /// Those above others first.
    pub(super) shares: &'a [Share],
    /// What a shell in the guest runs.
    pub(super) script: String,
    /// Directory for files of this run, which is removed at its end.
    pub(super) scratch: PathBuf,
}

impl Machine<'_> {
    /// Boots it, hands each line that the script writes to `each`, and waits until the machine is off. `each` may say how
    /// long it can take from now to the next such word.
    ///
    /// # Errors
    /// qemu does not start, or the machine does not come to its end in time.
    pub(super) fn run(&self, mut each: impl FnMut(&str) -> Option<Duration>) -> Result<()> {
        fs::create_dir_all(&self.scratch).with_context(|| self.scratch.display().to_string())?;
        let scratch = Scratch(&self.scratch);
        let archive = scratch.0.join("initramfs");
        fs::write(&archive, self.archive()?).with_context(|| archive.display().to_string())?;
        let log = scratch.0.join("kernel.log");
        let mut done = false;
        let ended = follow(&mut self.command(&archive, &log), BOOT, |line| {
            done |= line == DONE;
            each(line)
        });
        if ended.is_err() || !done {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "the guest's kernel at last said:\n{}",
                lines[lines.len().saturating_sub(SHOWN)..].join("\n")
            );
        }
        ended?;
        ensure!(done, "the guest went down before its tests had ended");
        Ok(())
    }

    fn command(&self, archive: &Path, log: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-m", MEMORY]);
        match self.clock {
            Clock::Time => command.args(["-accel", "tcg,thread=multi", "-smp", "2"]),
            Clock::Instructions => {
                // While it is idle, its clock follows the host's: it must not run ahead of the host's disk.
                command.args([
                    "-accel",
                    "tcg,thread=single",
                    "-smp",
                    "1",
                    "-icount",
                    "shift=0,sleep=on",
                ])
            }
        };
        command.arg("-kernel").arg(self.kernel.image());
        command.arg("-initrd").arg(archive);
        // On a busy host the emulated timer is late, and the kernel would take it for broken.
        let mut words = "console=ttyS0 panic=-1 no_timer_check".to_owned();
        if self.clock == Clock::Instructions {
            // Clearing a page that a packet is copied to would cost more than all that is done with the packet.
            words += " init_on_alloc=0";
        }
        command.args(["-append", &words]);
        // The kernel's words apart from the tests', which are counted.
        command.arg("-serial").arg(joined(&["file:".as_ref(), log]));
        command.args(["-serial", "stdio"]);
        for (index, share) in self.shares.iter().enumerate() {
            let access = if share.writable { "" } else { ",readonly=on" };
            let options = format!(",mount_tag=share{index},security_model=none,multidevs=remap{access}");
            let path = escaped(&share.path);
            let option = joined(&["local,path=".as_ref(), path.as_ref(), options.as_ref()]);
            command.arg("-virtfs").arg(option);
        }
        command
    }

    /// Those that are loaded, in this order.
    fn modules(&self) -> impl Iterator<Item = &'static str> {
        let more = match self.clock {
            Clock::Time => &[],
            Clock::Instructions => BALANCERS,
        };
        MODULES.iter().chain(more).copied()
    }

    /// Everything that is there before the first file system is mounted.
    fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for name in ["bin", "etc", "modules"] {
            archive.directory(name);
        }
        let busybox = find_program("busybox").context("busybox is not installed")?;
        archive.file("bin/busybox", &read(&busybox)?);
        for name in self.modules() {
            archive.file(&format!("modules/{name}.ko"), &read(&self.kernel.module(name))?);
        }
        for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("hosts", HOSTS)] {
            archive.file(&format!("etc/{name}"), text.as_bytes());
        }
        // Where libraries are; without it only the usual places are searched.
        if let Ok(cache) = fs::read("/etc/ld.so.cache") {
            archive.file("etc/ld.so.cache", &cache);
        }
        let order: String = self.modules().map(|name| format!("{name}\n")).collect();
        archive.file("order", order.as_bytes());
        let shares: String = self.shares.iter().enumerate().map(line).collect();
        archive.file("shares", shares.as_bytes());
        archive.file("suites", self.script.as_bytes());
        archive.file("init", include_bytes!("init.sh"));
        Ok(archive.finish())
    }
}

/// As `init.sh` reads it.
fn line((index, share): (usize, &Share)) -> String {
    let access = if share.writable { "rw" } else { "ro" };
    format!("share{index} {access} {}\n", share.path.display())
}

/// A path inside a list of options of qemu's.
fn escaped(path: &Path) -> PathBuf {
    path.to_string_lossy().replace(',', ",,").into()
}

fn joined(parts: &[&Path]) -> OsString {
    parts.iter().map(|part| part.as_os_str()).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// A directory that goes with it.
struct Scratch<'a>(&'a Path);

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_to_qemu_and_to_the_guest() {
        let machine = Machine {
            kernel: &Kernel::at("/cache/linux"),
            clock: Clock::Time,
            shares: &[
                Share {
                    path: "/usr".into(),
                    writable: false,
                },
                Share {
                    path: "/a,b c".into(),
                    writable: true,
                },
            ],
            script: String::new(),
            scratch: "/scratch".into(),
        };
        let command = machine.command("archive".as_ref(), "log".as_ref());
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let expected = [
            "local,path=/usr,mount_tag=share0,security_model=none,multidevs=remap,readonly=on",
            "local,path=/a,,b c,mount_tag=share1,security_model=none,multidevs=remap",
        ];
        for option in expected {
            assert!(words.iter().any(|word| word == option), "{words:?}");
        }
        let lines: Vec<String> = machine.shares.iter().enumerate().map(line).collect();
        assert_eq!(lines, ["share0 ro /usr\n", "share1 rw /a,b c\n"]);
    }
}
