//! Finds a compiler and a linker for the eBPF object: what is installed (probed), and which of it to use (pure).
//!
//! Shared with `lb-userspace/build.rs`, so it uses std alone and installs nothing; [`crate::setup`] does that.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Looks at the machine.
pub(crate) fn probe() -> Installed {
    Installed {
        compilers: probe_compilers(),
        linkers: probe_linkers(),
    }
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

fn probe_compilers() -> Vec<Compiler> {
    let mut candidates: Vec<PathBuf> = vec![env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into()];
    candidates.extend(
        rustup_toolchains()
            .into_iter()
            .map(|toolchain| toolchain.join("bin/rustc")),
    );
    candidates.extend(["/usr/bin/rustc", "/usr/local/bin/rustc"].map(PathBuf::from));

    let mut compilers: Vec<Compiler> = Vec::new();
    for compiler in candidates.into_iter().filter_map(probe_compiler) {
        if !compilers.iter().any(|known| known.sysroot == compiler.sysroot) {
            compilers.push(compiler);
        }
    }
    compilers
}

/// Directories of rustup's toolchains, nightlies first.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let entries = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut toolchains: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    toolchains.sort_by_key(|path| {
        (
            !path
                .file_name()
                .is_some_and(|n| n.as_encoded_bytes().starts_with(b"nightly")),
            path.clone(),
        )
    });
    toolchains
}

/// The compiler behind a name, which may be rustup's proxy: what it stands for now, not when the variables differ.
fn probe_compiler(name: PathBuf) -> Option<Compiler> {
    let verbose = output(Command::new(&name).arg("-vV"))?;
    let sysroot = PathBuf::from(output(Command::new(&name).args(["--print", "sysroot"]))?.trim_end());
    let sysroot = fs::canonicalize(&sysroot).unwrap_or(sysroot);
    let own = |binary: &str| Some(sysroot.join("bin").join(binary)).filter(|path| path.exists());
    let (release, llvm) = parse_version(&verbose)?;
    Some(Compiler {
        rustc: own("rustc").unwrap_or(name),
        cargo: own("cargo").unwrap_or_else(|| env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()),
        sources: sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists(),
        release,
        llvm,
        sysroot,
    })
}

/// Release and LLVM major from the output of `rustc -vV`.
fn parse_version(verbose: &str) -> Option<(String, u32)> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?.to_owned();
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

pub(crate) fn minor_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn probe_linkers() -> Vec<Linker> {
    let cached = fs::read_dir(cache_directory())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let cached = cached.filter(|path| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("bpf-linker-"))
    });
    let mut candidates: Vec<PathBuf> = cached.map(|root| root.join("bin/bpf-linker")).collect();
    candidates.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    candidates.extend(env::split_paths(&path).map(|directory| directory.join("bpf-linker")));
    candidates.dedup();
    candidates.into_iter().filter_map(probe_linker).collect()
}

/// A linker that runs and is new enough; one whose shared LLVM is gone does not run.
fn probe_linker(path: PathBuf) -> Option<Linker> {
    let version = path.is_file().then(|| output(Command::new(&path).arg("--version")))??;
    let release = version.split_whitespace().nth(1)?;
    let wanted = minor_version(LINKER_VERSION)?;
    (minor_version(release)? >= wanted).then(|| Linker {
        llvm: linked_llvm(&path),
        path,
    })
}

/// Major version of the shared LLVM that a binary names, read from its bytes: it has no option that tells.
fn linked_llvm(binary: &Path) -> Option<u32> {
    let bytes = fs::read(binary).ok()?;
    ["libLLVM.so.", "libLLVM-"]
        .into_iter()
        .find_map(|name| number_after(&bytes, name.as_bytes()))
}

fn number_after(bytes: &[u8], name: &[u8]) -> Option<u32> {
    bytes
        .windows(name.len())
        .enumerate()
        .filter(|(_, window)| *window == name)
        .find_map(|(at, _)| {
            let rest = &bytes[at + name.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
        })
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn versions_are_read_as_rustc_prints_them() {
        let verbose = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(verbose), Some(("1.97.0-nightly".into(), 22)));
        assert_eq!(minor_version("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(minor_version("what"), None);
    }

    #[test]
    fn the_shared_llvm_of_a_binary_is_read_from_its_bytes() {
        assert_eq!(number_after(b"..\0libLLVM.so.22.1\0libc", b"libLLVM.so."), Some(22));
        assert_eq!(number_after(b"libLLVM-x libLLVM-19.so", b"libLLVM-"), Some(19));
        assert_eq!(number_after(b"libLLVM.so", b"libLLVM.so."), None);
    }
}
