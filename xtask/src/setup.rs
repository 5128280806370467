//! `cargo xtask setup`: installs what the build, the demo and the tests need and the machine has not.
//!
//! [`plan`] is pure; what it plans is printed before it is done, and a second run plans nothing.

use std::env;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::dist::ensure_static;
use crate::process::{ask, display, run as run_command};
use crate::services::NoServices;
use crate::toolchain::{
    Compiler, Installed, LINKER_VERSION, Missing, RUSTC_MINIMUM, choose, linker_root, minor_version, probe,
};

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
/// LLVM versions that [`LINKER_VERSION`] can be built with.
const LINKER_LLVMS: &[u32] = &[21, 22, 23];

/// What is wanted beside the build, the demo and the tests on this kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// What only `cargo xtask ci` needs.
    pub(crate) lint: bool,
    /// What a guest with another kernel needs.
    pub(crate) guest: bool,
    /// What libFuzzer is built with.
    pub(crate) fuzz: bool,
}

impl Wanted {
    pub(crate) const GUEST: Self = Self {
        lint: false,
        guest: true,
        fuzz: false,
    };
    pub(crate) const FUZZ: Self = Self {
        lint: false,
        guest: false,
        fuzz: true,
    };
    /// All that `cargo xtask ci` needs.
    pub(crate) const CI: Self = Self {
        lint: true,
        guest: true,
        fuzz: false,
    };
}

/// What decides about the plan.
#[derive(Clone, Debug, Default)]
struct Facts {
    installed: Installed,
    /// Packages of [`PROGRAMS`], and if wanted those of the guest, that are not there.
    missing_programs: Vec<&'static str>,
    /// Compiler and sources that apt can give, and the LLVM they come with if known.
    apt_compiler: Option<([&'static str; 2], Option<u32>)>,
    /// LLVM versions of which apt can give the development files.
    apt_llvms: Vec<u32>,
    /// LLVM versions whose development files are there, and where.
    llvms: Vec<(u32, PathBuf)>,
    rustup: bool,
    apt: bool,
    /// `LB_EBPF_OBJECT` is set: no toolchain is needed.
    ready_object: bool,
    /// Package of the clippy that belongs to the chosen compiler, if it is wanted and not there.
    missing_linter: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Apt(Vec<String>),
    RustSource,
    Linker { llvm: u32, prefix: PathBuf },
}

impl Step {
    fn commands(&self) -> Vec<Command> {
        match self {
            Self::Apt(packages) => {
                let mut update = Command::new("apt-get");
                update.args(["update", "--quiet"]);
                let mut install = Command::new("apt-get");
                install.env("DEBIAN_FRONTEND", "noninteractive");
                install
                    .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                    .args(packages);
                vec![update, install]
            }
            Self::RustSource => {
                let mut command = Command::new("rustup");
                command.args(["component", "add", "rust-src"]);
                vec![command]
            }
            Self::Linker { llvm, prefix } => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                let mut path = OsString::from(prefix.join("bin"));
                path.push(":");
                path.push(env::var_os("PATH").unwrap_or_default());
                command
                    .env("PATH", path)
                    .env("LIBRARY_PATH", prefix.join("lib"))
                    .env("LLVM_PREFIX", prefix);
                command.args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION]);
                command.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]);
                command.arg(linker_root(*llvm));
                vec![command]
            }
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let commands: Vec<String> = self.commands().iter().map(display).collect();
        f.write_str(&commands.join(" && "))
    }
}

/// What the build, the demo and the tests need, and what else is wanted.
///
/// # Errors
/// Something can neither be found nor installed; the message holds the mend.
pub(crate) fn run(wanted: Wanted) -> Result<()> {
    // What comes with a package may be known only when it is there: a second look finishes the plan.
    for _ in 0..3 {
        let facts = look(wanted);
        let steps = plan(&facts)?;
        if steps.is_empty() {
            if facts.ready_object {
                println!("setup: nothing to do; LB_EBPF_OBJECT gives the eBPF object");
                return Ok(());
            }
            let toolchain = choose(&facts.installed)?;
            println!("setup: nothing to do; the eBPF object is built with");
            println!("  {}\n  {}", toolchain.compiler, toolchain.linker);
            return Ok(());
        }
        println!("setup: will run");
        for step in &steps {
            println!("  {step}");
        }
        for step in &steps {
            if matches!(step, Step::Apt(_)) && !geteuid().is_root() {
                bail!(
                    "packages are missing, and installing them needs root; run this, then `cargo xtask setup` again:\n  {}",
                    by_sudo(step)
                );
            }
            // docker.io would start a dockerd for the whole machine.
            let _quiet = matches!(step, Step::Apt(_)).then(NoServices::new).transpose()?;
            step.commands().iter_mut().try_for_each(run_command).context("setup")?;
        }
    }
    choose(&probe())?;
    Ok(())
}

/// As [`run`], but quiet when there is nothing to do, and content without the packages that only tests need
/// when they cannot be installed.
pub(crate) fn ensure(wanted: Wanted) -> Result<()> {
    let facts = look(wanted);
    let steps = plan(&facts)?;
    let only_programs = facts.ready_object || choose(&facts.installed).is_ok();
    match steps.first() {
        None => Ok(()),
        Some(step @ Step::Apt(_)) if only_programs && !geteuid().is_root() => {
            println!(
                "note: without these packages some tests will be skipped: {}",
                by_sudo(step)
            );
            Ok(())
        }
        Some(_) => run(wanted),
    }
}

/// Installs the packages of those programs that are not there.
///
/// # Errors
/// They cannot be installed; the message holds the mend.
pub(crate) fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(name, _)| find_program(name).is_none());
    let packages: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let step = Step::Apt(packages);
    if !geteuid().is_root() {
        bail!(
            "packages are missing, and installing them needs root; run this first:\n  {}",
            by_sudo(&step)
        );
    }
    println!("setup: will run\n  {step}");
    let _quiet = NoServices::new()?;
    step.commands().iter_mut().try_for_each(run_command).context("setup")
}

fn by_sudo(step: &Step) -> String {
    let commands: Vec<String> = step
        .commands()
        .iter()
        .map(|command| format!("sudo {}", display(command)))
        .collect();
    commands.join(" && ")
}

/// What to do, in order; nothing if everything is there.
fn plan(facts: &Facts) -> Result<Vec<Step>, Missing> {
    let mut packages: Vec<String> = Vec::new();
    if facts.apt {
        packages.extend(facts.missing_programs.iter().map(|&package| package.to_owned()));
    }
    let mut rest = Vec::new();
    packages.extend(facts.missing_linter.clone());
    match choose(&facts.installed) {
        _ if facts.ready_object => {}
        Ok(_) => {}
        Err(missing) => {
            // `None`: the compiler that will be there then is not known yet.
            let llvm = match &missing {
                Missing::Linker(compiler, _) => Some(compiler.llvm),
                Missing::Compiler(installed) => {
                    if let Some((names, llvm)) = facts.apt_compiler {
                        packages.extend(names.map(str::to_owned));
                        llvm
                    } else if facts.rustup && installed.compilers.first().is_some_and(|c| c.new_enough()) {
                        rest.push(Step::RustSource);
                        installed.compilers.first().map(|compiler| compiler.llvm)
                    } else {
                        return Err(missing);
                    }
                }
            };
            if let Some(llvm) = llvm
                && !facts.installed.linkers.iter().any(|linker| linker.reads(llvm))
            {
                let (llvm, prefix) = linker_llvm(facts, llvm, &mut packages).ok_or(missing)?;
                rest.push(Step::Linker { llvm, prefix });
            }
        }
    }
    let first = (!packages.is_empty()).then_some(Step::Apt(packages));
    Ok(first.into_iter().chain(rest).collect())
}

/// The LLVM to build the linker with: one that is there, else one that apt has; never older than the compiler's.
fn linker_llvm(facts: &Facts, compiler: u32, packages: &mut Vec<String>) -> Option<(u32, PathBuf)> {
    let mut usable = LINKER_LLVMS.iter().copied().filter(|&llvm| llvm >= compiler);
    if let Some(found) = usable
        .clone()
        .find_map(|llvm| facts.llvms.iter().find(|(there, _)| *there == llvm))
    {
        return Some(found.clone());
    }
    let llvm = usable.find(|llvm| facts.apt_llvms.contains(llvm))?;
    packages.extend(llvm_packages(llvm));
    Some((llvm, format!("/usr/lib/llvm-{llvm}").into()))
}

fn llvm_packages(llvm: u32) -> [String; 2] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

fn look(wanted: Wanted) -> Facts {
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
        if facts.apt && geteuid().is_root() && candidate("llvm-dev").is_none() {
            println!("setup: apt knows no packages yet; apt-get update");
            // If it fails, the plan says what cannot be had.
            let _ = run_command(Command::new("apt-get").args(["update", "--quiet"]));
        }
        facts.apt_compiler = if facts.apt { apt_compiler() } else { None };
        facts.apt_llvms = LINKER_LLVMS
            .iter()
            .copied()
            .filter(|&llvm| facts.apt && apt_has_llvm(llvm))
            .collect();
        facts.llvms = LINKER_LLVMS
            .iter()
            .filter_map(|&llvm| Some((llvm, llvm_prefix(llvm, facts.apt)?)))
            .collect();
    }
    Facts { installed, ..facts }
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
    use crate::toolchain::Linker;

    fn compiler(release: &str, llvm: u32, sources: bool) -> Compiler {
        Compiler {
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            release: release.into(),
            llvm,
            sysroot: "/sysroot".into(),
            sources,
        }
    }

    fn fresh_debian() -> Facts {
        Facts {
            installed: Installed {
                compilers: vec![compiler("1.95.0", 22, false)],
                linkers: vec![],
            },
            missing_programs: vec!["ethtool"],
            apt_compiler: Some((["rustc-web", "rust-web-src"], Some(22))),
            apt_llvms: vec![22],
            rustup: true,
            apt: true,
            ..Facts::default()
        }
    }

    #[test]
    fn a_fresh_debian_gets_everything_in_one_go() {
        let packages = ["ethtool", "rustc-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev"].map(str::to_owned);
        let linker = Step::Linker {
            llvm: 22,
            prefix: "/usr/lib/llvm-22".into(),
        };
        assert_eq!(plan(&fresh_debian()).unwrap(), [Step::Apt(packages.to_vec()), linker]);
    }

    #[test]
    fn a_complete_machine_gets_nothing() {
        let facts = Facts {
            installed: Installed {
                compilers: vec![compiler("1.96.0", 22, true)],
                linkers: vec![Linker {
                    path: "bpf-linker".into(),
                    llvm: Some(22),
                }],
            },
            missing_programs: vec![],
            ..fresh_debian()
        };
        assert_eq!(plan(&facts).unwrap(), []);
    }

    #[test]
    fn without_apt_rustup_gives_the_sources_and_a_local_llvm_the_linker() {
        let facts = Facts {
            apt: false,
            apt_compiler: None,
            apt_llvms: vec![],
            llvms: vec![(21, "/old".into()), (23, "/new".into())],
            ..fresh_debian()
        };
        let linker = Step::Linker {
            llvm: 23,
            prefix: "/new".into(),
        };
        assert_eq!(plan(&facts).unwrap(), [Step::RustSource, linker]);
    }

    #[test]
    fn an_llvm_older_than_the_compilers_is_not_used() {
        let facts = Facts {
            apt: false,
            apt_compiler: None,
            apt_llvms: vec![],
            llvms: vec![(21, "/old".into())],
            ..fresh_debian()
        };
        assert!(plan(&facts).is_err());
    }

    #[test]
    fn without_apt_and_rustup_the_message_holds_the_mend() {
        let facts = Facts {
            apt: false,
            apt_compiler: None,
            rustup: false,
            ..fresh_debian()
        };
        let message = plan(&facts).unwrap_err().to_string();
        assert!(message.contains("rustup component add rust-src"), "{message}");
    }

    #[test]
    fn the_llvm_that_comes_with_the_compiler_is_read_from_a_simulation() {
        let text =
            "Reading package lists...\nInst libllvm22 (1:22.1.8-1 Debian [amd64])\nInst rustc-web (1.96.0 Debian)\n";
        assert_eq!(simulated_llvm(text), Some(22));
        assert_eq!(simulated_llvm("Inst rustc-web (1.96.0 Debian)\n"), None);
    }

    #[test]
    fn the_linker_is_built_with_its_own_llvm_and_not_with_another_on_the_path() {
        let step = Step::Linker {
            llvm: 22,
            prefix: "/usr/lib/llvm-22".into(),
        };
        let command = &step.commands()[0];
        let path = command
            .get_envs()
            .find(|(name, _)| *name == "PATH")
            .and_then(|(_, value)| value)
            .unwrap();
        assert!(path.to_string_lossy().starts_with("/usr/lib/llvm-22/bin:"));
        assert!(step.to_string().contains("--features llvm-22"), "{step}");
    }
}
