//! Real sockets through the real agents, in network namespaces: what clients, backends and operators see.
//!
//! | module | what it holds to |
//! |---|---|
//! | `topology` | the harness itself: who reaches whom without any service |
//! | `published` | ports on every node |
//! | `filter` | published ports that choose their clients |
//! | `gateway` | clients behind a bridge whose subnet every node has |
//! | `host` | the node's own processes as clients of published ports |
//! | `vip` | addresses inside networks |
//! | `backends` | weights, drain, refusals, removal, none at all |
//! | `errors` | ICMP errors: closed ports, narrow paths |
//! | `drain` | what a draining backend keeps, and how that ends |
//! | `lifecycle` | the agent stops, dies, comes back, goes for good |
//! | `faults` | live flows while the agent dies, programs, tables and cluster state change |
//! | `flood` | forged SYNs and datagrams that fill the flow tables |
//! | `transfer` | large bodies, segment sizes, TTL |
//! | `names`, `names_load` | DNS; the same under load |
//! | `cluster_file` | reload, automatic ports, invalid documents |
//! | `operator` | lbctl, metrics, health |
//! | `rest` | an agent with nothing to do |
//! | `scale` | thousands of services, a thousand changes a second |
//! | `xdp` | the same with native XDP on the nodes |

mod backends;
mod cluster_file;
mod drain;
mod errors;
mod faults;
mod filter;
mod flood;
mod gateway;
mod host;
mod lifecycle;
mod names;
mod names_load;
mod operator;
mod published;
mod rest;
mod scale;
mod topology;
mod transfer;
mod vip;
mod xdp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use lb_tests::client::{Answer, Connection, Udp};
use lb_tests::cluster::{Builder, Cluster};
use lb_tests::netns::Netns;
use lb_tests::require;
use lb_tests::scene::Scene;

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The cluster that tests share whose services do not get in each other's way; none where it cannot run.
fn shared() -> Option<Scene> {
    if !require::datapath() {
        return None;
    }
    let cluster = Cluster::shared(&SHARED, Cluster::builder().upstreams(&[names::UPSTREAM]));
    Some(Scene::new(cluster.expect("a cluster")).expect("captures"))
}

/// A cluster of the test's own; none where it cannot run.
fn own(builder: Builder) -> Option<Scene> {
    if !require::datapath() {
        return None;
    }
    Some(Scene::new(Arc::new(builder.start().expect("a cluster"))).expect("captures"))
}

/// Asks over a new TCP connection from inside `netns`, and sees to it that the backend sees the client itself.
fn ask_seen(netns: &Netns, target: SocketAddr) -> io::Result<Answer> {
    netns.run(|| {
        let mut connection = Connection::open(target)?;
        let own = connection.local_address()?;
        let answer = connection.ask()?;
        assert_eq!(
            answer.peer, own,
            "{} sees another client than the one that asks {target}",
            answer.backend
        );
        Ok(answer)
    })
}

/// As [`ask_seen`], over UDP.
fn ask_udp_seen(netns: &Netns, target: SocketAddr) -> io::Result<Answer> {
    netns.run(|| {
        let socket = Udp::open(target)?;
        let own = socket.local_address()?;
        let answer = socket.ask(std::time::Duration::from_secs(2))?;
        assert_eq!(
            answer.peer, own,
            "{} sees another client than the one that asks {target}",
            answer.backend
        );
        Ok(answer)
    })
}

/// Every backend answered, as often as every other, give or take one.
#[track_caller]
fn assert_even(counts: &BTreeMap<String, usize>, backends: &[String]) {
    let mut expected = backends.to_vec();
    expected.sort();
    assert_eq!(
        counts.keys().cloned().collect::<Vec<_>>(),
        expected,
        "who answered: {counts:?}"
    );
    let (min, max) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(max - min <= 1, "not even: {counts:?}");
}
