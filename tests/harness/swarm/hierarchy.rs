//! Hierarchies of control groups: one (version 2), or one for each controller (version 1).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Where all hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// One hierarchy, as it is mounted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Below [`ROOT`]; empty if it is mounted there itself.
    name: PathBuf,
    /// `cgroup` or `cgroup2`.
    kind: String,
    /// With which a machine mounts it again.
    options: String,
}

impl Hierarchy {
    /// All of them.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn all() -> Result<Vec<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let all: Vec<_> = mounts.lines().filter_map(Self::parse).collect();
        ensure!(!all.is_empty(), "no control groups are mounted below {ROOT}");
        Ok(all)
    }

    /// From a line of `/proc/self/mounts`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(1);
        let (target, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let name = Path::new(target).strip_prefix(ROOT).ok()?;
        let general = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime"];
        let own = options.split(',').filter(|option| !general.contains(option));
        let options = match kind {
            // Options of version 2 are those of the whole machine.
            "cgroup2" => "rw".to_owned(),
            "cgroup" => {
                let controllers: Vec<_> = own
                    .filter(|option| {
                        !["xattr", "clone_children"].contains(option) && !option.starts_with("release_agent")
                    })
                    .collect();
                let named = controllers.iter().all(|option| option.starts_with("name="));
                format!("{}{}", if named { "none," } else { "" }, controllers.join(","))
            }
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            options,
        })
    }

    /// Makes the group `name` at its root; the directory.
    pub(super) fn create(&self, name: &str) -> Result<PathBuf> {
        let root = Path::new(ROOT).join(&self.name);
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("make the control group {}", path.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // In version 1 a group has none of its own accord, and takes no process until it has.
            if self.kind == "cgroup" && path.join(file).exists() {
                fs::write(path.join(file), fs::read(root.join(file))?)?;
            }
        }
        Ok(path)
    }

    /// The group's `cgroup.procs` as a machine sees it whose root that group is.
    pub(super) fn procs_inside(&self) -> PathBuf {
        let leaf = if self.is_only() { "init" } else { "" };
        Path::new(ROOT).join(&self.name).join(leaf).join("cgroup.procs")
    }

    /// The arguments of `boot.sh` for it.
    pub(super) fn arguments(&self) -> [String; 3] {
        let name = if self.is_only() {
            ".".into()
        } else {
            self.name.to_string_lossy()
        };
        [name.into_owned(), self.kind.clone(), self.options.clone()]
    }

    fn is_only(&self) -> bool {
        self.name.as_os_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_become_what_a_machine_mounts_again() {
        let arguments = |line| Hierarchy::parse(line).map(|hierarchy| hierarchy.arguments());
        let expected = |words: [&str; 3]| Some(words.map(str::to_owned));
        assert_eq!(
            arguments("cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0"),
            expected(["cpu,cpuacct", "cgroup", "cpu,cpuacct"])
        );
        assert_eq!(
            arguments("cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0"),
            expected(["systemd", "cgroup", "none,name=systemd"])
        );
        assert_eq!(
            arguments("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0"),
            expected([".", "cgroup2", "rw"])
        );
        assert_eq!(arguments("tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0"), None);
        assert_eq!(arguments("cgroup2 /mnt/elsewhere cgroup2 rw 0 0"), None);
    }
}
