//! Loads the programs over maps that are pinned already, or pins new ones.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::ProgramArray;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use lb_common::abi::{self, program};

use super::bpffs::{self, BpffsError};
use super::carry::{self, Carried};
use super::layout::{self, Shape};
use super::sys;
use crate::fault::{self, Point};

/// Every program of the object.
pub const PROGRAMS: [&str; 16] = [
    program::XDP_NODE,
    program::TC_NODE,
    program::FROM_WORKLOAD,
    program::FROM_OVERLAY,
    program::TO_WORKLOAD,
    program::FROM_HOST,
    program::NODE_ERRORS,
    program::FROM_ERRORS,
    program::TO_ERRORS,
    program::HOST_ERRORS,
    program::NODE_FRAGMENTS,
    program::FROM_FRAGMENTS,
    program::TO_FRAGMENTS,
    program::ENTER_FROM,
    program::ENTER_TO,
    program::COLLECT,
];
/// Lines of the verifier's log that an error shows.
const LOG_LINES: usize = 40;

/// The programs could not be loaded. Nothing that was attached before is touched.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This program was built without an object.
    #[error("this lb-agent was built without its eBPF object; build it again with `cargo xtask setup` done first")]
    NoObject,
    /// The pin directory.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// A pinned map is not what the object describes.
    #[error(
        "the pinned map {} belongs to another build: {difference}; `lb-agent uninstall` removes it (and ends its flows)",
        .pin.display()
    )]
    Layout {
        /// Pin of the map.
        pin: PathBuf,
        /// What differs.
        difference: String,
    },
    /// A pin cannot be read or written.
    #[error("cannot {operation} {}: {source}", .pin.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// Its path.
        pin: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object or a map.
    #[error("cannot load the eBPF object: {0}{hint}", hint = hint(.0))]
    Object(#[from] EbpfError),
    /// The verifier refused a program.
    #[error("the kernel refused program {program}: {source}\n{log}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// End of the verifier's log.
        log: String,
    },
    /// Anything else about a program.
    #[error("program {program}: {source}")]
    Other {
        /// Its name.
        program: &'static str,
        /// What is wrong.
        source: ProgramError,
    },
}

fn hint(error: &EbpfError) -> &'static str {
    let denied = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source()).any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    });
    if denied {
        "; the agent needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else {
        ""
    }
}

/// The object in the kernel.
pub struct Loaded {
    /// Programs, loaded; the maps that they use are pinned.
    pub ebpf: Ebpf,
    /// Directory of this version's pins.
    pub directory: PathBuf,
    /// The mount point, if a BPF file system had to be mounted.
    pub mounted: Option<PathBuf>,
    /// Whether the maps of an earlier agent were adopted.
    pub adopted: bool,
    /// Capacities in force.
    pub capacity: Capacity,
    /// What became of other versions' tables.
    pub carried: Carried,
}

/// Capacities that are configured; what is pinned already keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Of each flow table.
    pub flows: u32,
    /// Of each overflow table.
    pub overflow: u32,
}

/// Loads `object` below `bpffs`; flow tables that do not exist yet get `wanted` capacities. Tables of an earlier
/// version go on in this one where their rows have not changed.
///
/// # Errors
/// See [`LoadError`]. What an earlier agent left attached goes on forwarding.
pub fn load(object: &[u8], bpffs: &Path, wanted: Capacity) -> Result<Loaded, LoadError> {
    if object.is_empty() {
        return Err(LoadError::NoObject);
    }
    let directory = layout::versioned(bpffs);
    let mounted = bpffs::prepare(bpffs)?;
    for sub in [layout::programs(&directory), layout::links(&directory)] {
        fs::create_dir_all(&sub).map_err(|source| LoadError::Pin {
            operation: "make",
            pin: sub,
            source,
        })?;
    }

    fault::here(Point::LoadPrepared);

    let maps = aya_obj::Object::parse(object).map_err(EbpfError::from)?.maps;
    let pinned = maps.iter().filter(|(name, _)| layout::is_pinned(name));
    let shapes: BTreeMap<&str, Shape> = pinned.map(|(name, map)| (name.as_str(), Shape::from(map))).collect();
    let carried = carry::carry(bpffs, &directory, &shapes, pinned_state)?;
    let mut loader = EbpfLoader::new();
    // The log is asked for only after a refusal, in a second try.
    loader
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .default_map_pin_directory(&directory);
    let mut adopted = false;
    let mut capacity = wanted;
    for (&name, expected) in &shapes {
        let pin = directory.join(name);
        if let Some(found) = pinned_state(&pin)? {
            layout::check(name, expected, &found).map_err(|difference| LoadError::Layout {
                pin: pin.clone(),
                difference,
            })?;
            if layout::is_flow_table(name) {
                capacity.flows = found.max_entries;
            } else if layout::is_overflow_table(name) {
                capacity.overflow = found.max_entries;
            }
            adopted = true;
        }
        if layout::is_flow_table(name) {
            loader.map_max_entries(name, wanted.flows);
        } else if layout::is_overflow_table(name) {
            loader.map_max_entries(name, wanted.overflow);
        }
        loader.map_pin_path(name, pin);
    }
    let mut ebpf = loader.load(object)?;
    fault::here(Point::LoadMaps);
    for name in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or(LoadError::Other {
            program: name,
            source: ProgramError::UnexpectedProgramType,
        })?;
        load_program(name, program)?;
        pin_program(&directory, name, program)?;
    }
    fault::here(Point::LoadPrograms);
    link_jumps(&mut ebpf)?;
    Ok(Loaded {
        ebpf,
        directory,
        mounted,
        adopted,
        capacity,
        carried,
    })
}

/// Lets what is attached, in whatever namespace and by whatever agent, go on in this agent's programs.
fn link_jumps(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let Some(map) = ebpf.take_map(abi::JUMPS) else {
        return Ok(());
    };
    let fail = |program, source| LoadError::Other { program, source };
    let mut jumps = ProgramArray::try_from(map).map_err(|e| fail(program::ENTER_FROM, e.into()))?;
    for (index, name) in abi::JUMP_PROGRAMS {
        let program = ebpf.program(name).ok_or(fail(name, ProgramError::NotLoaded))?;
        let fd = program.fd().map_err(|e| fail(name, e))?;
        jumps.set(index, fd, 0).map_err(|e| fail(name, e.into()))?;
        fault::here(Point::LoadJump);
    }
    Ok(())
}

/// The pair of programs that is attached to workload interfaces of another network namespace, over the pinned maps.
///
/// # Errors
/// See [`LoadError`].
pub(super) fn pair(object: &[u8], directory: &Path, namespace: u64) -> Result<Ebpf, LoadError> {
    let maps = aya_obj::Object::parse(object).map_err(EbpfError::from)?.maps;
    let mut loader = EbpfLoader::new();
    loader.override_global(abi::NAMESPACE, &namespace, true);
    for name in maps.keys() {
        if layout::is_pinned(name) {
            loader.map_pin_path(name, directory.join(name));
        }
    }
    let mut ebpf = loader.load(object)?;
    for name in [program::ENTER_FROM, program::ENTER_TO] {
        let program = ebpf.program_mut(name).ok_or(LoadError::Other {
            program: name,
            source: ProgramError::UnexpectedProgramType,
        })?;
        load_program(name, program)?;
    }
    // The kernel holds what the programs use; descriptors of every map for every namespace would add up.
    for name in maps.keys() {
        drop(ebpf.take_map(name));
    }
    Ok(ebpf)
}

fn pinned_state(pin: &Path) -> Result<Option<Shape>, LoadError> {
    let fail = |source| LoadError::Pin {
        operation: "open",
        pin: pin.to_owned(),
        source,
    };
    match sys::open_pin(pin, sys::READ_WRITE) {
        Ok(fd) => sys::map_info(fd.as_fd())
            .map(|info| Some(Shape::from(&info)))
            .map_err(fail),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(e)),
    }
}

fn load_program(name: &'static str, program: &mut Program) -> Result<(), LoadError> {
    let result = match program {
        Program::Xdp(p) => p.load(),
        Program::SchedClassifier(p) => p.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    result.map_err(|e| match e {
        ProgramError::LoadError { io_error, verifier_log } => LoadError::Program {
            program: name,
            source: io_error,
            log: tail(&verifier_log.to_string()),
        },
        source => LoadError::Other { program: name, source },
    })
}

/// Pins a program over the one of an earlier agent.
fn pin_program(directory: &Path, name: &'static str, program: &mut Program) -> Result<(), LoadError> {
    let pin = layout::programs(directory).join(name);
    let new = layout::programs(directory).join(format!("{name}-new"));
    let _ = fs::remove_file(&new); // left by an agent that was killed here
    program.pin(&new).map_err(|e| LoadError::Pin {
        operation: "pin",
        pin: new.clone(),
        source: io::Error::other(e),
    })?;
    fault::here(Point::LoadProgram);
    fs::rename(&new, &pin).map_err(|source| LoadError::Pin {
        operation: "replace",
        pin,
        source,
    })
}

/// The last lines of a verifier log, where the reason stands.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_shown() {
        let log: String = (0..100).map(|i| format!("{i}\n")).collect();
        let shown = tail(&log);
        assert!(shown.starts_with("60\n") && shown.ends_with("\n99"));
        assert_eq!(tail("only"), "only");
    }

    #[test]
    fn an_empty_object_is_named_so() {
        let capacity = Capacity { flows: 1, overflow: 1 };
        assert!(matches!(
            load(&[], Path::new("/nowhere"), capacity),
            Err(LoadError::NoObject)
        ));
    }
}
