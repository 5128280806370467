//! What is there, and what can be had.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use super::Wanted;
use super::plan::{Facts, LINKER_LLVMS, llvm_packages};
use crate::dist::ensure_static;
use crate::process::{ask, run as run_command};
use crate::toolchain::{Compiler, RUSTC_MINIMUM, choose, minor_version, probe};

/// Programs that the demo and the tests run, and the package that brings each on Debian.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    // For the tier `swarm`.
    ("dockerd", "docker.io"),
    ("iptables-nft", "iptables"),
    ("tini", "tini"),
];
/// As [`PROGRAMS`], for tests on another kernel.
const GUEST_PROGRAMS: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86")];
/// Its one program is the guest's first, before there are libraries.
const GUEST_SHELL: &str = "busybox-static";
/// As [`PROGRAMS`], for libFuzzer.
const FUZZ_PROGRAMS: &[(&str, &str)] = &[("c++", "g++")];
/// Packages of compiler and sources, the new one first.
const COMPILER_PACKAGES: &[[&str; 2]] = &[["rustc-web", "rust-web-src"], ["rustc", "rust-src"]];

pub(super) fn look(wanted: Wanted) -> Facts {
    let installed = probe();
    let chosen = choose(&installed).ok();
    let mut facts = Facts {
        missing_programs: missing_programs(wanted),
        rustup: find_program("rustup").is_some(),
        apt: find_program("apt-get").is_some(),
        ready_object: env::var_os("LB_EBPF_OBJECT").is_some(),
        ..Facts::default()
    };
    if facts.apt && wanted.lint {
        facts.missing_linter = chosen
            .as_ref()
            .and_then(|toolchain| missing_linter(&toolchain.compiler));
    }
    // Questions to apt take their time, and are not needed where all is there.
    if chosen.is_none() && !facts.ready_object {
        if facts.apt {
            look_in_apt(&mut facts);
            // Lists that were never fetched, or that are old.
            let unknown = facts.apt_compiler.is_none() || facts.apt_llvms.is_empty();
            if unknown && geteuid().is_root() {
                println!("setup: apt knows no packages that fit; apt-get update");
                // If it fails, the plan says what cannot be had.
                let _ = run_command(Command::new("apt-get").args(["update", "--quiet"]));
                look_in_apt(&mut facts);
            }
        }
        facts.llvms = LINKER_LLVMS
            .iter()
            .filter_map(|&llvm| Some((llvm, llvm_prefix(llvm, facts.apt)?)))
            .collect();
    }
    Facts { installed, ..facts }
}

/// What apt can install, as far as its lists say.
fn look_in_apt(facts: &mut Facts) {
    facts.apt_compiler = apt_compiler();
    let known = LINKER_LLVMS.iter().copied().filter(|&llvm| apt_has_llvm(llvm));
    facts.apt_llvms = known.collect();
}

/// Packages of programs that are not there.
fn missing_programs(wanted: Wanted) -> Vec<&'static str> {
    let mut packages = missing(PROGRAMS);
    if wanted.guest {
        packages.extend(missing_for_guest());
    }
    if wanted.fuzz {
        packages.extend(missing(FUZZ_PROGRAMS));
    }
    packages
}

/// Packages that a guest with another kernel needs and that are not there.
pub(crate) fn missing_for_guest() -> Vec<&'static str> {
    let mut packages = missing(GUEST_PROGRAMS);
    packages.extend((!shell_is_static()).then_some(GUEST_SHELL));
    packages
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(name, _)| find_program(name).is_none());
    missing.map(|(_, package)| *package).collect()
}

fn shell_is_static() -> bool {
    let bytes = find_program("busybox").and_then(|path| std::fs::read(path).ok());
    bytes.is_some_and(|bytes| ensure_static(&bytes).is_ok())
}

fn apt_has_llvm(llvm: u32) -> bool {
    llvm_packages(llvm).iter().all(|package| candidate(package).is_some())
}

/// Debian's clippy, where Debian's compiler builds the object.
fn missing_linter(compiler: &Compiler) -> Option<String> {
    if compiler.clippy().exists() {
        return None;
    }
    let owner = ask("dpkg", &["--search", &compiler.rustc.to_string_lossy()])?;
    let suffix = owner.split(':').next()?.strip_prefix("rustc")?;
    Some(format!("rust{suffix}-clippy"))
}

/// A binary on PATH, or where the administrator's programs are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

fn apt_compiler() -> Option<([&'static str; 2], Option<u32>)> {
    let names = COMPILER_PACKAGES.iter().find(|[compiler, sources]| {
        let version = candidate(compiler).and_then(|version| minor_version(&version));
        version.is_some_and(|version| version >= RUSTC_MINIMUM) && candidate(sources).is_some()
    })?;
    let simulated = ask("apt-get", &["install", "--simulate", names[0], names[1]]);
    Some((*names, simulated.and_then(|text| simulated_llvm(&text))))
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Option<String> {
    let policy = ask("apt-cache", &["policy", package])?;
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Major version of the LLVM among the packages that `apt-get install --simulate` lists.
fn simulated_llvm(text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let name = line.strip_prefix("Inst libllvm")?;
        name.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

/// Where an LLVM with its development files is installed.
fn llvm_prefix(llvm: u32, apt: bool) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if apt && debian.exists() {
        let [first, second] = llvm_packages(llvm);
        let states = ask(
            "dpkg-query",
            &["--show", "--showformat=${db:Status-Status}\n", &first, &second],
        )?;
        return (states == "installed\ninstalled\n").then_some(debian);
    }
    let names = [
        format!("llvm-config-{llvm}"),
        format!("/usr/lib64/llvm{llvm}/bin/llvm-config"),
        "llvm-config".into(),
    ];
    names.into_iter().find_map(|name| {
        let version = ask(&name, &["--version"])?;
        let prefix = PathBuf::from(ask(&name, &["--prefix"])?.trim_end());
        let fits = version.split('.').next() == Some(&*llvm.to_string()) && has_headers(&prefix);
        fits.then_some(prefix)
    })
}

fn has_headers(prefix: &Path) -> bool {
    prefix.join("include/llvm-c").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_that_comes_with_the_compiler_is_read_from_a_simulation() {
        let text =
            "Reading package lists...\nInst libllvm22 (1:22.1.8-1 Debian [amd64])\nInst rustc-web (1.96.0 Debian)\n";
        assert_eq!(simulated_llvm(text), Some(22));
        assert_eq!(simulated_llvm("Inst rustc-web (1.96.0 Debian)\n"), None);
    }
}
