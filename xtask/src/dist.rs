//! `cargo xtask dist`: what is installed on nodes. Programs that need nothing but the kernel, the same in a container
//! image, and checksums of it all.

use std::fs::{self, File as Output, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use flate2::{Compression, GzBuilder};
use nix::unistd::geteuid;

use crate::process::{ask, cargo, run as run_command};
use crate::{setup, test, workspace};

pub(crate) mod image;
#[cfg(test)]
mod image_tests;
mod linkage;

use image::{File, Image, sha256};
pub(crate) use linkage::ensure_static;

const PROGRAMS: [&str; 2] = ["lb-agent", "lbctl"];
/// Configuration of the image, for a Swarm.
const CONFIGURATION: &str = "deploy/swarm/agent.toml";
const SUMS: &str = "SHA256SUMS";

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Directory to write to [default: dist in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds and writes everything.
///
/// # Errors
/// The toolchain is missing, something cannot be built or written, or a program is not static.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    let target_directory = test::target_directory()?;
    let out = arguments.out.clone().unwrap_or_else(|| target_directory.join("dist"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let host = host()?;
    run_command(&mut build(&host)).context("build of the static programs")?;
    let built = target_directory.join(&host).join("release");
    let mut programs = Vec::new();
    for name in PROGRAMS {
        let path = built.join(name);
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        ensure_static(&content).with_context(|| path.display().to_string())?;
        programs.push((name, content));
    }

    let mut sums = Vec::new();
    for (name, content) in &programs {
        write(&out, name, content, 0o755, &mut sums)?;
    }
    let architecture = architecture(&host)?;
    let name = format!("lb-image-{}-{architecture}.tar.gz", env!("CARGO_PKG_VERSION"));
    write(&out, &name, &archive(&programs, architecture)?, 0o644, &mut sums)?;
    sums.sort_by(|one, other| one.name.cmp(&other.name));
    fs::write(out.join(SUMS), text(&sums)).context(SUMS)?;
    try_out(&out)?;
    for sum in &sums {
        println!("{:>6.1} MiB  {}", mebibytes(sum.size), out.join(&sum.name).display());
    }
    println!("{:>10}  {}", "", out.join(SUMS).display());
    Ok(())
}

/// One line of the checksums.
struct Sum {
    name: String,
    size: usize,
    digest: String,
}

fn write(out: &Path, name: &str, content: &[u8], mode: u32, sums: &mut Vec<Sum>) -> Result<()> {
    let path = out.join(name);
    // A program that runs from here keeps its old file.
    let new = out.join(format!(".{name}.new"));
    let mut file = Output::create(&new).with_context(|| new.display().to_string())?;
    file.write_all(content).with_context(|| new.display().to_string())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    fs::rename(&new, &path).with_context(|| path.display().to_string())?;
    sums.push(Sum {
        name: name.to_owned(),
        size: content.len(),
        digest: sha256(content),
    });
    Ok(())
}

/// As `sha256sum --check` reads it.
fn text(sums: &[Sum]) -> String {
    sums.iter()
        .map(|sum| format!("{}  {}\n", sum.digest, sum.name))
        .collect()
}

/// What `docker load` takes.
fn archive(programs: &[(&str, Vec<u8>)], architecture: &str) -> Result<Vec<u8>> {
    let configuration = workspace().join(CONFIGURATION);
    let configuration = fs::read(&configuration).with_context(|| configuration.display().to_string())?;
    let paths: Vec<String> = programs.iter().map(|(name, _)| format!("/usr/bin/{name}")).collect();
    let programs = programs.iter().zip(&paths).map(|((_, content), path)| File {
        path,
        mode: 0o755,
        content,
    });
    let configuration = File {
        path: "/etc/lb/agent.toml",
        mode: 0o644,
        content: &configuration,
    };
    let files: Vec<File<'_>> = programs.chain([configuration]).collect();
    let version = env!("CARGO_PKG_VERSION");
    let image = Image {
        name: &format!("lb-agent:{version}"),
        architecture,
        version,
        entrypoint: &["/usr/bin/lb-agent"],
        command: &["run"],
        // As the configuration says: a container may not write below its /sys.
        environment: &["PATH=/usr/bin", "LB_BPFFS=/bpf/lb"],
        directories: &[
            "/bpf",
            "/run/docker/netns",
            "/run/lb",
            "/run/secrets",
            "/tmp",
            "/var/lib/lb",
        ],
        files: &files,
    };
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    image::write(&image, &mut gzip)?;
    Ok(gzip.finish()?)
}

/// Linked with everything that they need. Messages of panics hold no path of the machine that builds.
fn build(host: &str) -> Command {
    let root = workspace();
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=lb", root.display()),
    ];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    let mut command = cargo();
    command
        .args(["build", "--locked", "--release", "--bins", "--package", "lb-userspace"])
        // Named, so that the flags do not reach what runs at build time, which is linked dynamically.
        .args(["--target", host, "--config", "profile.release.strip='symbols'"])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// Runs the programs where there is nothing but themselves.
fn try_out(out: &Path) -> Result<()> {
    if !geteuid().is_root() {
        println!("not root: the programs were not tried in an empty root directory");
        return Ok(());
    }
    let root = out.to_str().context("the directory's name is not UTF-8")?;
    for name in PROGRAMS {
        let answer = ask("chroot", &[root, &format!("/{name}"), "--version"]);
        let expected = format!("{name} {}", env!("CARGO_PKG_VERSION"));
        ensure!(
            answer.as_deref().is_some_and(|line| line.starts_with(&expected)),
            "{name} does not run alone in a root directory: it said {answer:?} instead of {expected:?}"
        );
    }
    Ok(())
}

/// The machine that the compiler builds for, as it says it.
fn host() -> Result<String> {
    let text = ask("rustc", &["-vV"]).context("rustc -vV failed")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// What Docker calls the machine.
fn architecture(host: &str) -> Result<&'static str> {
    match host.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("no image can be made on {host}: only x86_64 and aarch64 have a name here"),
    }
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_in_the_form_of_sha256sum() {
        let sum = |name: &str, content: &[u8]| Sum {
            name: name.into(),
            size: content.len(),
            digest: sha256(content),
        };
        assert_eq!(
            text(&[sum("abc", b"abc"), sum("none", b"")]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  none\n"
        );
    }

    #[test]
    fn the_image_holds_programs_and_the_configuration_of_a_swarm() {
        let programs = [("lb-agent", b"agent".to_vec()), ("lbctl", b"lbctl".to_vec())];
        let bytes = archive(&programs, "amd64").unwrap();
        assert_eq!(bytes, archive(&programs, "amd64").unwrap());
        let mut plain = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let layers = plain.entries().unwrap().filter_map(|entry| {
            let mut content = Vec::new();
            std::io::copy(&mut entry.unwrap(), &mut content).unwrap();
            // Of the blobs only the layer is a tar archive with this in it.
            let mut inner = tar::Archive::new(&content[..]);
            let paths = inner
                .entries()
                .ok()?
                .map(|file| Some(file.ok()?.path().ok()?.display().to_string()));
            paths.collect::<Option<Vec<_>>>().filter(|paths| !paths.is_empty())
        });
        let layers: Vec<_> = layers.collect();
        for path in ["usr/bin/lb-agent", "usr/bin/lbctl", "etc/lb/agent.toml", "run/lb"] {
            assert!(
                layers.iter().any(|layer| layer.iter().any(|has| has == path)),
                "{path}: {layers:?}"
            );
        }
    }

    #[test]
    fn docker_names_of_machines() {
        assert_eq!(architecture("x86_64-unknown-linux-gnu").unwrap(), "amd64");
        assert_eq!(architecture("aarch64-unknown-linux-musl").unwrap(), "arm64");
        assert!(architecture("sparc64-unknown-linux-gnu").is_err());
    }
}
