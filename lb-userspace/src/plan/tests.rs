use std::net::IpAddr;

use insta::assert_snapshot;
use lb_common::abi::{BACKEND_GONE, Backends, Flow, FlowKey4, Flows4, capacity};

use super::store::{ReadTables as _, WriteTables as _};
use super::*;
use crate::model::desired::{Desired, Interfaces};
use crate::model::snapshot::{
    Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot, Sources,
};

/// A service with a VIP and a published port, and backends 10.0.1.`host` on node n1.
pub(super) fn snapshot(hosts: &[u8]) -> Snapshot {
    let ip = |text: String| text.parse::<IpAddr>().unwrap();
    Snapshot {
        generation: 1,
        nodes: vec![
            Node {
                name: "n1".into(),
                id: None,
                addresses: vec![ip("192.0.2.1".into())],
            },
            Node {
                name: "n2".into(),
                id: None,
                addresses: vec![ip("192.0.2.2".into())],
            },
        ],
        networks: vec![Network {
            name: "front".into(),
            id: 5,
            subnets: Vec::new(),
            encrypted: false,
            overlay: false,
            ingress: false,
        }],
        services: vec![Service {
            name: "web".into(),
            network: "front".into(),
            mode: EndpointMode::Vip,
            vips: vec![ip("10.0.1.9".into())],
            aliases: Vec::new(),
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
                target: 8080,
                published: Some(30080),
            }],
            any_port: false,
            sources: Default::default(),
            tcp_timeout: None,
            udp_timeout: None,
            backends: hosts
                .iter()
                .map(|host| Backend {
                    name: format!("web.{host}"),
                    node: "n1".into(),
                    addresses: vec![ip(format!("10.0.1.{host}"))],
                    port: None,
                    state: BackendState::Ready,
                    weight: 1,
                    pending: false,
                    aliases: Vec::new(),
                })
                .collect(),
        }]
        .into(),
    }
}

pub(super) fn desired(snapshot: &Snapshot) -> Desired {
    Desired::compile(snapshot, "n1", &Interfaces::new()).unwrap()
}

fn plan(snapshot: &Snapshot, tables: &MemoryTables) -> Plan {
    diff(&desired(snapshot), &Actual::read(tables).unwrap())
}

pub(super) fn tables(snapshot: &Snapshot) -> MemoryTables {
    let mut tables = MemoryTables::default();
    assert!(apply(&plan(snapshot, &tables), &mut tables).is_complete());
    tables
}

fn ops(plan: &Plan) -> String {
    plan.ops
        .iter()
        .map(|op| format!("{:?} {op} after {:?}\n", op.phase, op.after))
        .collect()
}

#[test]
fn from_nothing() {
    let plan = plan(&snapshot(&[21, 22]), &MemoryTables::default());
    assert_snapshot!(plan, @"
    + node n1 (192.0.2.1)
    + node n2 (192.0.2.2)
    + address 192.0.2.1 (node n1)
    + address 192.0.2.2 (node n2)
    + service front/web 80/tcp
        + frontend *:30080/tcp (published)
        + frontend 10.0.1.9:80/tcp (network 5)
        + backend 10.0.1.21:8080/tcp (ready)
        + backend 10.0.1.22:8080/tcp (ready)
    + vip 10.0.1.9 (network 5)
    Plan: 10 to add, 0 to change, 0 to remove.
    ");
    assert_snapshot!(ops(&plan), @"
    Make + nodes 1 after []
    Make + nodes 2 after []
    Make + addresses 192.0.2.1 after []
    Make + addresses 192.0.2.2 after []
    Make + backends 1 after []
    Make + backends 2 after []
    Make + local_backends 10.0.1.21:8080/tcp network 5 after [4]
    Make + local_backends 10.0.1.22:8080/tcp network 5 after [5]
    Make + slots 1/1/0 after [4]
    Make + slots 1/1/1 after [5]
    Flip + services 1 after [8, 9]
    Expose + frontends *:30080/tcp network 0 after [10]
    Expose + frontends 10.0.1.9:80/tcp network 5 after [10]
    Expose + vips 10.0.1.9 network 5 after []
    ");
}

#[test]
fn one_backend_replaced() {
    let plan = plan(&snapshot(&[21, 31]), &tables(&snapshot(&[21, 22])));
    assert_snapshot!(plan, @"
    ~ service front/web 80/tcp
        - backend 10.0.1.22:8080/tcp (ready)
        + backend 10.0.1.31:8080/tcp (ready)
    Plan: 1 to add, 0 to change, 1 to remove.
    ");
    assert_snapshot!(ops(&plan), @"
    Make + backends 3 after []
    Make + local_backends 10.0.1.31:8080/tcp network 5 after [0]
    Make + slots 1/2/0 after []
    Make + slots 1/2/1 after [0]
    Flip ~ services 1 after [2, 3]
    Break - slots 1/1/0 after [4]
    Break - slots 1/1/1 after [4]
    Break - local_backends 10.0.1.22:8080/tcp network 5 after []
    Break - backends 2 after [4]
    ");
    assert_snapshot!(serde_json::to_string_pretty(&plan.ops[0]).unwrap(), @r#"
    {
      "phase": "make",
      "action": "add",
      "table": "backends",
      "key": "3",
      "value": {
        "address": "10.0.1.31",
        "generation": 1,
        "ifindex": 0,
        "local": true,
        "mac": "00:00:00:00:00:00",
        "network": 5,
        "node": 1,
        "port": 8080,
        "protocol": "tcp",
        "state": "ready"
      },
      "after": []
    }
    "#);
}

#[test]
fn drained_then_weighted() {
    let mut after = snapshot(&[21, 22, 23]);
    let tables = tables(&after);
    after.services[0].backends[2].state = BackendState::Draining;
    let draining = plan(&after, &tables);
    assert_snapshot!(draining, @"
    ~ service front/web 80/tcp
        ~ backend 10.0.1.23:8080/tcp (ready -> draining)
    Plan: 0 to add, 1 to change, 0 to remove.
    ");
    assert_snapshot!(ops(&draining), @"
    Make + slots 1/2/0 after []
    Make + slots 1/2/1 after []
    Flip ~ services 1 after [0, 1]
    Expose ~ backends 3 after []
    Break - slots 1/1/0 after [2]
    Break - slots 1/1/1 after [2]
    Break - slots 1/1/2 after [2]
    ");
    after.services[0].backends[2].state = BackendState::Ready;
    after.services[0].backends[0].weight = 2;
    assert_snapshot!(plan(&after, &tables), @"
    ~ service front/web 80/tcp
        ~ backend 10.0.1.21:8080/tcp (share 1/3 -> 2/4)
        ~ backend 10.0.1.22:8080/tcp (share 1/3 -> 1/4)
        ~ backend 10.0.1.23:8080/tcp (share 1/3 -> 1/4)
    Plan: 0 to add, 3 to change, 0 to remove.
    ");
}

#[test]
fn service_published_elsewhere_and_node_gone() {
    let mut after = snapshot(&[21]);
    let tables = tables(&after);
    after.nodes.pop();
    after.services[0].ports[0].published = Some(30081);
    assert_snapshot!(plan(&after, &tables), @"
    - address 192.0.2.2 (node 192.0.2.2)
    - node 192.0.2.2 (192.0.2.2)
    ~ service front/web 80/tcp
        + frontend *:30081/tcp (published)
        - frontend *:30080/tcp (published)
    Plan: 1 to add, 0 to change, 3 to remove.
    ");
}

#[test]
fn service_removed() {
    let mut after = snapshot(&[21, 22]);
    let tables = tables(&after);
    after.services.clear();
    let plan = plan(&after, &tables);
    assert_snapshot!(plan, @"
    - service 10.0.1.9:80/tcp
        - frontend *:30080/tcp (published)
        - frontend 10.0.1.9:80/tcp (network 5)
        - backend 10.0.1.21:8080/tcp (ready)
        - backend 10.0.1.22:8080/tcp (ready)
    - vip 10.0.1.9 (network 5)
    Plan: 0 to add, 0 to change, 6 to remove.
    ");
    assert_snapshot!(ops(&plan), @"
    Close - frontends *:30080/tcp network 0 after []
    Close - frontends 10.0.1.9:80/tcp network 5 after []
    Close - vips 10.0.1.9 network 5 after []
    Close - services 1 after [0, 1]
    Break - slots 1/1/0 after [3]
    Break - slots 1/1/1 after [3]
    Break - local_backends 10.0.1.21:8080/tcp network 5 after []
    Break - local_backends 10.0.1.22:8080/tcp network 5 after []
    Break - backends 1 after [3]
    Break - backends 2 after [3]
    ");
}

#[test]
fn nothing_to_do() {
    let tables = tables(&snapshot(&[21]));
    let plan = plan(&snapshot(&[21]), &tables);
    assert!(plan.is_empty());
    assert_eq!(plan.to_string(), "Plan: 0 to add, 0 to change, 0 to remove.");
}

#[test]
fn a_timeout_needs_no_new_slots() {
    let mut after = snapshot(&[21]);
    let tables = tables(&after);
    after.services[0].tcp_timeout = Some(std::time::Duration::from_secs(9));
    let plan = plan(&after, &tables);
    assert_snapshot!(plan, @"
    ~ service front/web 80/tcp (settings)
    Plan: 0 to add, 1 to change, 0 to remove.
    ");
    assert_snapshot!(ops(&plan), @"Flip ~ services 1 after []");
}

/// Closed at every moment: prefixes are there before the frontend asks for them, and go after it does not any more.
#[test]
fn a_published_port_that_chooses_its_clients() {
    let open = snapshot(&[21]);
    let mut closed = open.clone();
    closed.services[0].sources = Sources {
        allow: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        deny: vec!["10.9.0.0/16".parse().unwrap()],
    };
    let mut tables = tables(&open);
    let plan = plan(&closed, &tables);
    assert_snapshot!(plan, @"
    ~ service front/web 80/tcp
        ~ frontend *:30080/tcp (published)
    + source 10.0.0.0/8 (allowed, service 1)
    + source 10.9.0.0/16 (denied, service 1)
    Plan: 2 to add, 1 to change, 0 to remove.
    ");
    assert_snapshot!(ops(&plan), @"
    Make + sources 10.0.0.0/8 service 1 after []
    Make + sources 10.9.0.0/16 service 1 after []
    Expose ~ frontends *:30080/tcp network 0 after []
    ");
    assert!(apply(&plan, &mut tables).is_complete());
    assert!(self::plan(&closed, &tables).is_empty());
    assert_snapshot!(ops(&self::plan(&open, &tables)), @"
    Expose ~ frontends *:30080/tcp network 0 after []
    Break - sources 10.0.0.0/8 service 1 after []
    Break - sources 10.9.0.0/16 service 1 after []
    ");
    closed.services[0].sources.allow.clear();
    assert_snapshot!(ops(&self::plan(&closed, &tables)), @"
    Make + sources everybody service 1 after []
    Break - sources 10.0.0.0/8 service 1 after []
    ");
}

/// The element of a backend that went keeps address and generation; if the address comes back it is another task.
#[test]
fn a_backend_that_comes_back_has_a_new_generation() {
    let mut tables = tables(&snapshot(&[21, 22]));
    let before = tables.get::<Backends>(&2).unwrap().unwrap();
    apply(&plan(&snapshot(&[21]), &tables), &mut tables);
    let gone = tables.get::<Backends>(&2).unwrap().unwrap();
    assert_eq!(
        gone,
        abi::Backend {
            state: BACKEND_GONE,
            ..before
        }
    );
    apply(&plan(&snapshot(&[21, 23, 22]), &tables), &mut tables);
    let back = tables.get::<Backends>(&2).unwrap().unwrap();
    assert_eq!(
        back,
        abi::Backend {
            generation: before.generation + 1,
            ..before
        }
    );
    assert_eq!(tables.get::<Backends>(&3).unwrap().unwrap().address.v4_bytes()[3], 23);
}

/// With every element used once, one that is gone is given away only when no flow refers to it.
#[test]
fn a_full_table_reuses_only_what_no_flow_needs() {
    let mut tables = tables(&snapshot(&[21]));
    let last = capacity::BACKENDS - 1;
    for (id, host) in [(last - 1, 77), (last, 78)] {
        let address = Address::v4([10, 0, 9, host]);
        let gone = abi::Backend {
            address,
            network: 5,
            generation: 4,
            state: BACKEND_GONE,
            ..Default::default()
        };
        tables.set::<Backends>(&id, &gone).unwrap();
    }
    // Elements that were never used, so the whole table counts as used.
    for id in 2..last - 1 {
        tables
            .set::<Backends>(
                &id,
                &abi::Backend {
                    address: Address::v4([10, 1, 0, 0]),
                    ..Default::default()
                },
            )
            .unwrap();
    }
    let flow = Flow {
        backend: last - 1,
        ..Default::default()
    };
    tables.set::<Flows4>(&FlowKey4::default(), &flow).unwrap();
    let wanted = desired(&snapshot(&[21, 22]));
    let mut actual = Actual::read(&tables).unwrap();

    let plan = diff(&wanted, &actual);
    assert!(plan.is_empty());
    assert_snapshot!(plan, @"
    ! no room for backend 10.0.1.22:8080/tcp: the table holds 262144, counting those that flows still refer to
    Plan: 0 to add, 0 to change, 0 to remove.
    ");

    actual.reusable = Reusable::collect(&tables).unwrap();
    assert!(!actual.reusable.backends.contains_key(&(last - 1)));
    actual.reusable.backends.retain(|id, _| *id >= last - 1);
    let plan = diff(&wanted, &actual);
    let Row::Backend(id, value) = plan.ops[0].row else {
        panic!("{:?}", plan.ops[0])
    };
    assert_eq!((id, value.generation, value.address.v4_bytes()[3]), (last, 5, 22));

    // Used in between: what was seen of it does not count.
    *actual.reusable.backends.get_mut(&last).unwrap() = 3;
    assert!(diff(&wanted, &actual).is_empty());
}
