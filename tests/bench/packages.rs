//! The programs that the bench compares with; `cargo xtask bench` has installed them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// Where a program is.
///
/// # Errors
/// If it is not installed; the message holds the mend.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut files = directories.map(|directory| directory.join(program));
    files
        .find(|file| file.is_file())
        .with_context(|| format!("the program `{program}` is not there: `cargo xtask bench` installs it"))
}

/// The first line of what a program says about its version.
pub(crate) fn version(program: &str, argument: &str) -> String {
    let Ok(path) = find(program) else {
        return format!("{program}: not installed");
    };
    let output = Command::new(path).arg(argument).stdin(Stdio::null()).output();
    let text = output.map_or_else(
        |_| Vec::new(),
        |output| {
            if output.stdout.is_empty() {
                output.stderr
            } else {
                output.stdout
            }
        },
    );
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}
