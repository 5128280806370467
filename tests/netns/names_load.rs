//! DNS under load: thousands of names, tens of thousands of questions a second, hostile ones among them, and no upstream that
//! answers.
//!
//! Two seconds in a usual run; `LB_SCALE=10000` with a release build (`LB_BIN_DIR`) for the figures.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_tests::cluster::{Cluster, Family};
use lb_tests::netns::Netns;

use super::own;
use super::scale::{busy, percentile, resident, services};

const SERVICES: u32 = 1_000;
const BACKENDS: u32 = 10;
/// Questions that one client has open at a time.
const WINDOW: usize = 32;
const CLIENTS: u16 = 4;
/// Questions a second, of all clients.
const RATE: u32 = 50_000;
/// Nobody listens there.
const DEAD: &str = "10.80.0.101:5300";

fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_f000 + service)
}

/// Twelve names for each service.
fn document(cluster: &Cluster) -> String {
    let node = cluster.node(0);
    let [v4, v6] = [Family::V4, Family::V6].map(|family| node.address(family));
    let mut text = format!("[[node]]\nname = \"node1\"\naddresses = [\"{v4}\", \"{v6}\"]\n");
    text.push_str("[[network]]\nname = \"shop\"\nid = 4097\nsubnets = [\"10.1.0.0/16\"]\n");
    for service in 0..SERVICES {
        let _ = write!(
            text,
            "[[service]]\nname = \"s{service}\"\nnetwork = \"shop\"\nvip = [\"{}\"]\nports = [{{ port = 80 }}]\n",
            vip(service)
        );
        for backend in 0..BACKENDS {
            let address = Ipv4Addr::from_bits(0x0a01_4000 + service * BACKENDS + backend);
            let head = format!("[[service.backend]]\nname = \"s{service}.{backend}\"\nnode = \"node1\"\n");
            let _ = writeln!(text, "{head}addresses = [\"{address}\"]");
        }
    }
    text
}

/// A question for the A record of `name`.
fn question(id: u16, name: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[derive(Default)]
struct Tally {
    asked: u64,
    lost: u64,
    took: Vec<Duration>,
}

/// Asks for names of ours until `end`, never more than its share of [`RATE`]; every answer is looked at.
fn ask(server: SocketAddr, client: u16, end: Instant) -> Tally {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut tally = Tally::default();
    let start = Instant::now();
    let pace = Duration::from_secs(1) * WINDOW as u32 * u32::from(CLIENTS) / RATE;
    let mut buffer = [0; 1500];
    let mut round = 0u32;
    while Instant::now() < end {
        let sent = Instant::now();
        let first = (round as usize * WINDOW) as u16;
        let mut open = [None; WINDOW];
        for (index, open) in open.iter_mut().enumerate() {
            let id = first.wrapping_add(index as u16);
            let service = (u32::from(client) * 7919 + round * WINDOW as u32 + index as u32) % SERVICES;
            let (name, last) = match index % 4 {
                0 => (format!("s{service}.{}", index as u32 % BACKENDS), None),
                1 => (format!("S{service}.shop"), Some(vip(service))),
                _ => (format!("s{service}"), Some(vip(service))),
            };
            *open = Some(last);
            socket.send(&question(id, &name)).unwrap();
        }
        tally.asked += WINDOW as u64;
        let mut left = WINDOW;
        while left > 0 {
            let Ok(length) = socket.recv(&mut buffer) else {
                tally.lost += left as u64;
                break;
            };
            let answer = &buffer[..length];
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let Some(expected) = open.get_mut(usize::from(id.wrapping_sub(first))).and_then(Option::take) else {
                continue;
            };
            // A response, authoritative, without error, with one record; and that is the VIP.
            assert_eq!(
                (answer[2] & 0x84, answer[3] & 0x0f, &answer[6..8]),
                (0x84, 0, &[0, 1][..]),
                "{answer:?}"
            );
            if let Some(vip) = expected {
                assert_eq!(answer[length - 4..], vip.octets());
            }
            left -= 1;
        }
        tally.took.push(sent.elapsed());
        round += 1;
        std::thread::sleep((start + pace * round).saturating_duration_since(Instant::now()));
    }
    tally
}

/// What nobody should send: loops of compression, lengths that lie, names that only a dead upstream would know.
fn disturb(server: SocketAddr, stop: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    let good = question(7, "s1.shop");
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let hostile = [
        with(12, &[0xc0, 12]),
        with(12, &[0xc0, 14, 0xc0, 12]),
        with(12, &[0xff, 0xff]),
        with(12, &[63]),
        with(4, &[0xff, 0xff]),
        with(6, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        with(2, &[0xff]),
        good[..13].to_vec(),
        vec![0; 4096],
        Vec::new(),
    ];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for bytes in &hostile {
            // What was sent before may have been refused.
            let _ = socket.send(bytes);
        }
        for n in 0..10 {
            let _ = socket.send(&question(n, &format!("x{sent}.example")));
        }
        sent += hostile.len() as u64 + 10;
        std::thread::sleep(Duration::from_millis(10));
    }
    sent
}

#[test]
fn names_are_answered_under_load() {
    let builder = Cluster::builder()
        .nodes(1)
        .clients(0)
        .upstreams(&[DEAD.parse().unwrap()]);
    let Some(cluster) = own(builder) else { return };
    let node = cluster.node(0);
    let server = node.dns(Family::V4);
    let here: &Netns = cluster.workload(0, "shop").netns();
    cluster.overwrite(&document(&cluster)).unwrap();
    let start = Instant::now();
    while here
        .run(|| lb_tests::dns::ask(server, &format!("s{}", SERVICES - 1), hickory_proto::rr::RecordType::A))
        .is_ok_and(|r| r.data.is_empty())
    {
        assert!(start.elapsed() < Duration::from_secs(60), "the names never came");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = node.agent().pid().unwrap();
    let duration = Duration::from_secs(if services() >= 10_000 { 20 } else { 2 });
    let (before, cpu) = (resident(pid), busy(pid));
    let stop = Arc::new(AtomicBool::new(false));
    let disturber = here.spawn({
        let stop = Arc::clone(&stop);
        move || disturb(server, &stop)
    });
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| here.spawn(move || ask(server, client, start + duration)))
        .collect();
    let mut all = Tally::default();
    for client in clients {
        let tally = client.join().unwrap();
        all.asked += tally.asked;
        all.lost += tally.lost;
        all.took.extend(tally.took);
    }
    let elapsed = start.elapsed();
    let cpu = busy(pid) - cpu;
    let after = resident(pid);
    stop.store(true, Ordering::Relaxed);
    let hostile = disturber.join().unwrap();
    all.took.sort();
    lb_tests::evidence::record("dns", "questions under load", all.asked);
    lb_tests::evidence::record("dns", "hostile messages beside them", hostile);
    println!(
        "{} questions, {:.0} a second, {} lost; {WINDOW} at once took p50 {:.1?}, p99 {:.1?}; {:.2} us of processor time each; \
         {hostile} hostile ones beside; {before} MiB before, {after} after",
        all.asked,
        all.asked as f64 / elapsed.as_secs_f64(),
        all.lost,
        percentile(&all.took, 500),
        percentile(&all.took, 990),
        cpu.as_secs_f64() * 1e6 / all.asked as f64,
    );
    assert!(all.asked > 1_000, "{} questions", all.asked);
    assert!(all.lost * 1_000 <= all.asked, "{} of {} lost", all.lost, all.asked);
    assert!(after < before + 40, "{before} MiB before, {after} after");
}
