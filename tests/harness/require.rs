//! The skip rule: what a test needs, or why it cannot run here. Under `LB_TEST_STRICT=1` a skip is a failure.

use std::path::{Path, PathBuf};

use lb_common::testing::skip::{current_test, skip};

/// How many times slower than a real machine this one is, set where the kernel runs in an emulated guest.
pub const SLOWNESS: &str = "LB_TEST_SLOWNESS";
/// Directory that holds `lb-agent` and `lbctl`, if not the one beside the test's own.
pub const BINARIES: &str = "LB_BIN_DIR";

/// Whether the machine lets this process make namespaces and load programs; prints `SKIP: <reason>` if not.
///
/// # Panics
/// If it does not and `LB_TEST_STRICT=1`.
pub fn datapath() -> bool {
    match datapath_reason() {
        None => true,
        Some(reason) => skip(&reason),
    }
}

/// Whether `program` is installed; prints `SKIP: <reason>` if not.
///
/// # Panics
/// If it is not and `LB_TEST_STRICT=1`.
pub fn program(name: &str) -> bool {
    find_program(name)
        || skip(&format!(
            "needs the program `{name}` (install it, or run `cargo xtask setup`)"
        ))
}

/// How many times as long as on a real machine everything may take here.
///
/// # Panics
/// If [`SLOWNESS`] is no number.
pub fn slowness() -> u32 {
    std::env::var(SLOWNESS).map_or(1, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{SLOWNESS}={text} is no whole number"))
    })
}

/// Programs that a Swarm of ours is made with, and the Debian package of each.
const SWARM_PROGRAMS: [(&str, &str); 9] = [
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker", "docker.io"),
    ("tini", "tini"),
    ("iptables-nft", "iptables"),
    ("iptables-legacy", "iptables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// Whether a Docker Swarm can be started on this machine; prints `SKIP: <reason>` if not.
///
/// # Panics
/// If it cannot and `LB_TEST_STRICT=1`.
pub fn swarm() -> bool {
    match swarm_reason() {
        None => true,
        Some(reason) => skip(&reason),
    }
}

/// Why no Swarm can be started, if none can.
pub fn swarm_reason() -> Option<String> {
    if let Some(reason) = datapath_reason() {
        return Some(reason);
    }
    let missing = SWARM_PROGRAMS.iter().find(|(name, _)| !find_program(name));
    if let Some((name, package)) = missing {
        return Some(format!(
            "needs the program `{name}` (install {package}, or run `cargo xtask setup`)"
        ));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\toverlay")) {
        return Some("needs a kernel with overlay file systems (CONFIG_OVERLAY_FS)".into());
    }
    None
}

/// Why namespaces and programs are out of reach, if they are.
pub fn datapath_reason() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces and BPF (run with sudo)".into());
    }
    if !find_program("ip") {
        return Some("needs the program `ip` (package iproute2)".into());
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\tbpf")) {
        return Some("needs a kernel with BPF (CONFIG_BPF_SYSCALL)".into());
    }
    let capabilities = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    for (bit, name) in [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")] {
        if effective & (1 << bit) == 0 {
            return Some(format!("needs {name} (a container without it cannot run this)"));
        }
    }
    None
}

/// A binary of this workspace that the test runs as its own process.
///
/// # Errors
/// If it has not been built; the message holds the command that does.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os(BINARIES) {
        Some(directory) => Path::new(&directory).join(name),
        None => {
            let own = std::env::current_exe()?;
            let directory = own.ancestors().nth(1).unwrap_or(Path::new("/"));
            let directory = if directory.ends_with("deps") {
                directory.parent().unwrap_or(directory)
            } else {
                directory
            };
            directory.join(name)
        }
    };
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: build it with `cargo build -p lb-userspace -p lb-tests`",
        path.display()
    );
    Ok(path)
}

/// Where files of the calling test go if it fails: `<target>/test-artifacts/<test>`.
pub fn artifacts() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let target = own.ancestors().find(|path| path.join("CACHEDIR.TAG").is_file());
    let target = target.map_or_else(std::env::temp_dir, Path::to_owned);
    target.join("test-artifacts").join(current_test().replace("::", "-"))
}

fn find_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().any(|directory| directory.join(name).is_file())
}
