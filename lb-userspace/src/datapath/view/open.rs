//! Opens the pinned maps, of this program's layout alone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lb_common::abi::{self, COUNTERS, Counter, SCHEMA_VERSION, SERVICE_COUNTERS, ServiceCounter, Table};

use super::{Map, View};
use crate::datapath::sys;

/// Why the pinned maps cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Nothing is pinned.
    #[error("no maps pinned under {}", .0.display())]
    NotFound(PathBuf),
    /// The caller may not open the pins.
    #[error("may not open {}", .0.display())]
    Denied(PathBuf),
    /// The maps have another layout than this program.
    #[error("{}: {found}; this program reads schema v{SCHEMA_VERSION}", .path.display())]
    Schema {
        /// The pin, or the directory of another version.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Anything else.
    #[error("cannot open {}: {source}", .path.display())]
    Io {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ViewError {
    fn new(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound(path.into()),
            io::ErrorKind::PermissionDenied => Self::Denied(path.into()),
            _ => Self::Io {
                path: path.into(),
                source,
            },
        }
    }
}

impl View {
    /// Opens every map pinned in `<bpffs>/v<SCHEMA_VERSION>`; names the version found if it is another one.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn find(bpffs: &Path) -> Result<Self, ViewError> {
        let directory = bpffs.join(format!("v{SCHEMA_VERSION}"));
        match Self::open(&directory) {
            Err(ViewError::NotFound(_)) => match other_version(bpffs) {
                Some(path) => {
                    let found = format!(
                        "holds schema {}",
                        path.file_name().unwrap_or_default().to_string_lossy()
                    );
                    Err(ViewError::Schema { path, found })
                }
                None => Err(ViewError::NotFound(directory)),
            },
            result => result,
        }
    }

    /// Opens every map pinned in `pin_dir` and checks key and value sizes against this program's.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when `settings` is not pinned there, [`ViewError::Denied`] when the pins may not be
    /// opened, [`ViewError::Schema`] when a map is missing or has another layout.
    pub fn open(pin_dir: &Path) -> Result<Self, ViewError> {
        let mut view = Self {
            directory: pin_dir.into(),
            maps: BTreeMap::new(),
            cpus: possible_cpus()?,
        };
        view.add::<abi::SettingsTable>()?;
        macro_rules! add {
            ($($table:ident)*) => { $( view.add::<abi::$table>().map_err(missing)?; )* };
        }
        add!(Interfaces Frontends Services Slots Cursors Backends LocalBackends Nodes Addresses Vips Sources);
        add!(Flows4 Flows6 Replies4 Replies6);
        add!(Overflow4 Overflow6 OverflowReplies4 OverflowReplies6 PressureTable PathMtus Marks Ports);
        view.add_map(COUNTERS, size_of::<u32>(), size_of::<Counter>())
            .map_err(missing)?;
        view.add_map(SERVICE_COUNTERS, size_of::<u32>(), size_of::<ServiceCounter>())
            .map_err(missing)?;
        Ok(view)
    }

    fn add<T: Table>(&mut self) -> Result<(), ViewError> {
        self.add_map(T::NAME, size_of::<T::Key>(), size_of::<T::Value>())
    }

    fn add_map(&mut self, name: &'static str, key_size: usize, value_size: usize) -> Result<(), ViewError> {
        let path = self.directory.join(name);
        let fd = sys::open_pin(&path, sys::READ_ONLY).map_err(|e| ViewError::new(&path, e))?;
        let info = sys::map_info(fd.as_fd()).map_err(|e| ViewError::new(&path, e))?;
        let found = (info.key_size as usize, info.value_size as usize);
        if found != (key_size, value_size) {
            let found = format!(
                "keys of {} and values of {} bytes where {key_size} and {value_size} are expected",
                found.0, found.1
            );
            return Err(ViewError::Schema { path, found });
        }
        self.maps.insert(
            name,
            Map {
                fd,
                id: info.id,
                kind: info.type_,
                key_size,
                value_size,
                max_entries: info.max_entries,
            },
        );
        Ok(())
    }
}

/// A map missing beside `settings` is a layout that we do not know.
fn missing(error: ViewError) -> ViewError {
    match error {
        ViewError::NotFound(path) => ViewError::Schema {
            path,
            found: "no such map".into(),
        },
        other => other,
    }
}

/// A directory `v<N>` beside the one we know.
fn other_version(bpffs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(bpffs).ok()?.flatten();
    entries.map(|e| e.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix('v')
            .and_then(|v| v.parse().ok())
            .is_some_and(|v: u32| v != SCHEMA_VERSION)
            && path.join("settings").exists()
    })
}

/// Number of CPUs that per-CPU maps have room for.
fn possible_cpus() -> Result<usize, ViewError> {
    aya::util::nr_cpus().map_err(|(path, source)| ViewError::Io {
        path: PathBuf::from(path),
        source,
    })
}
