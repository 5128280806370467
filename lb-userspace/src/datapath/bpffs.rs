//! The BPF file system that holds the pins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where distributions mount it.
const STANDARD: &str = "/sys/fs/bpf";

/// The pins cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// Not on a BPF file system, and mounting one failed.
    #[error(
        "{} is not on a BPF file system, and one cannot be mounted there: {source}; mend it with: mount -t bpf bpf {}",
        .directory.display(), .mount_point.display()
    )]
    Mount {
        /// The configured directory.
        directory: PathBuf,
        /// Where one was to be mounted.
        mount_point: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory cannot be made.
    #[error("cannot make {}: {source}", .directory.display())]
    Directory {
        /// It.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes `directory` a directory on a BPF file system, mounting one if need be. Returns the mount point then.
///
/// # Errors
/// If the directory cannot be made, or is not on a BPF file system and none can be mounted.
pub(super) fn prepare(directory: &Path) -> Result<Option<PathBuf>, BpffsError> {
    let mut mounted = None;
    if !inside(directory) {
        let mount_point = mount_point(directory);
        make(&mount_point)?;
        mount(
            Some("bpf"),
            &mount_point,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
        .map_err(|e| BpffsError::Mount {
            directory: directory.to_owned(),
            mount_point: mount_point.clone(),
            source: e.into(),
        })?;
        mounted = Some(mount_point);
    }
    make(directory)?;
    Ok(mounted)
}

/// Unmounts a file system that [`prepare`] mounted. None mounted is no error.
///
/// # Errors
/// What the kernel said.
pub(super) fn unmount(mount_point: &Path) -> io::Result<()> {
    match umount2(mount_point, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether the nearest directory that exists is on a BPF file system.
fn inside(directory: &Path) -> bool {
    directory
        .ancestors()
        .find_map(|d| statfs(d).ok())
        .is_some_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// The standard place if `directory` is below it, else the directory itself.
fn mount_point(directory: &Path) -> PathBuf {
    if directory.starts_with(STANDARD) {
        STANDARD.into()
    } else {
        directory.to_owned()
    }
}

fn make(directory: &Path) -> Result<(), BpffsError> {
    fs::create_dir_all(directory).map_err(|source| BpffsError::Directory {
        directory: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_at_the_standard_place_or_at_the_directory() {
        assert_eq!(mount_point(Path::new("/sys/fs/bpf/lb")), Path::new("/sys/fs/bpf"));
        assert_eq!(mount_point(Path::new("/run/lb/bpf")), Path::new("/run/lb/bpf"));
    }

    #[test]
    fn ordinary_directories_are_not_inside() {
        assert!(!inside(Path::new("/proc/self")));
        assert!(!inside(&std::env::temp_dir().join("no/such/directory")));
    }
}
