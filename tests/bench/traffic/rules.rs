//! The services as rules of iptables and nftables.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use lb_tests::cluster::{Cluster, Family};
use lb_tests::netns::Netns;

use super::plan::{BACKENDS, backend, filler, frontends, number, services, v4};

/// A chain for each service, as kube-proxy has them; the services under test are in the middle of the list.
pub(super) fn iptables(cluster: &Cluster, fillers: u16) -> String {
    let node = cluster.node(0).address(Family::V4);
    let (mut chains, mut first, mut own, mut rest, mut targets) = (
        "*nat\n".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    );
    for (here, protocol) in services() {
        let chain = format!("SVC-{}", number(here, protocol));
        let p = protocol.name();
        let _ = writeln!(chains, ":{chain} - [0:0]");
        for (address, port) in frontends(cluster, here, protocol) {
            let _ = writeln!(
                own,
                "-A PREROUTING -d {address}/32 -p {p} -m {p} --dport {port} -j {chain}"
            );
        }
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            targets,
            "-A {chain} -p {p} -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination {to}:{a}\n\
             -A {chain} -p {p} -j DNAT --to-destination {to}:{b}"
        );
    }
    for index in 0..fillers {
        let (vip, port) = filler(index);
        let list = if index < fillers / 2 { &mut first } else { &mut rest };
        let _ = writeln!(chains, ":SVC-F{index} - [0:0]");
        for (address, port) in [(node, port), (vip, 80)] {
            let _ = writeln!(
                list,
                "-A PREROUTING -d {address}/32 -p tcp -m tcp --dport {port} -j SVC-F{index}"
            );
        }
        let to = v4(backend(cluster, false));
        let _ = writeln!(
            targets,
            "-A SVC-F{index} -p tcp -j DNAT --to-destination {to}:{}",
            BACKENDS[0]
        );
    }
    chains + &first + &own + &rest + &targets + "COMMIT\n"
}

/// One map from frontend to chain: the way nftables is meant to be used.
pub(super) fn nftables(cluster: &Cluster, fillers: u16) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for (here, protocol) in services() {
        let (number, p, to) = (number(here, protocol), protocol.name(), v4(backend(cluster, here)));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            chains,
            "chain svc{number} {{ meta l4proto {p} dnat ip to numgen inc mod 2 map {{ 0 : {to} . {a}, 1 : {to} . {b} }}; }}"
        );
        for (address, port) in frontends(cluster, here, protocol) {
            elements.push(format!("{address} . {p} . {port} : goto svc{number}"));
        }
    }
    let node = cluster.node(0).address(Family::V4);
    for index in 0..fillers {
        let (vip, port) = filler(index);
        let to = v4(backend(cluster, false));
        let _ = writeln!(
            chains,
            "chain filler{index} {{ meta l4proto tcp dnat ip to {to}:{}; }}",
            BACKENDS[0]
        );
        elements.push(format!("{node} . tcp . {port} : goto filler{index}"));
        elements.push(format!("{vip} . tcp . 80 : goto filler{index}"));
    }
    format!(
        "table ip balance {{\n{chains}\
         map services {{ type ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }} }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;\n\
         ip daddr . meta l4proto . th dport vmap @services; }}\n}}\n",
        elements.join(",\n")
    )
}

/// Runs a program in a namespace with this input.
pub(crate) fn feed(netns: &Netns, command: &mut Command, input: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, input.as_bytes())?;
    command.stdin(Stdio::from(file.reopen()?));
    let output = netns.run(|| command.output())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        error.lines().take(5).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}
