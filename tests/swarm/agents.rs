//! Agents on the nodes of a Swarm: they start, stop, die, come back and leave.

use std::net::SocketAddr;

use lb_tests::client::get;
use lb_tests::swarm::Swarm;

use super::own;

#[test]
fn traffic_goes_on_while_agents_stop_die_and_come_back_and_ends_when_they_leave() {
    let Some(swarm) = own(Swarm::builder().nodes(2)) else {
        return;
    };
    let web = swarm.service("web", &["--publish", "80"]).unwrap();
    swarm.wait_serving(&web, 1).unwrap();
    let port = web.published("tcp", 80).unwrap();
    let everywhere = || {
        for node in swarm.nodes() {
            let target = SocketAddr::new(node.address(), port);
            let answer = swarm.client(0).netns().run(|| get(target));
            assert_eq!(answer.unwrap().peer.ip(), swarm.client(0).address(), "{}", node.name());
        }
    };
    everywhere();

    assert!(swarm.stop_agent(0).unwrap().success());
    assert!(!swarm.kill_agent(1).unwrap().success());
    everywhere();
    assert!(swarm.lbctl_json(0, &["status"]).unwrap()["source"] == "maps");

    swarm.start_agents().unwrap();
    everywhere();
    assert!(swarm.lbctl_json(0, &["status"]).unwrap()["source"] == "agent");

    for index in 0..2 {
        swarm.stop_agent(index).unwrap();
        swarm.uninstall_agent(index).unwrap();
        let target = SocketAddr::new(swarm.node(index).address(), port);
        let error = swarm.client(0).netns().run(|| get(target)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
