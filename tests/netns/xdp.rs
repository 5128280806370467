//! The same with native XDP on the nodes' interfaces: clean packets never reach tc.

use lb_tests::cluster::Cluster;

use super::{own, published, transfer, vip};

#[test]
fn native_xdp_balances_alike() {
    let Some(cluster) = own(Cluster::builder().xdp("native")) else {
        return;
    };
    for node in cluster.nodes() {
        let status = node.admin("/v1/status").unwrap();
        let interfaces = status["items"][0]["datapath"]["interfaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let eth0 = interfaces.iter().find(|interface| interface["name"] == "eth0");
        let hooks = eth0
            .and_then(|interface| interface["hooks"].as_array())
            .cloned()
            .unwrap_or_default();
        let native = hooks
            .iter()
            .any(|hook| hook["hook"] == "xdp" && hook["mode"] == "native");
        assert!(native, "{}: {status}", node.name());
    }
    published::answers_everywhere(&cluster);
    published::udp_answers_everywhere(&cluster);
    vip::answers(&cluster);
    transfer::transfers(&cluster);
}
