//! Provides the eBPF object that the agent embeds, in `LB_EBPF_OBJECT_PATH`: a ready one, or one built from `lb-ebpf`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../xtask/src/object.rs"]
mod object;
#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "setup, which installs what is missing, uses the rest")]
mod toolchain;

use object::{Build, INPUTS, Machine};

fn main() {
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT");
    if let Err(error) = provide() {
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
    }
}

fn provide() -> Result<(), Box<dyn Error>> {
    let bytes = match env::var_os("LB_EBPF_OBJECT") {
        Some(path) => ready(Path::new(&path))?,
        None => build()?,
    };
    let path = variable("OUT_DIR").map(PathBuf::from)?.join("lb.o");
    object::write_if_changed(&path, &bytes)?;
    println!("cargo::rustc-env=LB_EBPF_OBJECT_PATH={}", path.display());
    Ok(())
}

fn ready(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    if path.is_relative() {
        return Err(format!("LB_EBPF_OBJECT={} is relative; give the absolute path", path.display()).into());
    }
    println!("cargo::rerun-if-changed={}", path.display());
    let bytes = fs::read(path).map_err(|error| format!("LB_EBPF_OBJECT={}: {error}", path.display()))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(format!("LB_EBPF_OBJECT={} is not an ELF object", path.display()).into());
    }
    Ok(bytes)
}

fn build() -> Result<Vec<u8>, Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the package is not inside its workspace")?;
    for input in INPUTS {
        // Relative: two checkouts that share a target directory share this script's output too.
        println!("cargo::rerun-if-changed=../{input}");
    }
    let toolchain = toolchain::choose(&toolchain::probe())?;
    let machine = Machine {
        architecture: variable("CARGO_CFG_TARGET_ARCH")?,
        big_endian: variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
    };
    let build = Build {
        workspace,
        toolchain: &toolchain,
        machine: &machine,
    };
    build.run().or_else(|error| {
        eprintln!("error: lb-ebpf: {error}");
        // Cargo shows what the compiler said only if the script fails.
        std::process::exit(1)
    })
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
