//! The balancers that the kernel has, set up for one published port of the node; and Swarm's chain as dockerd makes it.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;
use lb_tests::netns::Netns;

use super::scene::{BACKEND_PORTS, backend, published};
use super::swarm::SANDBOX;
use crate::packages;
use crate::traffic::rules::feed;

/// Mark of the service's packets: dockerd counts from 256.
const MARK: u32 = 256;

/// A chain of two targets, taken in turn.
pub(super) fn iptables(node: &Netns) -> Result<()> {
    let (frontend, to, [a, b]) = (published(), backend(), BACKEND_PORTS);
    let (address, port) = (frontend.ip(), frontend.port());
    restore(
        node,
        &format!(
            "*nat\n:SVC - [0:0]\n\
             -A PREROUTING -d {address}/32 -p tcp -m tcp --dport {port} -j SVC\n\
             -A SVC -p tcp -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination {to}:{a}\n\
             -A SVC -p tcp -j DNAT --to-destination {to}:{b}\nCOMMIT\n"
        ),
    )
}

/// A map from frontends to chains, with a generator of numbers.
pub(super) fn nftables(node: &Netns) -> Result<()> {
    let (frontend, to, [a, b]) = (published(), backend(), BACKEND_PORTS);
    let (address, port) = (frontend.ip(), frontend.port());
    let rules = format!(
        "table ip balance {{\n\
         chain svc {{ meta l4proto tcp dnat ip to numgen inc mod 2 map {{ 0 : {to} . {a}, 1 : {to} . {b} }}; }}\n\
         map services {{ type ipv4_addr . inet_proto . inet_service : verdict\n\
         elements = {{ {address} . tcp . {port} : goto svc }} }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;\n\
         ip daddr . meta l4proto . th dport vmap @services; }}\n}}\n"
    );
    feed(node, Command::new(packages::find("nft")?).args(["-f", "-"]), &rules)
}

/// IPVS by itself: round robin and masquerading.
pub(super) fn ipvs(node: &Netns, conntrack: bool) -> Result<()> {
    if conntrack {
        node.sysctl("ipv4.vs.conntrack", "1")?;
        // Connections are tracked where a rule asks for it; what clients send does not come to this one.
        restore(
            node,
            "*filter\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n",
        )?;
    }
    let mut lines = format!("-A -t {} -s rr\n", published());
    for port in BACKEND_PORTS {
        let _ = writeln!(lines, "-a -t {} -r {}:{port} -m -w 1", published(), backend());
    }
    ipvsadm(node, &lines)
}

/// What dockerd writes on a node of a Swarm for a published port.
pub(super) fn docker(node: &Netns) -> Result<()> {
    let port = published().port();
    restore(
        node,
        &format!(
            "*nat\n:DOCKER - [0:0]\n:DOCKER-INGRESS - [0:0]\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-INGRESS\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER-INGRESS\n\
             -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A POSTROUTING -o docker_gwbridge -m addrtype --src-type LOCAL -j MASQUERADE\n\
             -A POSTROUTING -s 172.18.0.0/16 ! -o docker_gwbridge -j MASQUERADE\n\
             -A DOCKER -i docker_gwbridge -j RETURN\n\
             -A DOCKER-INGRESS -p tcp -m tcp --dport {port} -j DNAT --to-destination {SANDBOX}:{port}\n\
             -A DOCKER-INGRESS -j RETURN\nCOMMIT\n\
             *filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-INGRESS - [0:0]\n:DOCKER-USER - [0:0]\n\
             :DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n\
             -A FORWARD -j DOCKER-USER\n\
             -A FORWARD -j DOCKER-INGRESS\n\
             -A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
             -A FORWARD -o docker_gwbridge -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A FORWARD -o docker_gwbridge -j DOCKER\n\
             -A FORWARD -i docker_gwbridge ! -o docker_gwbridge -j ACCEPT\n\
             -A FORWARD -i docker_gwbridge -o docker_gwbridge -j DROP\n\
             -A DOCKER-INGRESS -p tcp -m tcp --dport {port} -j ACCEPT\n\
             -A DOCKER-INGRESS -p tcp -m tcp --sport {port} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A DOCKER-INGRESS -j RETURN\n\
             -A DOCKER-ISOLATION-STAGE-1 -i docker_gwbridge ! -o docker_gwbridge -j DOCKER-ISOLATION-STAGE-2\n\
             -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n\
             -A DOCKER-ISOLATION-STAGE-2 -o docker_gwbridge -j DROP\n\
             -A DOCKER-ISOLATION-STAGE-2 -j RETURN\n\
             -A DOCKER-USER -j RETURN\nCOMMIT\n"
        ),
    )
}

/// What dockerd writes in the sandbox of the network `ingress`: mark, IPVS, SNAT.
pub(super) fn sandbox(sandbox: &Netns, own: &str, task: &str) -> Result<()> {
    let port = published().port();
    restore(
        sandbox,
        &format!(
            "*mangle\n-A PREROUTING -p tcp -m tcp --dport {port} -j MARK --set-xmark {MARK:#x}/0xffffffff\nCOMMIT\n\
             *nat\n-A POSTROUTING -d 10.0.0.0/24 -m ipvs --ipvs -j SNAT --to-source {own}\nCOMMIT\n"
        ),
    )?;
    for (key, value) in [
        ("conntrack", "1"),
        ("conn_reuse_mode", "0"),
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "1"),
    ] {
        sandbox.sysctl(&format!("ipv4.vs.{key}"), value)?;
    }
    ipvsadm(
        sandbox,
        &format!("-A -f {MARK} -s rr\n-a -f {MARK} -r {task} -m -w 1\n"),
    )
}

fn restore(netns: &Netns, rules: &str) -> Result<()> {
    // By its own name: which of the two kinds `iptables` is, a machine's own settings say, and the guest has none.
    let program = packages::find("iptables-nft-restore")?;
    feed(netns, Command::new(program).arg("--noflush"), rules)
}

fn ipvsadm(netns: &Netns, lines: &str) -> Result<()> {
    feed(netns, Command::new(packages::find("ipvsadm")?).arg("--restore"), lines)
}
