//! `lb-agent uninstall`: gives traffic back to whoever had it, and leaves nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::loopback;
use crate::config::{Config, ProviderKind};
use crate::datapath::attach::detach_filters;
use crate::datapath::{layout, remove};
use crate::lifecycle::Lock;
use crate::net::netns::Namespace;
use crate::stream;

/// Remembers that this agent mounted the BPF file system, so that `uninstall` unmounts it.
const MOUNTED: &str = "bpffs-mounted";

/// Notes the mount point of a file system that the agent mounted.
pub(super) fn remember_mount(run: &Path, mount_point: &Path) -> Result<()> {
    let path = run.join(MOUNTED);
    fs::write(&path, mount_point.as_os_str().as_encoded_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Detaches the programs, removes pins, maps, directories and the agent's state. May be run again.
///
/// # Errors
/// If the agent still runs, or with everything that could not be removed.
pub fn uninstall(config: &Config) -> Result<()> {
    let run = &config.paths.run;
    let lock = Lock::acquire(run)?;
    let others = layout::others(&config.paths.bpffs)
        .into_iter()
        .map(|(_, directory)| directory);
    let versions = std::iter::once(layout::versioned(&config.paths.bpffs)).chain(others);
    let pins: Vec<_> = versions
        .map(|directory| Lock::of_directory(&directory))
        .collect::<Result<_, _>>()?;
    let mut errors = Vec::new();

    drop(pins);
    if config.provider.kind == ProviderKind::Docker {
        errors.extend(detach_elsewhere(&config.provider.exec_root.join("netns")));
    }
    let removed = remove::remove(&config.paths.bpffs, &interface_names());
    errors.extend(removed.errors.iter().map(ToString::to_string));
    errors.extend(loopback::restore(run));
    if let Ok(mount_point) = fs::read_to_string(run.join(MOUNTED)) {
        // The standard one is the system's, whoever mounted it first.
        let mount_point = PathBuf::from(mount_point);
        if config.paths.bpffs == mount_point || mount_point.starts_with(&config.paths.bpffs) {
            errors.extend(remove::unmount(&mount_point).err().map(|e| e.to_string()));
            gone(&mut errors, fs::remove_dir(&config.paths.bpffs), &config.paths.bpffs);
        }
    }
    for file in [
        run.join(MOUNTED),
        run.join(loopback::CHANGED),
        config.admin.socket.clone(),
        config.stream.state_file.clone(),
        stream::reports_file(&config.stream.state_file),
        run.join("agent.lock"),
    ] {
        gone(&mut errors, fs::remove_file(&file), &file);
    }
    drop(lock);
    // systemd may own the directory, it may be mounted into a container, and an operator's files in it are not ours.
    let owned = [
        io::ErrorKind::NotFound,
        io::ErrorKind::DirectoryNotEmpty,
        io::ErrorKind::ResourceBusy,
    ];
    match fs::remove_dir(run) {
        Err(e) if !owned.contains(&e.kind()) => {
            errors.push(format!("cannot remove {}: {e}", run.display()));
        }
        _ => {}
    }

    if removed.links + removed.programs + removed.maps > 0 {
        println!(
            "removed {} links, {} programs, {} maps",
            removed.links, removed.programs, removed.maps
        );
    } else if errors.is_empty() {
        println!("nothing to remove");
    }
    if !errors.is_empty() {
        bail!(
            "{} things could not be removed:\n  {}",
            errors.len(),
            errors.join("\n  ")
        );
    }
    Ok(())
}

fn gone(errors: &mut Vec<String>, result: io::Result<()>, path: &Path) {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => errors.push(format!("cannot remove {}: {e}", path.display())),
        _ => {}
    }
}

/// Takes our filters off the interfaces in the engine's namespaces. On kernels with tcx there are none: links go with their
/// pins.
fn detach_elsewhere(directory: &Path) -> Vec<String> {
    let namespaces = fs::read_dir(directory).into_iter().flatten().flatten();
    // A file there may be what is left of a namespace that is gone.
    let namespaces = namespaces.filter_map(|entry| Namespace::open(&entry.path()).ok());
    let failures = namespaces.flat_map(|namespace| {
        let detach = || {
            interface_names()
                .iter()
                .flat_map(|name| detach_filters(name))
                .map(|e| e.to_string())
                .collect()
        };
        namespace
            .run(detach)
            .unwrap_or_else(|e| vec![format!("network namespace {}: {e}", namespace.name())])
    });
    failures.collect()
}

/// Interfaces of this network namespace.
fn interface_names() -> Vec<String> {
    nix::net::if_::if_nameindex()
        .map(|list| {
            list.iter()
                .filter_map(|i| i.name().to_str().ok().map(String::from))
                .collect()
        })
        .unwrap_or_default()
}
