//! Names below the pin directory, and whether a pinned map is the one that the object describes.

use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_map_info;
use lb_common::abi::{self, InterfaceKey, NAMESPACE_NODE, SCHEMA_VERSION, Table};

/// Tables by the schema version since which their rows mean what they mean now, with the bytes of a key and of a value.
/// Whoever changes a row writes the new version and sizes here; a table that is not listed counts as changed. What has not
/// changed goes on in the next version, with all that it holds ([`super::load::load`]).
const SAME_SINCE: &[(&str, u32, usize, usize)] = &[
    ("settings", 3, 4, 52),
    ("interfaces", 3, 16, 16),
    ("frontends", 3, 24, 8),
    ("services", 3, 4, 32),
    ("slots", 3, 12, 4),
    ("cursors", 3, 4, 8),
    ("backends", 3, 4, 64),
    ("local_backends", 3, 24, 4),
    ("nodes", 3, 4, 40),
    ("addresses", 3, 16, 8),
    ("vips", 3, 20, 4),
    ("sources", 4, 24, 4),
    ("flows4", 5, 16, 32),
    ("flows6", 5, 40, 32),
    ("replies4", 5, 16, 48),
    ("replies6", 5, 40, 48),
    ("overflow4", 5, 16, 32),
    ("overflow6", 5, 40, 32),
    ("overflow_replies4", 5, 16, 48),
    ("overflow_replies6", 5, 40, 48),
    ("pressure", 5, 4, 8),
    ("path_mtus", 6, 4, 8),
    ("marks", 6, 4, 8),
    ("ports", 7, 4, 8),
    (abi::COUNTERS, 3, 4, 16),
    (abi::SERVICE_COUNTERS, 3, 4, 40),
];

/// The layout's version: [`SCHEMA_VERSION`]. In builds with debug assertions `LB_LAYOUT=<version>` or
/// `LB_LAYOUT=<version>:<table>,...` stands for a later one, in which the rows of those tables are new: for tests of
/// upgrades.
pub fn version() -> u32 {
    pretended().map_or(SCHEMA_VERSION, |(version, _)| *version)
}

/// Since which version a table's rows are as they are now, as far as that is known.
pub(super) fn same_since(table: &str) -> Option<u32> {
    match pretended() {
        Some((version, tables)) if tables.iter().any(|name| name == table) => Some(*version),
        _ => SAME_SINCE
            .iter()
            .find(|(name, ..)| *name == table)
            .map(|(_, since, ..)| *since),
    }
}

#[cfg(debug_assertions)]
fn pretended() -> Option<&'static (u32, Vec<String>)> {
    use std::sync::LazyLock;
    static PRETENDED: LazyLock<Option<(u32, Vec<String>)>> = LazyLock::new(|| {
        let text = std::env::var("LB_LAYOUT").ok()?;
        let (version, tables) = text.split_once(':').unwrap_or((&text, ""));
        let tables = tables.split(',').map(str::to_owned);
        Some((
            version.parse().expect("LB_LAYOUT=<version>[:<table>,...]"),
            tables.collect(),
        ))
    });
    PRETENDED.as_ref()
}

#[cfg(not(debug_assertions))]
const fn pretended() -> Option<&'static (u32, Vec<String>)> {
    None
}

/// Directory of this version's pins.
pub fn versioned(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("v{}", version()))
}

/// Directories of other versions' pins, the newest first.
pub fn others(bpffs: &Path) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(bpffs).into_iter().flatten().flatten();
    let mut others: Vec<_> = entries
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.strip_prefix('v')?.parse().ok()?;
            (version != self::version()).then(|| (version, entry.path()))
        })
        .collect();
    others.sort_by(|(a, _), (b, _)| b.cmp(a));
    others
}

/// Directory of the pinned programs.
pub fn programs(directory: &Path) -> PathBuf {
    directory.join("programs")
}

/// Directory of the pinned links.
pub fn links(directory: &Path) -> PathBuf {
    directory.join("links")
}

/// Pin of one link: `<hook>-<ifindex>`, in another network namespace `<hook>-<its cookie, hexadecimal>-<ifindex>` (names
/// with a dot are reserved by the kernel).
pub fn link(directory: &Path, hook: &str, interface: InterfaceKey) -> PathBuf {
    let InterfaceKey { namespace, ifindex, .. } = interface;
    links(directory).join(match namespace {
        NAMESPACE_NODE => format!("{hook}-{ifindex}"),
        _ => format!("{hook}-{namespace:x}-{ifindex}"),
    })
}

/// Hook and interface from the name of a link's pin.
pub fn parse_link(name: &str) -> Option<(&str, InterfaceKey)> {
    let mut parts = name.split('-');
    let hook = parts.next()?;
    let last = parts.next_back()?;
    let namespace = match parts.next() {
        Some(cookie) => u64::from_str_radix(cookie, 16).ok()?,
        None => NAMESPACE_NODE,
    };
    if parts.next().is_some() {
        return None;
    }
    Some((hook, InterfaceKey::new(namespace, last.parse().ok()?)))
}

/// Maps that are pinned: all that user space reads. Scratch space of the programs is not.
pub fn is_pinned(map: &str) -> bool {
    abi::TABLE_NAMES.contains(&map) || [abi::COUNTERS, abi::SERVICE_COUNTERS, abi::JUMPS, abi::FRAGMENTS].contains(&map)
}

/// Overflow tables, whose capacity is configured too.
pub fn is_overflow_table(map: &str) -> bool {
    [
        abi::Overflow4::NAME,
        abi::Overflow6::NAME,
        abi::OverflowReplies4::NAME,
        abi::OverflowReplies6::NAME,
    ]
    .contains(&map)
}

/// Flow tables, whose capacity is configured.
pub fn is_flow_table(map: &str) -> bool {
    [
        abi::Flows4::NAME,
        abi::Flows6::NAME,
        abi::Replies4::NAME,
        abi::Replies6::NAME,
    ]
    .contains(&map)
}

/// What the object or the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl From<&aya_obj::Map> for Shape {
    fn from(map: &aya_obj::Map) -> Self {
        Self {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        }
    }
}

impl From<&bpf_map_info> for Shape {
    fn from(info: &bpf_map_info) -> Self {
        Self {
            map_type: info.type_,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags: info.map_flags,
        }
    }
}

/// Compares a pinned map with what the object expects; the capacity of flow and overflow tables may differ.
///
/// # Errors
/// Names the first property that differs, with both values.
pub(super) fn check(map: &str, expected: &Shape, found: &Shape) -> Result<(), String> {
    let properties = [
        ("type", expected.map_type, found.map_type),
        ("key size", expected.key_size, found.key_size),
        ("value size", expected.value_size, found.value_size),
        ("flags", expected.flags, found.flags),
        (
            "capacity",
            if is_flow_table(map) || is_overflow_table(map) {
                found.max_entries
            } else {
                expected.max_entries
            },
            found.max_entries,
        ),
    ];
    match properties.into_iter().find(|(_, expected, found)| expected != found) {
        Some((property, expected, found)) => Err(format!("its {property} is {found}, not {expected}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_round_trip() {
        let path = link(Path::new("/b/v1"), "tc_node", InterfaceKey::node(7));
        assert_eq!(path, Path::new("/b/v1/links/tc_node-7"));
        assert_eq!(parse_link("tc_node-7"), Some(("tc_node", InterfaceKey::node(7))));
        let elsewhere = InterfaceKey::new(0x1_0000_00ab, 7);
        let path = link(Path::new("/b/v1"), "from_workload", elsewhere);
        assert_eq!(path, Path::new("/b/v1/links/from_workload-1000000ab-7"));
        assert_eq!(
            parse_link("from_workload-1000000ab-7"),
            Some(("from_workload", elsewhere))
        );
        assert_eq!(parse_link("from_workload-1-2-7"), None);
        assert_eq!(parse_link("tc_node"), None);
        assert_eq!(parse_link("tc_node-x"), None);
    }

    /// If this fails, rows have changed: their line in the list gets the new sizes and the new version.
    #[test]
    fn the_list_has_every_table_with_its_sizes() {
        let mut listed = SAME_SINCE.iter();
        macro_rules! same {
            ($($table:ident)*) => { $(
                let row = listed.next().expect("a row");
                let sizes = (size_of::<<abi::$table as Table>::Key>(), size_of::<<abi::$table as Table>::Value>());
                assert_eq!((row.0, row.2, row.3), (<abi::$table as Table>::NAME, sizes.0, sizes.1));
            )* };
        }
        same!(SettingsTable Interfaces Frontends Services Slots Cursors Backends LocalBackends Nodes Addresses Vips Sources);
        same!(Flows4 Flows6 Replies4 Replies6);
        same!(Overflow4 Overflow6 OverflowReplies4 OverflowReplies6 PressureTable PathMtus Marks Ports);
        assert_eq!(listed.next().map(|row| row.3), Some(size_of::<abi::Counter>()));
        assert_eq!(listed.next().map(|row| row.3), Some(size_of::<abi::ServiceCounter>()));
        assert!(listed.next().is_none());
        assert!(
            SAME_SINCE
                .iter()
                .all(|(name, since, ..)| is_pinned(name) && *since <= SCHEMA_VERSION)
        );
        assert_eq!(SAME_SINCE.len(), abi::TABLE_NAMES.len() + 2);
    }

    #[test]
    fn other_versions_are_found_newest_first() {
        let bpffs = tempfile::tempdir().expect("a directory");
        for name in ["v1", "v2", "v10", "vx", "other", &format!("v{SCHEMA_VERSION}")] {
            std::fs::create_dir(bpffs.path().join(name)).expect("made");
        }
        let versions: Vec<_> = others(bpffs.path()).into_iter().map(|(version, _)| version).collect();
        assert_eq!(versions, [10, 2, 1]);
        assert!(others(&bpffs.path().join("none")).is_empty());
    }

    #[test]
    fn the_version_is_in_the_path() {
        assert_eq!(
            versioned(Path::new("/b")),
            PathBuf::from(format!("/b/v{SCHEMA_VERSION}"))
        );
    }

    #[test]
    fn a_map_of_another_layout_is_refused() {
        let shape = Shape {
            map_type: 1,
            key_size: 16,
            value_size: 32,
            max_entries: 10,
            flags: 1,
        };
        let same = Shape {
            map_type: 1,
            key_size: 16,
            value_size: 32,
            max_entries: 10,
            flags: 1,
        };
        assert_eq!(check("flows4", &shape, &same), Ok(()));
        assert_eq!(
            check(
                "flows4",
                &shape,
                &Shape {
                    max_entries: 99,
                    ..same
                }
            ),
            Ok(())
        );
        assert_eq!(
            check(
                "frontends",
                &shape,
                &Shape {
                    max_entries: 99,
                    ..same
                }
            ),
            Err("its capacity is 99, not 10".into())
        );
        for (found, word) in [
            (Shape { map_type: 2, ..same }, "type"),
            (Shape { key_size: 40, ..same }, "key size"),
            (Shape { value_size: 8, ..same }, "value size"),
            (Shape { flags: 0, ..same }, "flags"),
        ] {
            assert!(check("flows4", &shape, &found).unwrap_err().contains(word));
        }
    }
}
