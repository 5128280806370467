//! Names below the pin directory, and whether a pinned map is the one that the object describes.

use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_map_info;
use lb_common::abi::{self, InterfaceKey, NAMESPACE_NODE, SCHEMA_VERSION, Table};

/// Directory of this version's pins.
pub fn versioned(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("v{SCHEMA_VERSION}"))
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

/// Maps whose capacity is configured.
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

/// Compares a pinned map with what the object expects; the capacity of flow tables may differ.
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
            if is_flow_table(map) {
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
