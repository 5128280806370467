//! What is to be done about what is missing.

use std::env;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::process::Command;

use crate::process::display;
use crate::toolchain::{Installed, LINKER_VERSION, Missing, choose, linker_root};

/// LLVM versions that [`LINKER_VERSION`] can be built with.
pub(super) const LINKER_LLVMS: &[u32] = &[21, 22, 23];

/// What decides about the plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) installed: Installed,
    /// Packages of [`PROGRAMS`], and if wanted those of the guest, that are not there.
    pub(super) missing_programs: Vec<&'static str>,
    /// Compiler and sources that apt can give, and the LLVM they come with if known.
    pub(super) apt_compiler: Option<([&'static str; 2], Option<u32>)>,
    /// LLVM versions of which apt can give the development files.
    pub(super) apt_llvms: Vec<u32>,
    /// LLVM versions whose development files are there, and where.
    pub(super) llvms: Vec<(u32, PathBuf)>,
    pub(super) rustup: bool,
    pub(super) apt: bool,
    /// `LB_EBPF_OBJECT` is set: no toolchain is needed.
    pub(super) ready_object: bool,
    /// Package of the clippy that belongs to the chosen compiler, if it is wanted and not there.
    pub(super) missing_linter: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Apt(Vec<String>),
    RustSource,
    Linker { llvm: u32, prefix: PathBuf },
}

impl Step {
    pub(super) fn commands(&self) -> Vec<Command> {
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

pub(super) fn by_sudo(step: &Step) -> String {
    let commands: Vec<String> = step
        .commands()
        .iter()
        .map(|command| format!("sudo {}", display(command)))
        .collect();
    commands.join(" && ")
}

/// What to do, in order; nothing if everything is there.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Step>, Missing> {
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

pub(super) fn llvm_packages(llvm: u32) -> [String; 2] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::{Compiler, Linker};

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
