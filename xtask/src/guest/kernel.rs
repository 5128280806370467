//! Debian's kernel, as its package has it: the image and the few modules that guests need.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{ask, run};

/// The package that depends on Debian's current kernel.
const META: &str = "linux-image-amd64";

/// Modules for the tests, each after those that it needs; the package has no list of what needs what until it is installed.
pub(super) const MODULES: &[&str] = &[
    // the host's directories
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    // the tests' interfaces
    "veth",
    "llc",
    "stp",
    "bridge",
    "garp",
    "mrp",
    "8021q",
    "dummy",
    // programs on a clsact qdisc
    "sch_ingress",
    "cls_bpf",
    "crc32c_generic",
    "libcrc32c",
];

/// Further modules, for the balancers that are measured in the guest; each after those that it needs.
pub(super) const BALANCERS: &[&str] = &[
    // an interface whose frames come from a program
    "tun",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_nat",
    "nfnetlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_ct",
    "nft_numgen",
    // rules of iptables, which are kept as nftables'
    "x_tables",
    "nft_compat",
    "xt_tcpudp",
    "xt_nat",
    "xt_mark",
    "xt_statistic",
    "xt_addrtype",
    "xt_conntrack",
    "xt_MASQUERADE",
    "ip_vs",
    "ip_vs_rr",
    "xt_ipvs",
];

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    /// The newest kernel of `release`, such as `6.1`, that apt knows; kept in `cache`.
    ///
    /// # Errors
    /// apt has another kernel, or cannot be asked or reached and `cache` has none.
    pub(super) fn get(release: &str, cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| cache.display().to_string())?;
        let package = match package(release) {
            Ok(package) => package,
            Err(error) => {
                let Some(kernel) = kept(release, cache) else {
                    return Err(error);
                };
                println!("note: {error:#}; taking {}", kernel.directory.display());
                return Ok(kernel);
            }
        };
        let directory = cache.join(&package);
        if directory.is_dir() && !complete(&directory) {
            // Of an earlier version of this program, which needed less.
            fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        if !directory.is_dir() {
            println!("guest: downloads {package} (70 MB) once, to {}", directory.display());
            let part = cache.join(format!("{package}.part-{}", std::process::id()));
            fs::create_dir_all(&part)?;
            let result = download(&package, &part).and_then(|file| unpack(&file, &part));
            if result.is_ok() && fs::rename(&part, &directory).is_err() {
                ensure!(directory.is_dir(), "{} cannot be made", directory.display());
            }
            // What is left is of no use, and the next attempt makes it anew.
            let _ = fs::remove_dir_all(&part);
            result.with_context(|| format!("package {package}"))?;
        }
        Ok(Self { directory })
    }

    #[cfg(test)]
    pub(super) fn at(directory: &str) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The compressed image.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// One of [`modules`].
    pub(super) fn module(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.ko"))
    }
}

/// A kernel that an earlier run has downloaded.
fn kept(release: &str, cache: &Path) -> Option<Kernel> {
    let prefix = format!("linux-image-{release}.");
    let mut found: Vec<PathBuf> = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && !name.contains(".part-") && complete(path)
    });
    found.sort();
    found.pop().map(|directory| Kernel { directory })
}

/// All that is taken out of the package.
fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.iter().chain(BALANCERS).copied()
}

/// Those of [`modules`] that a directory lacks.
fn missing(directory: &Path) -> Vec<&'static str> {
    modules()
        .filter(|name| !directory.join(format!("{name}.ko")).is_file())
        .collect()
}

fn complete(directory: &Path) -> bool {
    missing(directory).is_empty()
}

/// Name and version of the package with Debian's kernel, as `apt-get download` takes them.
fn package(release: &str) -> Result<String> {
    let asked = || depends(&ask("apt-cache", &["depends", META])?);
    let name = match asked() {
        Some(name) => name,
        None => {
            println!("guest: apt knows no kernel; apt-get update");
            run(Command::new("apt-get").args(["update", "--quiet"])).context("apt's lists of packages")?;
            asked().with_context(|| format!("apt knows no package {META}: is this Debian?"))?
        }
    };
    ensure!(
        name.starts_with(&format!("linux-image-{release}.")),
        "apt's kernel is {name}, not {release}: this needs Debian 12, or its main archive among apt's sources"
    );
    let policy = ask("apt-cache", &["policy", &name]).unwrap_or_default();
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    let version = version.filter(|version| *version != "(none)");
    let version = version.with_context(|| format!("apt has no version of {name}"))?;
    Ok(format!("{name}={version}"))
}

/// What `apt-cache depends linux-image-amd64` says.
fn depends(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// apt checks what it downloads against the archive's signature.
fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let fetch = || {
        let mut command = Command::new("apt-get");
        // As root, apt would download as a user who may not write here, and say so at length.
        command.args(["download", "--quiet", "-o", "APT::Sandbox::User=root", package]);
        run(command.current_dir(directory))
    };
    if fetch().is_err() {
        println!("guest: apt's lists may be old; apt-get update");
        run(Command::new("apt-get").args(["update", "--quiet"])).context("apt's lists of packages")?;
        fetch().context("download")?;
    }
    let mut files = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")
}

/// Takes the image and [`modules`] out of the package, and removes the package.
fn unpack(package: &Path, directory: &Path) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb")?;
    let mut pipe = child.stdout.take().context("dpkg-deb writes nowhere")?;
    let taken = extract(&mut pipe, directory);
    // dpkg-deb would wait for us for ever.
    drop(pipe);
    let status = child.wait().context("dpkg-deb")?;
    taken?;
    ensure!(status.success(), "dpkg-deb --fsys-tarfile ended with {status}");
    let missing = missing(directory);
    if !missing.is_empty() {
        bail!("it lacks the modules {}", missing.join(", "));
    }
    ensure!(directory.join("vmlinuz").is_file(), "it has no kernel");
    fs::remove_file(package)?;
    Ok(())
}

fn extract(tape: &mut impl Read, directory: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(&mut *tape);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if let Some(name) = wanted(&path) {
            let target = directory.join(name);
            let mut file = File::create(&target).with_context(|| target.display().to_string())?;
            std::io::copy(&mut entry, &mut file).with_context(|| target.display().to_string())?;
        }
    }
    // What pads the archive.
    std::io::copy(tape, &mut std::io::sink())?;
    Ok(())
}

/// The name under which a file of the package is kept, if it is.
fn wanted(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if name.starts_with("vmlinuz-") {
        return Some("vmlinuz".into());
    }
    // Files may be named with either sign, modules are with one.
    let module = name.strip_suffix(".ko")?.replace('-', "_");
    modules().any(|name| name == module).then(|| format!("{module}.ko"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(depends(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(depends("linux-image-amd64\n"), None);
    }

    #[test]
    fn of_the_package_only_the_image_and_the_modules_are_kept() {
        let kept = |path: &str| wanted(Path::new(path));
        assert_eq!(kept("./boot/vmlinuz-6.1.0-56-amd64").as_deref(), Some("vmlinuz"));
        assert_eq!(
            kept("./lib/modules/6/kernel/net/sched/sch-ingress.ko").as_deref(),
            Some("sch_ingress.ko")
        );
        assert_eq!(kept("./lib/modules/6/kernel/net/sched/sch_cake.ko"), None);
        assert_eq!(kept("./boot/config-6.1.0-56-amd64"), None);
    }
}
