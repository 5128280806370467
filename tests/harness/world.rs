//! The world's interfaces, routes and neighbours in a namespace, so that the kernel's own lookup finds what the world says.

use std::fmt::Write as _;

use anyhow::Result;
use lb_common::tables::NextHop;
use lb_common::testing::tables::{MemoryTables, Path};
use lb_common::testing::world::{Case, NODE_IF, World, mac};

use crate::netns::Netns;

/// Builds the namespace.
///
/// # Errors
/// Without root, or without iproute2.
pub fn build() -> Result<Netns> {
    let netns = Netns::new("packet")?;
    netns.route()?;
    let tables = World::new().tables;
    let mut lines = String::new();
    for ifindex in tables.interfaces.keys().map(|key| key.ifindex) {
        let mac = colons(mac(ifindex));
        let peer = ifindex + 100;
        // Nothing is sent. The MTU is out of the way of buffers with several segments.
        writeln!(
            lines,
            "link add if{ifindex} index {ifindex} address {mac} mtu 65535 type veth peer name if{peer} index {peer}\n\
             link set if{peer} mtu 65535 up\nlink set if{ifindex} up"
        )?;
    }
    for case in Case::UDP {
        let bits = if case.v6 { 128 } else { 32 };
        writeln!(lines, "address add {}/{bits} dev if{NODE_IF}", case.node(1))?;
    }
    for path in &tables.paths {
        writeln!(lines, "route add {}", route(path))?;
        if path.route.hop == NextHop::Resolved {
            let next = path.gateway.unwrap_or(path.destination).to_ip();
            let (mac, ifindex) = (colons(path.route.destination), path.route.ifindex);
            writeln!(
                lines,
                "neighbour replace {next} lladdr {mac} dev if{ifindex} nud permanent"
            )?;
        }
    }
    netns.ip(&lines)?;
    Ok(netns)
}

/// Changes what a fixture's own paths change; what is returned undoes it.
///
/// # Errors
/// If a route cannot be changed.
///
/// # Panics
/// If the fixture adds something other than an unreachable route.
pub fn adapt(netns: &Netns, tables: &MemoryTables) -> Result<String> {
    let base = World::new().tables.paths;
    let (mut lines, mut undo) = (String::new(), String::new());
    for path in tables.paths.iter().skip(base.len()) {
        assert_eq!(path.route.hop, NextHop::None, "a fixture adds nothing else");
        let target = prefix(path);
        writeln!(undo, "route delete unreachable {target}")?;
        if let Some(hidden) = base
            .iter()
            .find(|b| b.destination == path.destination && b.bits == path.bits)
        {
            writeln!(lines, "route delete {}", route(hidden))?;
            writeln!(undo, "route add {}", route(hidden))?;
        }
        writeln!(lines, "route add unreachable {target}")?;
    }
    if !lines.is_empty() {
        netns.ip(&lines)?;
    }
    Ok(undo)
}

fn prefix(path: &Path) -> String {
    format!("{}/{}", path.destination.to_ip(), path.bits)
}

fn route(path: &Path) -> String {
    let dev = path.route.ifindex;
    match path.gateway {
        Some(gateway) => format!("{} via {} dev if{dev} onlink", prefix(path), gateway.to_ip()),
        None => format!("{} dev if{dev}", prefix(path)),
    }
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
