//! Floods from forged addresses that fill flow tables made for a fraction of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_common::abi::{TCP, UDP};
use lb_common::testing::frame::Frame;
use lb_tests::client::{Connection, Udp, get, tally};
use lb_tests::cluster::{Cluster, Family, Node, Spec};
use lb_tests::evidence;
use lb_tests::lbctl;
use lb_tests::netns::Netns;
use lb_tests::scene::Scene;
use lb_tests::traffic::{Style, Traffic};
use socket2::{Domain, Protocol, Socket, Type};

use super::{assert_even, own};

/// What is proven here.
const PROMISE: &str = "full-tables";
/// Packets of a flood, unless this variable says another number.
const PACKETS: &str = "LB_FLOOD_PACKETS";
/// Entries of each flow table.
const FLOWS: u32 = 1024;
/// Packets that are sent without a rest.
const BURST: usize = 500;
/// Longest that pressure may be seen, or be gone, after its cause.
const SEEN: Duration = Duration::from_secs(60);

/// Packets with ever new sources, until it is stopped and at least as many are sent as it was asked for.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<()>>,
}

impl Flood {
    fn start(netns: &Netns, protocol: u8, target: SocketAddr) -> Self {
        let least = std::env::var(PACKETS).map_or(60_000, |text| text.parse().expect("LB_FLOOD_PACKETS is a number"));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = netns.spawn(move || {
            // IPPROTO_RAW: headers and all are ours.
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            for n in 0.. {
                let done = stopped.load(Ordering::Relaxed) && n >= least;
                if done {
                    break;
                }
                match socket.send_to(&forged(protocol, n, target), &target.into()) {
                    // Without room in a queue a packet is lost, as on any wire.
                    Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error),
                    _ => count.store(n + 1, Ordering::Relaxed),
                }
                if n % BURST == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Ok(())
        });
        Self { stop, sent, thread }
    }

    fn wait(&self, packets: usize) {
        let start = Instant::now();
        while self.sent.load(Ordering::Relaxed) < packets {
            assert!(start.elapsed() < SEEN, "the flood does not get on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood's thread").expect("a raw socket");
        self.sent.load(Ordering::Relaxed)
    }
}

/// The nth packet: a SYN or a datagram from somewhere in 203.0.0.0/16.
fn forged(protocol: u8, n: usize, target: SocketAddr) -> Vec<u8> {
    let [.., a, b] = (n as u32 / 50_000).to_be_bytes();
    let source = (Ipv4Addr::new(203, 0, a, b), 1024 + (n % 50_000) as u16).into();
    let frame = Frame::new(protocol, source, target);
    if protocol == TCP {
        frame.flags(2).numbers(n as u32, 0).payload(b"").packet()
    } else {
        frame.packet()
    }
}

fn cluster() -> Option<Scene> {
    own(Cluster::builder().nodes(2).tables(FLOWS, 4096))
}

/// Waits until metrics and lbctl say whether there is pressure.
#[track_caller]
fn await_pressure(node: &Node, pressed: bool) {
    let line = format!("lb_flow_pressure {}", if pressed { "1.0" } else { "0.0" });
    let start = Instant::now();
    loop {
        let metrics = node.metrics("/metrics").unwrap();
        if metrics.lines().any(|l| l == line) {
            break;
        }
        let found = metrics
            .lines()
            .find(|l| l.starts_with("lb_flow_pressure"))
            .map(str::to_owned);
        assert!(start.elapsed() < SEEN, "not {line}, but {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    if pressed {
        let status = lbctl::text(node, &["status"]).unwrap();
        assert!(status.contains("PRESSURE"), "{status}");
    }
}

/// Waits until the flow table is at most half full: what has closed is kept for a while.
#[track_caller]
fn await_room(node: &Node) {
    let start = Instant::now();
    let entries = || {
        let metrics = node.metrics("/metrics").unwrap();
        let line = metrics
            .lines()
            .find_map(|l| l.strip_prefix("lb_map_entries{map=\"flows4\"} "));
        line.expect("a metric").parse::<f64>().expect("a number")
    };
    while entries() * 2.0 > f64::from(FLOWS) {
        assert!(start.elapsed() < SEEN, "{} entries", entries());
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits for a line of the agent's log.
#[track_caller]
fn await_log(node: &Node, words: &str) {
    let start = Instant::now();
    while !node.agent().log().contains(words) {
        assert!(
            start.elapsed() < SEEN,
            "{:?} is not in the log:\n{}",
            words,
            node.agent().log()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_syn_flood_ends_no_connection_and_new_ones_are_served() {
    let Some(cluster) = cluster() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    let mut kept: Vec<_> = (0..40)
        .map(|_| client.run(|| Connection::open(target).unwrap()))
        .collect();
    for connection in &mut kept {
        connection.ask().unwrap();
    }
    let asking = Traffic::start(client, &[target], 2, Style::KeepAlive);
    asking.flow(10);

    let flood = Flood::start(cluster.client(1).netns(), TCP, target);
    flood.wait(4 * FLOWS as usize);
    await_pressure(node, true);
    let new = Traffic::start(client, &[target], 2, Style::NewConnection);
    for connection in &mut kept {
        connection.ask().expect("a connection from before the flood");
    }
    for connection in kept.iter_mut().take(4) {
        connection.download(1 << 20).expect("a download during the flood");
        connection.upload(1 << 20).expect("an upload during the flood");
    }
    new.flow(100);
    asking.flow(100);
    await_log(node, "a flow table is full");
    let sent = flood.stop();
    let (new, asking) = (new.stop(), asking.stop());
    evidence::record(PROMISE, "forged SYNs against a table of 1024 flows", sent as u64);
    evidence::record(
        PROMISE,
        "answers meanwhile on connections from before, 0 lost",
        asking.ok() as u64,
    );
    println!("{sent} forged SYNs: {} answered anew, {} kept", new.ok(), asking.ok());
    assert_eq!(asking.failures, [], "connections from before");
    assert_eq!(asking.repeated, 0);
    // One that finds no room in the table itself may be displaced while its server thinks.
    assert!(new.failed() * 200 <= new.ok(), "new connections: {:?}", new.failures);

    await_pressure(node, false);
    await_log(node, "have room again");
    await_room(node);
    for connection in &mut kept {
        connection.ask().expect("a connection from before the flood, after it");
    }
    assert_even(&client.run(|| tally((0..10).map(|_| get(target)))), &web.backends());
}

#[test]
fn a_udp_flood_moves_no_flow_and_new_ones_are_served() {
    let Some(cluster) = cluster() else { return };
    let dns = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(0);
    let target = dns.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    let patience = Duration::from_secs(5);
    let open = || client.run(|| Udp::open(target).unwrap());
    // What is lost on the way is asked for again, as by any client over UDP; by whom it is answered says where the flow is.
    let ask = |socket: &Udp| {
        let answer = (0..5).find_map(|_| client.run(|| socket.ask(patience / 5)).ok());
        answer.expect("an answer to one of five questions").backend
    };
    let kept: Vec<_> = (0..40).map(|_| open()).collect();
    let before: Vec<_> = kept.iter().map(ask).collect();

    let flood = Flood::start(cluster.client(1).netns(), UDP, target);
    flood.wait(4 * FLOWS as usize);
    await_pressure(node, true);
    for _ in 0..3 {
        let during: Vec<_> = kept.iter().map(ask).collect();
        assert_eq!(during, before, "flows from before the flood");
    }
    for _ in 0..50 {
        let socket = open();
        let first = ask(&socket);
        assert_eq!(ask(&socket), first, "a flow that began during the flood");
    }
    let sent = flood.stop();
    evidence::record(PROMISE, "forged datagrams against a table of 1024 flows", sent as u64);
    evidence::record(PROMISE, "UDP flows from before, none moved", kept.len() as u64);
    await_pressure(node, false);
    assert_eq!(kept.iter().map(ask).collect::<Vec<_>>(), before);
}

#[test]
fn a_full_table_takes_new_flows_while_no_agent_is_there() {
    let Some(cluster) = cluster() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    let mut kept = client.run(|| Connection::open(target).unwrap());
    kept.ask().unwrap();
    node.agent().kill().unwrap();
    let flood = Flood::start(cluster.client(1).netns(), TCP, target);
    flood.wait(4 * FLOWS as usize);
    flood.stop();
    // Nobody removes what fills the table. lbctl, which asks the maps themselves, says so.
    let status = lbctl::text(node, &["status"]).unwrap();
    assert!(status.contains("PRESSURE"), "{status}");
    for _ in 0..50 {
        client.run(|| get(target)).expect("a new connection");
    }
    evidence::record(PROMISE, "new connections through a full table without an agent", 50);
    kept.ask().expect("a connection from before");
    node.start_agent().unwrap();
    await_pressure(node, false);
    kept.ask().expect("a connection from before");
}
