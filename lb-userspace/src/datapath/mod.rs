//! Loads, attaches and adopts the programs, and reads and writes the maps: the only user of aya.
//!
//! | module | does |
//! |---|---|
//! | [`load`] | object over pinned maps to loaded programs |
//! | [`attach`] | programs to interfaces, links to pins |
//! | [`store`] | tables for plans |
//! | [`collect`] | expiry and census of flows |
//! | [`probe`] | what the kernel can do |
//! | [`remove`] | takes everything away |
//! | [`view`] | maps, links and programs for readers |

pub mod attach;
mod bpffs;
pub mod clock;
pub mod collect;
pub mod layout;
pub mod load;
pub mod probe;
pub mod remove;
pub mod store;
mod sys;
pub mod view;

/// The eBPF object that this program was built with; empty if it was built without one.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT_PATH"));
