//! Planning stays quick for ten thousand services of ten backends: `cargo test -p lb-userspace --test plan_scale -- --nocapture`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lb_userspace::model::desired::{Desired, Interfaces};
use lb_userspace::model::snapshot::{
    Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot,
};
use lb_userspace::plan::{Actual, MemoryTables, apply, diff};

const SERVICES: u32 = 10_000;
const BACKENDS: u32 = 10;

fn snapshot() -> Snapshot {
    let ip = |base: u32, i: u32| IpAddr::V4(Ipv4Addr::from_bits(base + i));
    let (nodes_at, vips_at, backends_at) = (0xc000_0201, 0x0a01_0000, 0x0a10_0000);
    let backend = |s: u32, b: u32| Backend {
        name: format!("s{s}.{b}"),
        node: format!("n{}", b % 3),
        addresses: vec![ip(backends_at, s * BACKENDS + b)],
        port: None,
        state: BackendState::Ready,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    };
    let service = |s: u32| Service {
        name: format!("s{s}"),
        network: "net".into(),
        mode: EndpointMode::Vip,
        vips: vec![ip(vips_at, s)],
        aliases: Vec::new(),
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 80,
            target: 8080,
            published: Some(20_000 + s as u16),
        }],
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: (0..BACKENDS).map(|b| backend(s, b)).collect(),
    };
    Snapshot {
        generation: 1,
        nodes: (0..3)
            .map(|i| Node {
                name: format!("n{i}"),
                id: None,
                addresses: vec![ip(nodes_at, i)],
            })
            .collect(),
        networks: vec![Network {
            name: "net".into(),
            id: 1,
            subnets: Vec::new(),
            encrypted: false,
            overlay: false,
            ingress: false,
        }],
        services: (0..SERVICES).map(service).collect(),
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    println!("{what}: {took:.1?}");
    (result, took)
}

#[test]
fn ten_thousand_services_of_ten_backends() {
    let compile = |snapshot: &Snapshot| Desired::compile(snapshot, "n0", &Interfaces::new()).unwrap();
    let mut snapshot = snapshot();
    let mut tables = MemoryTables::default();
    let (desired, _) = timed("compile", || compile(&snapshot));
    let (plan, _) = timed("diff from empty", || diff(&desired, &Actual::default()));
    let (report, _) = timed("apply from empty, in memory", || apply(&plan, &mut tables));
    assert!(report.is_complete());
    assert!(report.done > (SERVICES * BACKENDS * 2) as usize);

    snapshot.services[4711].backends.pop();
    let desired = compile(&snapshot);
    let actual = Actual::read(&tables).unwrap();
    let (plan, took) = timed("diff with one change", || diff(&desired, &actual));
    assert_eq!(plan.counts(), (0, 0, 1), "{plan}");
    // Nine new slots, the flip, ten old slots, the backend and its place among the local ones.
    assert_eq!(plan.ops.len(), 22);
    // Far more than it takes, so that a busy machine does not fail it; what it catches is work that grows faster
    // than the tables do.
    assert!(took < Duration::from_secs(3), "{took:?}");
}
