//! The one image: `lb-task`, a shell for `--health-cmd`, the libraries that both are linked with, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::netns::run;
use crate::require;

/// Its name on every node; no registry is asked for it.
pub const IMAGE: &str = "lb-task:latest";
/// What Docker runs health checks with.
const SHELL: &str = "/bin/sh";

/// Makes the tarball that `docker import` takes.
pub(super) fn archive(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("image");
    for part in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(part))?;
    }
    for (binary, place) in [(require::binary("lb-task")?, "bin/lb-task"), (SHELL.into(), SHELL)] {
        copy(&binary, &root, place)?;
        for library in libraries_of(&binary)? {
            copy(&library, &root, &library.to_string_lossy())?;
        }
    }
    let archive = directory.join("image.tar");
    run(
        Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&root)
            .arg("."),
        "",
    )?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

fn copy(file: &Path, root: &Path, place: &str) -> Result<()> {
    let target = root.join(place.trim_start_matches('/'));
    fs::create_dir_all(target.parent().context("a file in a directory")?)?;
    fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}

/// Arguments of `docker` that make [`IMAGE`] of the archive.
pub(super) fn import(archive: &str) -> Vec<&str> {
    let entry = r#"ENTRYPOINT ["/bin/lb-task"]"#;
    vec![
        "import",
        "--change",
        entry,
        "--change",
        r#"CMD ["serve"]"#,
        archive,
        IMAGE,
    ]
}

/// Files that a binary needs where there is nothing else: libraries and the loader.
///
/// # Errors
/// If `ldd` fails.
pub fn libraries_of(binary: &Path) -> Result<Vec<PathBuf>> {
    Ok(libraries(&run(Command::new("ldd").arg(binary), "")?))
}

/// Of what `ldd` says about a binary.
fn libraries(text: &str) -> Vec<PathBuf> {
    let file = |line: &str| {
        line.split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    text.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_taken_and_the_kernels_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd5a5f2000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f5d5a000000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f5d5a3f2000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(text), expected.map(PathBuf::from));
        assert_eq!(libraries("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }
}
