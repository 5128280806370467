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
//! | `path_mtu` | a narrow link between nodes |
//! | `drain` | what a draining backend keeps, and how that ends |
//! | `lifecycle` | the agent stops, dies, comes back, goes for good |
//! | `faults` | live flows while the agent dies, programs, tables and cluster state change |
//! | `flood` | forged SYNs and datagrams that fill the flow tables |
//! | `fragments` | datagrams in pieces that overtake each other |
//! | `pressure` | tables that fill with what honest clients leave behind |
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
mod fragments;
mod gateway;
mod host;
mod lifecycle;
mod names;
mod names_load;
mod operator;
mod path_mtu;
mod pressure;
mod published;
mod rest;
mod scale;
mod topology;
mod transfer;
mod vip;
mod xdp;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use lb_tests::answers::{self, assert_even};
use lb_tests::client::Answer;
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

/// [`answers::ask_seen`] from inside `netns`.
fn ask_seen(netns: &Netns, target: SocketAddr) -> io::Result<Answer> {
    netns.run(|| answers::ask_seen(target))
}

/// [`answers::ask_udp_seen`] from inside `netns`.
fn ask_udp_seen(netns: &Netns, target: SocketAddr) -> io::Result<Answer> {
    netns.run(|| answers::ask_udp_seen(target))
}
