//! Builds the eBPF object with a [`Toolchain`]; the one place that knows the flags.
//!
//! Shared with `lb-userspace/build.rs`. The build has a target directory of its own, because a cargo that
//! runs inside a build script would wait for ever for the lock of the outer one.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::Toolchain;

/// Files and directories, under the workspace, that the object is made of.
pub(crate) const INPUTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "xtask/src/object.rs",
];

/// The machine that the object will run on; differs from the one it is built on only when cross-compiling.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// As rustc names it, such as `x86_64`.
    pub(crate) architecture: String,
    pub(crate) big_endian: bool,
}

impl Machine {
    fn target(&self) -> &'static str {
        if self.big_endian {
            "bpfeb-unknown-none"
        } else {
            "bpfel-unknown-none"
        }
    }
}

/// One build of the object.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub(crate) workspace: &'a Path,
    pub(crate) toolchain: &'a Toolchain,
    pub(crate) machine: &'a Machine,
}

impl Build<'_> {
    /// `$CARGO_TARGET_DIR/ebpf`, or `target/ebpf` in the workspace.
    pub(crate) fn directory(&self) -> PathBuf {
        let outer = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.workspace.join(outer).join("ebpf")
    }

    /// Where the finished object lies.
    pub(crate) fn object(&self) -> PathBuf {
        self.directory().join("lb.o")
    }

    /// Cargo with everything set for BPF.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        self.command(Command::new(&self.toolchain.compiler.cargo), verb)
    }

    /// The clippy of the compiler that builds the object.
    #[allow(dead_code, reason = "not called by the build script")]
    pub(crate) fn clippy(&self) -> Command {
        let mut command = Command::new(self.toolchain.compiler.clippy());
        command.env("CARGO", &self.toolchain.compiler.cargo);
        self.command(command, "clippy")
    }

    fn command(&self, mut command: Command, verb: &str) -> Command {
        let Toolchain { compiler, linker } = self.toolchain;
        let target = self.machine.target();
        // What an outer cargo, clippy or rustup has set is meant for the host's compiler.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_TARGET_"]
                .iter()
                .any(|p| text.starts_with(p));
            if foreign || FOREIGN.contains(&&*text) {
                command.env_remove(&name);
            }
        }
        let flags = [
            "-Cdebuginfo=2",
            "-Ctarget-cpu=v3",
            "-Clink-arg=--btf",
            &format!("--cfg=bpf_target_arch=\"{}\"", self.machine.architecture),
        ];
        command
            .current_dir(self.workspace)
            .env("RUSTC", &compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env(
                format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")),
                &linker.path,
            )
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .arg(verb)
            .args([
                "--package",
                "lb-ebpf",
                "--release",
                "-Zbuild-std=core",
                "--target",
                target,
                "--target-dir",
            ])
            .arg(self.directory());
        command
    }

    /// Builds what changed and returns the object; a second caller waits for the first.
    ///
    /// # Errors
    /// Files that cannot be read or written, and a build that fails (cargo has printed why).
    pub(crate) fn run(&self) -> io::Result<Vec<u8>> {
        let directory = self.directory();
        fs::create_dir_all(&directory)?;
        let lock = File::create(directory.join("lock"))?;
        lock.lock()?;

        let stamp_file = directory.join("lb.o.inputs");
        let stamp = self.stamp()?;
        let old_stamp = fs::read_to_string(&stamp_file).unwrap_or_default();
        if stamp == old_stamp && self.object().exists() {
            return fs::read(self.object());
        }
        // Cargo goes by modification times; sources restored with old ones would not be built again.
        let mut clean = self.cargo("clean");
        clean.args(["--package", "lb-common", "--quiet"]);
        succeed(&mut clean)?;
        succeed(&mut self.cargo("build"))?;

        let bytes = fs::read(directory.join(self.machine.target()).join("release/lb"))?;
        write_if_changed(&self.object(), &bytes)?;
        fs::write(stamp_file, stamp)?;
        Ok(bytes)
    }

    /// Changes whenever the object could: contents of all inputs, and what they are built with.
    fn stamp(&self) -> io::Result<String> {
        let mut hasher = DefaultHasher::new();
        let Toolchain { compiler, linker } = self.toolchain;
        (
            &compiler.release,
            &compiler.sysroot,
            &linker.path,
            &self.machine.architecture,
        )
            .hash(&mut hasher);
        self.workspace.hash(&mut hasher);
        for input in INPUTS {
            hash_path(&self.workspace.join(input), &mut hasher)?;
        }
        Ok(format!("{:016x}\n", hasher.finish()))
    }
}

/// Variables of an outer cargo that would change the inner one.
const FOREIGN: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "HOST",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET",
];

/// Replaces `path` in one step, and leaves it and its time alone if it has these bytes already.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    let verb = command
        .get_args()
        .next()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("cargo {verb} ended with {status}")))
    }
}

fn hash_path(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash_path(entry, hasher));
    }
    path.hash(hasher);
    fs::read(path)?.hash(hasher);
    Ok(())
}
