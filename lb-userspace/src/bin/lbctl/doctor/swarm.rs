//! Checks of a node in a Docker Swarm.

use lb_userspace::provider::docker::{Part, Role};

use super::facts::Facts;
use super::facts::swarm::Swarm;
use super::{CAP_SYS_ADMIN, Report};

/// Drivers that send wrong checksums inside VXLAN packets to this port while the card sums up.
const CARELESS_DRIVERS: &[&str] = &["vmxnet3"];
/// Port of Docker's own overlays, unless `docker swarm init --data-path-port` says otherwise.
const OVERLAY_PORT: u16 = 4789;

/// All of them, in the order in which a cause comes before what it causes.
pub(super) fn judge(swarm: &Swarm, facts: &Facts, report: &mut Report) {
    let role = engine(swarm, report);
    namespaces(swarm, facts, report);
    if let Some(role) = role {
        stream(swarm, role, report);
    }
    paths(swarm, facts.tunnel_mtu, report);
    cards(swarm, report);
}

/// The node's role, if the engine tells it and it has one.
fn engine<'a>(swarm: &'a Swarm, report: &mut Report) -> Option<&'a Role> {
    let answer = match &swarm.engine {
        Ok(answer) => answer,
        Err(why) => {
            let fix = "start dockerd 20.10 or newer; provider.socket names its socket, which a container must mount, and \
                       lbctl must run as root or in the group docker";
            report.fail("engine", why, fix);
            return None;
        }
    };
    report.pass("engine", format!("{} speaks API {}", swarm.socket, answer.api));
    let managers = answer.role.managers.len();
    match &answer.role.part {
        Part::Manager => report.pass("swarm", format!("this node is one of {managers} managers")),
        Part::Worker => report.pass("swarm", format!("this node is a worker of {managers} managers")),
        Part::None(why) => {
            report.fail("swarm", why, "docker swarm join; or provider.kind = \"file\"");
            return None;
        }
        Part::Unknown => {
            report.warn("swarm", "the engine does not tell its role", "docker info");
            return None;
        }
    }
    Some(&answer.role)
}

fn namespaces(swarm: &Swarm, facts: &Facts, report: &mut Report) {
    let directory = swarm.directory.display();
    let mount = "in a container, bind-mount the node's directory there with propagation rslave";
    match &swarm.namespaces {
        Err(why) => report.fail(
            "namespaces",
            format!("{directory}: {why}"),
            format!("provider.exec_root must be dockerd's --exec-root, and lbctl run as root; {mount}"),
        ),
        Ok(found) if found.mounted == 0 && found.empty > 0 => {
            let finding = format!("{directory}: nothing is mounted on any of {} files", found.empty);
            report.fail("namespaces", finding, mount);
        }
        Ok(found) if found.empty > 0 && !found.follows => report.warn(
            "namespaces",
            format!("{directory}: containers that started later may not be seen here"),
            mount,
        ),
        Ok(found) if found.mounted == 0 => report.warn(
            "namespaces",
            format!("{directory} is empty"),
            "provider.exec_root must be dockerd's --exec-root",
        ),
        Ok(found) => report.pass("namespaces", format!("{directory}: {}", found.mounted)),
    }
    if facts.capabilities.is_some_and(|has| has & (1 << CAP_SYS_ADMIN) == 0) {
        report.fail(
            "namespaces",
            "the agent lacks CAP_SYS_ADMIN, without which it cannot enter namespaces: VIPs are not balanced",
            "grant it in the unit's AmbientCapabilities or the container's cap_add",
        );
    }
}

fn stream(swarm: &Swarm, role: &Role, report: &mut Report) {
    let worker = role.part == Part::Worker;
    match &swarm.identity {
        None if worker => report.fail(
            "stream",
            "the stream between agents is off: a worker's engine knows neither protocols of ports nor who is draining",
            "set stream.secret_file on every node (docs/stream.md)",
        ),
        None => report.warn(
            "stream",
            "the stream between agents is off: workers do not get the state of the Swarm",
            "set stream.secret_file on every node (docs/stream.md), unless every node is a manager",
        ),
        Some(Err(why)) => report.fail("stream", why, "`lb-agent config check` says what it must be"),
        Some(Ok(())) if swarm.managers.is_empty() => report.pass("stream", "there is no other manager"),
        Some(Ok(())) => {}
    }
    let deaf = swarm.managers.iter().filter(|(_, result)| result.is_err()).count();
    for (address, result) in &swarm.managers {
        let Err(why) = result else {
            report.pass("stream", format!("{address} accepts connections"));
            continue;
        };
        let finding = format!("{address}: {why}");
        let fix = format!(
            "see that an agent runs there with stream.listen, and let TCP port {} through from every node",
            address.port()
        );
        if worker && deaf == swarm.managers.len() {
            report.fail("stream", finding, fix);
        } else {
            report.warn("stream", finding, fix);
        }
    }
}

fn paths(swarm: &Swarm, tunnel_mtu: Option<u16>, report: &mut Report) {
    let needed = tunnel_mtu.map_or(0, u32::from);
    let mut good = 0;
    for (node, mtu) in &swarm.paths {
        match mtu {
            Ok(mtu) if *mtu < needed => report.fail(
                "tunnel-path",
                format!("packets to {node} may have {mtu} bytes, the tunnel assumes {needed}"),
                format!("`ip route get {node}` shows where it gets narrow; the narrowest node interface decides about the tunnel"),
            ),
            Ok(_) => good += 1,
            Err(why) => report.fail(
                "tunnel-path",
                format!("no way to {node}: {why}"),
                format!("`ip route get {node}`"),
            ),
        }
    }
    if good > 0 {
        // The tunnel has no socket that would answer.
        let finding = format!(
            "routes and sizes fit to {good} of {} nodes; whether firewalls let UDP port {} through is not seen from here",
            swarm.paths.len(),
            swarm.tunnel_port
        );
        report.pass("tunnel-path", finding);
    }
}

fn cards(swarm: &Swarm, report: &mut Report) {
    for (interface, card) in &swarm.cards {
        if card.sums && CARELESS_DRIVERS.contains(&card.driver.as_str()) {
            let finding = format!(
                "{interface}: {} is known to send wrong checksums inside tunnels on UDP port {OVERLAY_PORT}: ping works, TCP \
                 between nodes does not",
                card.driver
            );
            let fix = format!(
                "ethtool --offload {interface} tx-checksum-ip-generic off, or `docker swarm init --data-path-port` with \
                 another port"
            );
            report.warn("offload", finding, fix);
        } else {
            let sums = if card.sums { "on" } else { "off" };
            report.pass(
                "offload",
                format!("{interface}: {}, checksums by the card {sums}", card.driver),
            );
        }
    }
}

#[cfg(test)]
#[path = "swarm_tests.rs"]
mod tests;
