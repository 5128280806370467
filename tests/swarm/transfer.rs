//! Large bodies both ways, and segment sizes, on every kind of path.

use std::io;
use std::net::SocketAddr;

use lb_tests::client::Connection;

use super::balanced;

/// Much more than socket buffers hold, so that windows open and close.
const BODY: usize = 6 << 20;
/// Payload of a segment on the underlay, and in an overlay: MTU less 40 bytes of headers and 12 of timestamps.
const UNDERLAY: u32 = 1448;
const OVERLAY: u32 = 1398;

/// Both ways; the segment size of the connection.
fn transfer(target: SocketAddr) -> io::Result<u32> {
    let mut connection = Connection::open(target)?;
    connection.download(BODY)?;
    connection.upload(BODY)?;
    connection.segment_size()
}

#[test]
fn large_transfers_arrive_whole_and_segments_fit() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let first = ["--constraint", "node.hostname==node1", "--network", network.name()];
    let web = swarm
        .service("web", &[&["--publish", "80"], &first[..]].concat())
        .unwrap();
    let asking = swarm
        .service("asking", &["--mode", "global", "--network", network.name()])
        .unwrap();
    swarm.wait_serving(&web, 1).unwrap();
    let clients = swarm.wait_serving(&asking, 3).unwrap();

    let published = web.published("tcp", 80).unwrap();
    for (index, node) in swarm.nodes().iter().enumerate() {
        let target = SocketAddr::new(node.address(), published);
        let size = swarm.client(0).netns().run(|| transfer(target));
        let size = size.unwrap_or_else(|error| panic!("{target}: {error}"));
        if index == 0 {
            assert_eq!(size, UNDERLAY, "the task's own node");
        } else {
            // Outer IPv4, UDP, Geneve with an option: at least 36 bytes, at most 120.
            assert!(
                (UNDERLAY - 120..=UNDERLAY - 36).contains(&size),
                "through the tunnel: {size}"
            );
        }
    }
    let target = SocketAddr::from((web.vip(network.id()).unwrap(), 80));
    for client in &clients {
        let size = client.within(&swarm, || transfer(target)).unwrap();
        let size = size.unwrap_or_else(|error| panic!("VIP from {}: {error}", client.name));
        assert_eq!(size, OVERLAY, "VIP from {}", client.name);
    }
}
