//! Finds a compiler and a linker for the eBPF object: what is installed (probed), and which of it to use (pure).
//!
//! Shared with `lb-userspace/build.rs`, so it uses std alone and installs nothing; [`crate::setup`] does that.

// By its path, since `lb-userspace/build.rs` has this file by its path too.
#[path = "toolchain/probe.rs"]
mod probe;

use std::env;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

pub(crate) use self::probe::probe;

/// The version of bpf-linker that is installed when there is none that fits.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// Oldest rustc (major, minor) that compiles this workspace.
pub(crate) const RUSTC_MINIMUM: (u32, u32) = (1, 95);

/// A rustc, and the cargo to run it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// Cargo that belongs to it, or the one that runs us.
    pub(crate) cargo: PathBuf,
    /// As `rustc --version` prints it, such as `1.96.0`.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// Where it keeps its libraries.
    pub(crate) sysroot: PathBuf,
    /// The sources of `core` are there, without which nothing is built for BPF.
    pub(crate) sources: bool,
}

impl Compiler {
    /// New enough and with sources.
    pub(crate) fn fits(&self) -> bool {
        self.sources && self.new_enough()
    }

    /// The clippy that belongs to it, installed or not.
    pub(crate) fn clippy(&self) -> PathBuf {
        self.sysroot.join("bin/cargo-clippy")
    }

    pub(crate) fn new_enough(&self) -> bool {
        minor_version(&self.release).is_some_and(|version| version >= RUSTC_MINIMUM)
    }
}

impl Display for Compiler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {} (LLVM {}) in {}",
            self.release,
            self.llvm,
            self.sysroot.display()
        )
    }
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// Major version of the LLVM in it; `None` if it is linked statically and does not tell.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    /// A linker reads the bitcode of its own LLVM and of older ones.
    pub(crate) fn reads(&self, llvm: u32) -> bool {
        self.llvm.is_none_or(|own| own >= llvm)
    }
}

impl Display for Linker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.llvm {
            Some(llvm) => write!(f, "{} (LLVM {llvm})", self.path.display()),
            None => write!(f, "{} (LLVM inside)", self.path.display()),
        }
    }
}

/// What a machine has to build the object with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    /// In the order of preference.
    pub(crate) compilers: Vec<Compiler>,
    /// In the order of preference.
    pub(crate) linkers: Vec<Linker>,
}

/// What the object is built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// Why there is no [`Toolchain`]; its Display is the whole message, with the mend.
#[derive(Clone, Debug)]
pub(crate) enum Missing {
    /// No compiler has the sources of `core`.
    Compiler(Installed),
    /// A compiler is there, but no linker for its LLVM.
    Linker(Box<Compiler>, Vec<Linker>),
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "the eBPF object cannot be built on this machine yet")?;
        let (major, minor) = RUSTC_MINIMUM;
        match self {
            Self::Compiler(installed) => {
                writeln!(
                    f,
                    "  looked for: a rustc >= {major}.{minor} with the sources of core (rust-src); found"
                )?;
                for compiler in &installed.compilers {
                    let why = if compiler.new_enough() { "no sources" } else { "too old" };
                    writeln!(f, "    {compiler}: {why}")?;
                }
                if installed.compilers.is_empty() {
                    writeln!(f, "    no rustc at all")?;
                }
            }
            Self::Linker(compiler, linkers) => {
                writeln!(f, "  compiler: {compiler}")?;
                writeln!(
                    f,
                    "  looked for: a bpf-linker with LLVM {} or later; found",
                    compiler.llvm
                )?;
                for linker in linkers {
                    writeln!(f, "    {linker}: too old")?;
                }
                if linkers.is_empty() {
                    writeln!(f, "    none in {} or on PATH", cache_directory().display())?;
                }
            }
        }
        writeln!(f, "  mend it with:")?;
        writeln!(f, "    cargo xtask setup")?;
        writeln!(f, "  or by hand:")?;
        match self {
            Self::Compiler(_) => {
                writeln!(
                    f,
                    "    rustup component add rust-src               # where rustup can fetch it"
                )?;
                writeln!(f, "    sudo apt-get install rustc-web rust-web-src # Debian 12")?;
            }
            Self::Linker(compiler, _) => {
                let llvm = compiler.llvm;
                writeln!(
                    f,
                    "    sudo apt-get install llvm-{llvm}-dev libpolly-{llvm}-dev    # Debian, Ubuntu"
                )?;
                writeln!(
                    f,
                    "    cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-{llvm}"
                )?;
            }
        }
        write!(
            f,
            "  or build with a ready object: LB_EBPF_OBJECT=/path/to/lb.o cargo build"
        )
    }
}

impl std::error::Error for Missing {}

/// The first compiler that fits and has a linker; for each, a linker of exactly its LLVM is preferred.
pub(crate) fn choose(installed: &Installed) -> Result<Toolchain, Missing> {
    let mut fitting = installed.compilers.iter().filter(|compiler| compiler.fits()).peekable();
    let Some(first) = fitting.peek().copied() else {
        return Err(Missing::Compiler(installed.clone()));
    };
    fitting
        .find_map(|compiler| {
            let linker = choose_linker(&installed.linkers, compiler.llvm)?;
            Some(Toolchain {
                compiler: compiler.clone(),
                linker: linker.clone(),
            })
        })
        .ok_or_else(|| Missing::Linker(Box::new(first.clone()), installed.linkers.clone()))
}

fn choose_linker(linkers: &[Linker], llvm: u32) -> Option<&Linker> {
    let exact = linkers.iter().find(|linker| linker.llvm == Some(llvm));
    exact.or_else(|| linkers.iter().find(|linker| linker.reads(llvm)))
}

/// Where what `setup` installs for this user lives.
pub(crate) fn cache_directory() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("lb")
}

/// Where `setup` installs the linker for one LLVM.
pub(crate) fn linker_root(llvm: u32) -> PathBuf {
    cache_directory().join(format!("bpf-linker-{LINKER_VERSION}-llvm{llvm}"))
}

pub(crate) fn minor_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn compiler(name: &str, release: &str, llvm: u32, sources: bool) -> Compiler {
        Compiler {
            rustc: format!("/{name}/bin/rustc").into(),
            cargo: "cargo".into(),
            release: release.into(),
            llvm,
            sysroot: format!("/{name}").into(),
            sources,
        }
    }

    fn linker(name: &str, llvm: Option<u32>) -> Linker {
        Linker {
            path: name.into(),
            llvm,
        }
    }

    #[test]
    fn the_first_compiler_with_sources_wins() {
        let installed = Installed {
            compilers: vec![
                compiler("stable", "1.95.0", 22, false),
                compiler("nightly", "1.97.0-nightly", 22, true),
                compiler("system", "1.96.0", 22, true),
            ],
            linkers: vec![
                linker("old", Some(21)),
                linker("inside", None),
                linker("exact", Some(22)),
            ],
        };
        let chosen = choose(&installed).unwrap();
        assert_eq!(chosen.compiler.sysroot, Path::new("/nightly"));
        assert_eq!(chosen.linker.path, Path::new("exact"));
    }

    #[test]
    fn a_compiler_without_a_linker_gives_way_to_one_with() {
        let installed = Installed {
            compilers: vec![
                compiler("nightly", "1.99.0-nightly", 23, true),
                compiler("system", "1.96.0", 22, true),
            ],
            linkers: vec![linker("exact", Some(22))],
        };
        assert_eq!(choose(&installed).unwrap().compiler.sysroot, Path::new("/system"));
    }

    #[test]
    fn a_newer_linker_reads_older_bitcode_and_an_older_one_does_not() {
        let compilers = vec![compiler("stable", "1.95.0", 22, true)];
        let with = |llvm| {
            choose(&Installed {
                compilers: compilers.clone(),
                linkers: vec![linker("it", llvm)],
            })
        };
        assert!(with(Some(23)).is_ok());
        assert!(with(None).is_ok());
        let message = with(Some(21)).unwrap_err().to_string();
        assert!(message.contains("it (LLVM 21): too old"), "{message}");
        assert!(message.contains("--features llvm-22"), "{message}");
        assert!(message.contains("llvm-22-dev libpolly-22-dev"), "{message}");
    }

    #[test]
    fn without_sources_one_message_names_what_was_found_and_the_mend() {
        let compilers = vec![
            compiler("stable", "1.95.0", 22, false),
            compiler("system", "1.85.0", 19, true),
        ];
        let message = choose(&Installed {
            compilers,
            linkers: vec![],
        })
        .unwrap_err()
        .to_string();
        for part in [
            "rustc 1.95.0 (LLVM 22) in /stable: no sources",
            "rustc 1.85.0 (LLVM 19) in /system: too old",
            "cargo xtask setup",
            "rustup component add rust-src",
            "LB_EBPF_OBJECT=",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
