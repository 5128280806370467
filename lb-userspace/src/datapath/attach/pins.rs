//! Pinned links: what keeps programs attached when the agent has ended.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use lb_common::abi::InterfaceKey;

use crate::datapath::sys::{self, LinkTarget};
use crate::datapath::{carry, layout};

/// Hooks and interfaces of the links pinned below `directory`.
pub fn pinned_links(directory: &Path) -> Vec<(String, InterfaceKey)> {
    let Ok(entries) = fs::read_dir(layout::links(directory)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            layout::parse_link(&name).map(|(hook, interface)| (hook.to_owned(), interface))
        })
        .collect()
}

/// Interface index of a pinned link: 0 if its interface is gone, `None` if there is no such pin.
pub(super) fn link_at(pin: &Path) -> Option<u32> {
    let fd = sys::open_pin(pin, sys::READ_WRITE).ok()?;
    match sys::link_target(&sys::link_info(fd.as_fd()).ok()?) {
        LinkTarget::Xdp { ifindex } | LinkTarget::Tcx { ifindex, .. } => Some(ifindex),
        LinkTarget::Other => Some(0),
    }
}

/// Detaches what another version has attached and nobody wants any more, and removes its pins.
pub(super) fn retire(directory: &Path) -> io::Result<()> {
    for (hook, interface) in pinned_links(directory) {
        remove_link(&layout::link(directory, &hook, interface))?;
    }
    carry::retire(directory)
}

/// Detaches a pinned link and removes its pin. None there is no error.
pub(in crate::datapath) fn remove_link(pin: &Path) -> io::Result<()> {
    if let Ok(fd) = sys::open_pin(pin, sys::READ_WRITE) {
        // Fails if its interface is gone already, or on kernels that cannot: then it goes with its pin.
        let _ = sys::detach_link(fd.as_fd());
    }
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
