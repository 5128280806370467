//! Takes the datapath away: links, programs, maps, directories. Goes on after an error and reports all at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::attach;
use super::bpffs;
use super::layout;

/// One thing that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {subject}: {source}")]
pub struct RemoveError {
    /// `detach`, `remove` or `unmount`.
    pub operation: &'static str,
    /// What.
    pub subject: String,
    /// What the kernel said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What was removed, and what could not be.
#[derive(Debug, Default)]
pub struct Removed {
    /// Pins of links: programs detached.
    pub links: usize,
    /// Pins of programs.
    pub programs: usize,
    /// Pins of maps.
    pub maps: usize,
    /// Failures.
    pub errors: Vec<RemoveError>,
}

/// Removes the pins of this version and of others below `bpffs`, and `bpffs` itself once it is empty. `interfaces` are those of this
/// network namespace: on kernels without tcx the filters are on them. Nothing there is no error.
pub fn remove(bpffs: &Path, interfaces: &[String]) -> Removed {
    let mut removed = Removed::default();
    for interface in interfaces {
        for error in attach::detach_filters(interface) {
            removed.errors.push(RemoveError {
                operation: "detach",
                subject: interface.clone(),
                source: error.into(),
            });
        }
    }
    let others = layout::others(bpffs).into_iter().map(|(_, directory)| directory);
    for directory in std::iter::once(layout::versioned(bpffs)).chain(others) {
        remove_version(&directory, &mut removed);
    }
    // Other agents may still be in there.
    let in_use = fs::read_dir(bpffs).is_ok_and(|mut entries| entries.next().is_some());
    if !in_use && !is_root_of_mount(bpffs) {
        directory_gone(bpffs, &mut removed.errors);
    }
    removed
}

fn remove_version(directory: &Path, removed: &mut Removed) {
    // Requests before replies before what decides: the reverse of attaching, so that nothing is half handled for long.
    removed.links += clear(&layout::links(directory), attach::remove_link, &mut removed.errors);
    removed.programs += clear(&layout::programs(directory), unlink, &mut removed.errors);
    removed.maps += clear(directory, unlink, &mut removed.errors);
    for empty in [
        layout::links(directory),
        layout::programs(directory),
        directory.to_owned(),
    ] {
        directory_gone(&empty, &mut removed.errors);
    }
}

/// Unmounts a BPF file system that the agent itself mounted.
///
/// # Errors
/// What the kernel said.
pub fn unmount(mount_point: &Path) -> Result<(), RemoveError> {
    bpffs::unmount(mount_point).map_err(|source| RemoveError {
        operation: "unmount",
        subject: mount_point.display().to_string(),
        source: source.into(),
    })
}

fn unlink(pin: &Path) -> io::Result<()> {
    fs::remove_file(pin)
}

fn clear(directory: &Path, remove: fn(&Path) -> io::Result<()>, errors: &mut Vec<RemoveError>) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut count = 0;
    for path in entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| !p.is_dir())
        .collect::<Vec<PathBuf>>()
    {
        match remove(&path) {
            Ok(()) => count += 1,
            Err(source) => errors.push(failure(&path, source)),
        }
    }
    count
}

fn directory_gone(directory: &Path, errors: &mut Vec<RemoveError>) {
    match fs::remove_dir(directory) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => errors.push(failure(directory, source)),
    }
}

fn failure(path: &Path, source: io::Error) -> RemoveError {
    RemoveError {
        operation: "remove",
        subject: path.display().to_string(),
        source: source.into(),
    }
}

fn is_root_of_mount(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    match directory.parent() {
        Some(parent) => device(directory) != device(parent),
        None => true,
    }
}
