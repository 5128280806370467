//! The namespaces and bridges of Swarm's chain for a published port whose task is on the node, as dockerd makes them:
//!
//! ```text
//! node: DNAT -- docker_gwbridge -- eth1 ingress_sbox: mark, IPVS, SNAT; eth0 -- br0 of the overlay's namespace -- task
//! ```

use anyhow::Result;
use lb_common::testing::frame::Mac;
use lb_tests::netns::Netns;

use super::rules;
use super::scene::{colons, far_end};

/// The sandbox's address on the gateway bridge.
pub(super) const SANDBOX: &str = "172.18.0.2";
/// Its address on the network `ingress`.
pub(super) const OWN: [u8; 4] = [10, 0, 0, 2];
/// The task's there.
pub(super) const TASK: [u8; 4] = [10, 0, 0, 3];
/// MAC of the sandbox's interface on that network.
pub(super) const OWN_MAC: Mac = [2, 0x42, 10, 0, 0, 2];

/// Builds the sandbox and the overlay's namespace; `far` is the task's, whose interface has this index and this MAC.
pub(super) fn build(node: &Netns, far: &Netns, index: u32, task_mac: Mac) -> Result<Vec<Netns>> {
    let (sandbox, overlay) = (Netns::new("sandbox")?, Netns::new("overlay")?);
    for netns in [&sandbox, &overlay] {
        netns.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        netns.route()?;
    }
    let (own, task) = (dotted(OWN), dotted(TASK));
    node.ip("link add docker_gwbridge type bridge\naddress add 172.18.0.1/16 dev docker_gwbridge")?;
    node.veth("gateway", &sandbox, "eth1")?;
    node.ip("link set gateway master docker_gwbridge up\nlink set docker_gwbridge up")?;
    overlay.ip("link add br0 type bridge\naddress add 10.0.0.1/24 dev br0")?;
    overlay.veth("veth0", &sandbox, "eth0")?;
    far_end(&overlay, "veth1", far, index)?;
    overlay.ip("link set veth0 master br0 up\nlink set veth1 master br0 up\nlink set br0 up")?;
    far.ip(&format!("link set if{index} address {}", colons(task_mac)))?;
    sandbox.ip(&format!(
        "link set eth0 address {} up\nlink set eth1 up\n\
         address add {own}/24 dev eth0\naddress add {SANDBOX}/16 dev eth1\n\
         route add default via 172.18.0.1\n\
         neighbour add {task} lladdr {} dev eth0 nud permanent",
        colons(OWN_MAC),
        colons(task_mac)
    ))?;
    rules::docker(node)?;
    rules::sandbox(&sandbox, &own, &task)?;
    Ok(vec![sandbox, overlay])
}

fn dotted(address: [u8; 4]) -> String {
    address.map(|byte| byte.to_string()).join(".")
}
