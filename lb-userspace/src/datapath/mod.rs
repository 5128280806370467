//! Loads, attaches and adopts the programs, and reads and writes the maps: the only user of aya.
//!
//! | module | does |
//! |---|---|
//! | `carry` | tables of an earlier version go on in this one |
//! | [`load`] | object over pinned maps to loaded programs |
//! | [`attach`] | programs to interfaces, links to pins |
//! | [`store`] | tables for plans |
//! | [`marks`] | ports on which other versions have left frontends and flows, or replies |
//! | [`shed`] | datagrams leave what drains in their service alone |
//! | [`collect`] | expiry and census of flows |
//! | [`probe`] | what the kernel can do |
//! | [`remove`] | takes everything away |
//! | [`view`] | maps, links and programs for readers |

pub mod attach;
mod bpffs;
mod carry;
pub mod clock;
pub mod collect;
pub mod layout;
pub mod load;
pub mod marks;
pub mod probe;
pub mod remove;
pub mod shed;
pub mod store;
mod sys;
pub mod view;
mod walk;

/// The eBPF object that this program was built with; empty if it was built without one.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT_PATH"));

/// [`OBJECT`]. Builds with debug assertions load another one if `LB_OBJECT` names its file: for tests of upgrades.
///
/// # Panics
/// If that file cannot be read.
pub fn object() -> &'static [u8] {
    #[cfg(debug_assertions)]
    {
        static OTHER: std::sync::LazyLock<Option<Vec<u8>>> = std::sync::LazyLock::new(|| {
            let path = std::env::var_os("LB_OBJECT")?;
            Some(std::fs::read(&path).unwrap_or_else(|error| panic!("LB_OBJECT={}: {error}", path.display())))
        });
        if let Some(other) = OTHER.as_ref() {
            return other;
        }
    }
    OBJECT
}
