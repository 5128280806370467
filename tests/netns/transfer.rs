//! Large bodies both ways, segment sizes on paths that the tunnel shrinks, offloads, TTL.

use lb_tests::capture::Capture;
use lb_tests::client::{Connection, get};
use lb_tests::cluster::{Cluster, Family, Spec};

use super::{own, shared};

/// Much more than socket buffers hold, so that windows open and close.
const BODY: usize = 6 << 20;

#[test]
fn large_transfers_arrive_whole() {
    let Some(cluster) = shared() else { return };
    transfers(&cluster);
}

#[test]
fn large_transfers_arrive_whole_without_offloads() {
    if !lb_tests::require::datapath() || !lb_tests::require::program("ethtool") {
        return;
    }
    let Some(cluster) = own(Cluster::builder().clients(1).offload(false)) else {
        return;
    };
    transfers(&cluster);
    super::published::answers_everywhere(&cluster);
    super::published::udp_answers_everywhere(&cluster);
    super::vip::answers(&cluster);
}

pub(crate) fn transfers(cluster: &Cluster) {
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for family in Family::BOTH {
        let client = cluster.client(0).netns();
        // At the backend's node; through the tunnel; from a workload beside the backend; from one on another node.
        let ways = [
            (client, web.on_node(0, family)),
            (client, web.on_node(2, family)),
            (cluster.workloads(0, "shop")[1].netns(), web.vip(family)),
            (cluster.workloads(1, "shop")[1].netns(), web.vip(family)),
            (cluster.workload(1, "shop").netns(), web.on_node(2, family)),
        ];
        for (netns, target) in ways {
            let moved = netns.run(|| {
                let mut connection = Connection::open(target)?;
                connection.download(BODY)?;
                connection.upload(BODY)
            });
            moved.unwrap_or_else(|error| panic!("{} to {target}: {error}", netns.name()));
        }
    }
}

#[test]
fn segments_fit_the_tunnel_and_nothing_else_is_shrunk() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for (family, whole) in [(Family::V4, 1448), (Family::V6, 1428)] {
        let size = |netns: &lb_tests::netns::Netns, target| {
            netns.run(|| {
                let mut connection = Connection::open(target)?;
                connection.ask()?;
                connection.segment_size()
            })
        };
        let client = cluster.client(0).netns();
        let tunnelled = size(client, web.on_node(2, family)).unwrap();
        // Outer IPv4 or IPv6, UDP, Geneve with an option: at least 36 bytes, at most 120.
        assert!(
            (whole - 120..=whole - 36).contains(&tunnelled),
            "{family:?} through the tunnel: {tunnelled}"
        );
        assert_eq!(
            size(client, web.on_node(0, family)).unwrap(),
            whole,
            "{family:?} at the backend's own node"
        );
        let inside = cluster.workloads(1, "shop")[1].netns();
        assert_eq!(
            size(inside, web.vip(family)).unwrap(),
            whole,
            "{family:?} inside the network"
        );
    }
}

#[test]
fn the_time_to_live_falls_with_every_node() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    let backend = web.workload(&web.backends()[0]);
    // Other services have their backends there too.
    let port = web.document().ports[0].target;
    for family in Family::BOTH {
        let client = cluster.client(0);
        let beside = cluster.workloads(0, "shop")[1];
        let remote = cluster.workloads(1, "shop")[1];
        let ways = [
            (
                "published, at its node",
                client.netns(),
                client.address(family),
                web.on_node(0, family),
                63,
            ),
            (
                "published, through the tunnel",
                client.netns(),
                client.address(family),
                web.on_node(1, family),
                62,
            ),
            (
                "VIP, same node",
                beside.netns(),
                beside.address(family),
                web.vip(family),
                63,
            ),
            (
                "VIP, other node",
                remote.netns(),
                remote.address(family),
                web.vip(family),
                62,
            ),
        ];
        for (what, netns, source, target, expected) in ways {
            let capture = Capture::start(backend.netns()).unwrap();
            netns.run(|| get(target)).unwrap();
            let seen: Vec<u8> = capture
                .packets("eth0")
                .iter()
                .filter_map(|packet| ttl_from(&packet.bytes, source, port))
                .collect();
            assert!(!seen.is_empty(), "{what}: no packet of {source} at the backend");
            assert!(
                seen.iter().all(|ttl| *ttl == expected),
                "{family:?} {what}: {seen:?}, expected {expected}"
            );
        }
    }
}

/// Time to live of a TCP packet from `source` to `port`.
fn ttl_from(bytes: &[u8], source: std::net::IpAddr, port: u16) -> Option<u8> {
    let packet = etherparse::LaxSlicedPacket::from_ethernet(bytes).ok()?;
    match packet.transport? {
        etherparse::TransportSlice::Tcp(tcp) if tcp.destination_port() == port => {}
        _ => return None,
    }
    match packet.net? {
        etherparse::LaxNetSlice::Ipv4(ip) => (source == ip.header().source_addr()).then(|| ip.header().ttl()),
        etherparse::LaxNetSlice::Ipv6(ip) => (source == ip.header().source_addr()).then(|| ip.header().hop_limit()),
        _ => None,
    }
}
