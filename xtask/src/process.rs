//! Runs other programs, so that an interrupt ends them too, by their id, and only after they had time to clean up.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Process group of the child that runs now; 0: none.
static GROUP: AtomicI32 = AtomicI32::new(0);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C, SIGTERM and SIGHUP end the child with SIGTERM; the second time with SIGKILL.
pub(crate) fn handle_interrupts() -> Result<()> {
    ctrlc::set_handler(|| {
        let again = INTERRUPTED.swap(true, Ordering::SeqCst);
        let group = GROUP.load(Ordering::SeqCst);
        if group != 0 {
            // The child may have ended meanwhile: nothing is left to do then.
            let _ = killpg(
                Pid::from_raw(group),
                if again { Signal::SIGKILL } else { Signal::SIGTERM },
            );
        }
    })
    .context("handler for Ctrl-C")
}

/// Whether somebody wants us to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace());
    command
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, fails, or we are interrupted.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let child = spawn(command)?;
    finish(command, child)
}

/// As [`run`], and returns what it wrote to stdout and stderr, which the user sees all the same.
/// The first value tells whether it succeeded.
pub(crate) fn run_and_read(command: &mut Command) -> Result<(bool, String)> {
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = child
        .stdout
        .take()
        .map(|pipe| thread::spawn(move || copy_lines(pipe, std::io::stdout())));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| thread::spawn(move || copy_lines(pipe, std::io::stderr())));
    let mut text = String::new();
    for reader in [stdout, stderr].into_iter().flatten() {
        text.push_str(&reader.join().unwrap_or_default());
    }
    let result = finish(command, child);
    if interrupted() {
        bail!("interrupted");
    }
    Ok((result.is_ok(), text))
}

/// Runs a command whose stdout is not for the user, and returns that.
///
/// # Errors
/// It cannot be started, fails, or we are interrupted.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let text = child.stdout.take().map(|pipe| copy_lines(pipe, std::io::sink()));
    finish(command, child)?;
    Ok(text.unwrap_or_default())
}

/// Runs a command and hands each line of its stdout to `each` as it comes. When `limit` is over it is killed; `each` may
/// give it a new one, which begins with that line.
///
/// # Errors
/// It cannot be started, fails, takes too long, or we are interrupted.
pub(crate) fn follow(
    command: &mut Command,
    limit: Duration,
    mut each: impl FnMut(&str) -> Option<Duration>,
) -> Result<()> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let (sender, lines) = mpsc::channel();
    let reader = child.stdout.take().map(|pipe| {
        let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
        thread::spawn(move || lines.into_iter().try_for_each(|line| sender.send(line)))
    });
    let mut limit = limit;
    let mut end = Instant::now() + limit;
    let late = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                if let Some(next) = each(line.trim_end_matches('\r')) {
                    limit = next;
                    end = Instant::now() + limit;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if late {
        // Not waited for yet, so the number is still its own.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let result = finish(command, child);
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    if late && !interrupted() {
        bail!("{} was ended after {} s", display(command), limit.as_secs());
    }
    result
}

/// Runs a command silently; its stdout, or `None` if it cannot be started or fails.
pub(crate) fn ask(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn spawn(command: &mut Command) -> Result<Child> {
    if interrupted() {
        bail!("interrupted");
    }
    // A group of its own: the terminal's Ctrl-C reaches us alone, and the child hears of it once.
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    let child = child.with_context(|| format!("cannot start {}", display(command)))?;
    GROUP.store(child.id().cast_signed(), Ordering::SeqCst);
    Ok(child)
}

fn finish(command: &Command, mut child: Child) -> Result<()> {
    let status = child.wait();
    GROUP.store(0, Ordering::SeqCst);
    if interrupted() {
        bail!("interrupted");
    }
    let status = status.with_context(|| format!("cannot wait for {}", display(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", display(command));
    }
    Ok(())
}

fn copy_lines(from: impl Read, mut to: impl Write) -> String {
    let mut reader = BufReader::new(from);
    let (mut text, mut line) = (String::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // Nobody may be listening any more; the count is wanted all the same.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        text.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test's own, apart from what other tests run: there is one group at a time.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_are_followed_as_they_come_and_may_move_the_limit() {
        let mut seen = Vec::new();
        let minute = Duration::from_secs(60);
        let result = follow(&mut shell("echo one; printf 'two\r\n'; exit 3"), minute, |line| {
            seen.push(line.to_owned());
            None
        });
        assert_eq!(seen, ["one", "two"]);
        assert!(result.unwrap_err().to_string().contains("exit status: 3"));

        let start = Instant::now();
        let error = follow(&mut shell("echo short; exec sleep 300"), minute, |_| {
            Some(Duration::ZERO)
        })
        .unwrap_err();
        assert!(error.to_string().contains("was ended after 0 s"), "{error}");
        assert!(start.elapsed() < minute);
    }
}
