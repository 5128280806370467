//! What compilers and linkers this machine has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::{Compiler, Installed, LINKER_VERSION, Linker, cache_directory, minor_version};

/// Looks at the machine.
pub(crate) fn probe() -> Installed {
    Installed {
        compilers: probe_compilers(),
        linkers: probe_linkers(),
    }
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
