//! Plans applied to tables in memory, op by op: nothing is left to plan, and every lookup stays valid on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use lb_common::abi::{
    self, BACKEND_DRAINING, BACKEND_GONE, BACKEND_READY, EndpointKey, Marks, NETWORK_NODE, SlotKey, Table, port_mark,
};
use lb_userspace::model::desired::{Desired, Interfaces};
use lb_userspace::model::snapshot::{
    Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot,
};
use lb_userspace::plan::mirror::{Mirror, Part};
use lb_userspace::plan::store::{ReadTables, StoreError, WriteTables};
use lb_userspace::plan::{Actual, MemoryTables, Reusable, apply, diff};
use proptest::prelude::*;

// === Snapshots ===

fn v4(network: usize, host: usize) -> IpAddr {
    format!("10.0.{network}.{host}").parse().unwrap()
}

fn v6(network: usize, host: usize) -> IpAddr {
    format!("fd00:{network}::{host:x}").parse().unwrap()
}

fn addresses(families: u8, network: usize, host: usize) -> Vec<IpAddr> {
    let v4 = (families & 1 != 0).then(|| v4(network, host));
    v4.into_iter()
        .chain((families & 2 != 0).then(|| v6(network, host)))
        .collect()
}

/// Host, node, families, ready, weight.
type Task = (usize, usize, u8, bool, u16);

fn task() -> impl Strategy<Value = Task> {
    (
        1_usize..8,
        0_usize..3,
        1_u8..=3,
        prop::bool::weighted(0.7),
        prop::sample::select(vec![1_u16, 1, 1, 2, 3, 256]),
    )
}

/// Whether it has a VIP, families of the VIP, published ports, tasks, whether it has a timeout of its own.
fn service() -> impl Strategy<Value = (bool, u8, Vec<Option<u16>>, Vec<Task>, bool)> {
    (
        prop::bool::weighted(0.85),
        0_u8..=3,
        prop::collection::vec(prop::option::of(30000_u16..30004), 0..3),
        prop::collection::vec(task(), 0..5),
        any::<bool>(),
    )
}

prop_compose! {
    /// Two networks, the second encrypted; up to four services; addresses from a small range, so that they move
    /// between services and come back, and published ports that clash.
    fn snapshot()(
        nodes in prop::sample::subsequence(vec![1_usize, 2], 0..=2),
        families in 1_u8..=3,
        services in prop::collection::btree_map((0_usize..2, 0_usize..3), service(), 0..5),
    ) -> Snapshot {
        let node = |i: usize| Node {
            name: format!("n{i}"),
            id: None,
            addresses: addresses(if i == 0 { 3 } else { families }, 99, i + 1),
        };
        let network = |i: usize| Network {
            name: format!("net{i}"), id: i as u32 + 1, subnets: Vec::new(), encrypted: i == 1, overlay: false, ingress: false,
        };
        let services = services.into_iter().map(|((net, name), (vip, vips, ports, tasks, timeout))| Service {
            name: format!("s{name}"),
            network: format!("net{net}"),
            mode: if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr },
            vips: addresses(vips, net, 200 + name),
            aliases: Vec::new(),
            ports: ports.into_iter().zip([80, 53]).map(|(published, port)| Port {
                protocol: if port == 80 { Protocol::Tcp } else { Protocol::Udp }, port, target: 8000 + port, published,
            }).collect(),
            any_port: false,
            sources: Default::default(),
            tcp_timeout: timeout.then_some(std::time::Duration::from_secs(60)),
            udp_timeout: None,
            backends: tasks.into_iter().enumerate().map(|(i, (host, node, families, ready, weight))| Backend {
                name: format!("s{name}.{i}"),
                node: format!("n{node}"),
                addresses: addresses(families, net, host),
                port: None,
                state: if ready { BackendState::Ready } else { BackendState::Draining },
                weight,
                pending: false,
                aliases: Vec::new(),
            }).collect(),
        }).collect();
        let nodes = [0].into_iter().chain(nodes).map(node).collect();
        Snapshot { generation: 1, nodes, networks: vec![network(0), network(1)], services }
    }
}

fn compile(snapshot: &Snapshot) -> Desired {
    Desired::compile(snapshot, "n0", &Interfaces::new()).unwrap()
}

// === Tables that check every step ===

fn key_of(b: &abi::Backend) -> EndpointKey {
    let family = if b.address.is_v4() { 4 } else { 6 };
    EndpointKey {
        address: b.address,
        network: b.network,
        port: b.port,
        protocol: b.protocol,
        family,
    }
}

/// What a frontend's lookup leads to: the backends of its slots, in their order.
fn lookup(actual: &Actual, frontend: &EndpointKey) -> Result<Vec<EndpointKey>, String> {
    let service = actual.frontends.get(frontend).ok_or("no frontend")?.service;
    let value = actual
        .services
        .get(&service)
        .ok_or_else(|| format!("no service {service}"))?;
    (0..value.count)
        .map(|index| {
            let slot = SlotKey {
                service,
                generation: value.generation,
                index,
            };
            let id = actual
                .slots
                .get(&slot)
                .ok_or_else(|| format!("no slot {slot:?} of {}", value.count))?;
            match actual.backends.get(id) {
                Some(b) if [BACKEND_READY, BACKEND_DRAINING].contains(&b.state) => Ok(key_of(b)),
                other => Err(format!("slot {slot:?} leads to {other:?}")),
            }
        })
        .collect()
}

/// Frontends that services swap among themselves: no order of writes keeps all of those.
fn swapped(before: &Actual, desired: &Desired) -> BTreeSet<EndpointKey> {
    let from = |key| Some(before.services.get(&before.frontends.get(key)?.service)?.identity);
    let all = desired
        .frontends
        .iter()
        .filter_map(|(key, to)| Some((*key, from(key)?, *to)));
    let moves: Vec<_> = all.filter(|(_, from, to)| from != to).collect();
    let leads_back = |(_, from, to): &&(EndpointKey, u64, u64)| {
        let mut reached = BTreeSet::from([*to]);
        for _ in &moves {
            let next: Vec<_> = moves
                .iter()
                .filter(|(_, a, _)| reached.contains(a))
                .map(|(_, _, b)| *b)
                .collect();
            reached.extend(next);
        }
        reached.contains(from)
    };
    moves.iter().filter(leads_back).map(|(key, ..)| *key).collect()
}

/// Delegates to memory, fails where told, and looks every frontend up after each write.
struct Checked {
    tables: MemoryTables,
    /// Frontends that must lead to either of these at any moment.
    valid: BTreeMap<EndpointKey, [Vec<EndpointKey>; 2]>,
    fails: Box<dyn FnMut(&'static str) -> bool>,
    /// Successful writes, as `map`; `settle` where it was called.
    log: Vec<&'static str>,
    /// Published ports that were ever there: flows to them may be.
    published: RefCell<BTreeSet<(u8, u16)>>,
}

impl Checked {
    fn new() -> Self {
        Self {
            tables: MemoryTables::default(),
            valid: BTreeMap::new(),
            fails: Box::new(|_| false),
            log: Vec::new(),
            published: RefCell::default(),
        }
    }

    fn actual(&self) -> Actual {
        Actual::read(&self.tables).unwrap()
    }

    /// From now on, frontends that are valid and desired give the answer of now or the desired one.
    fn expect(&mut self, desired: &Desired) {
        let before = self.actual();
        let mut wanted = MemoryTables::default();
        assert!(apply(&diff(desired, &Actual::default()), &mut wanted).is_complete());
        let after = Actual::read(&wanted).unwrap();
        let both = |key: &EndpointKey| Some([lookup(&before, key).ok()?, lookup(&after, key).unwrap()]);
        let swapped = swapped(&before, desired);
        let frontends = desired.frontends.keys().filter(|key| !swapped.contains(key));
        self.valid = frontends.filter_map(|key| Some((*key, both(key)?))).collect();
    }

    fn check(&self) {
        let actual = self.actual();
        let mut published = self.published.borrow_mut();
        let ports = actual.frontends.keys().filter(|key| key.network == NETWORK_NODE);
        published.extend(ports.map(|key| (key.protocol, key.port)));
        for (protocol, port) in published.iter() {
            let (element, bit) = port_mark(*protocol, *port);
            let marks = self.tables.get::<Marks>(&element).unwrap().unwrap_or_default();
            assert!(marks & bit != 0, "nobody looks for what is published on port {port}");
        }
        for (frontend, answers) in &self.valid {
            let now = lookup(&actual, frontend).unwrap_or_else(|error| panic!("{frontend:?}: {error}"));
            assert!(
                answers.contains(&now),
                "{frontend:?} leads to {now:?}, neither of {answers:?}"
            );
        }
    }

    fn attempt(&mut self, map: &'static str, operation: &'static str) -> Result<(), StoreError> {
        if (self.fails)(map) {
            return Err(StoreError {
                map,
                operation,
                source: io::Error::from_raw_os_error(7),
            });
        }
        Ok(())
    }
}

impl ReadTables for Checked {
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.tables.entries::<T>()
    }

    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.tables.get::<T>(key)
    }
}

impl WriteTables for Checked {
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.attempt(T::NAME, "write")?;
        self.tables.set::<T>(key, value)?;
        self.log.push(T::NAME);
        self.check();
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.attempt(T::NAME, "delete")?;
        self.tables.delete::<T>(key)?;
        self.log.push(T::NAME);
        self.check();
        Ok(())
    }

    fn settle(&mut self) {
        self.log.push("settle");
    }
}

/// The tables hold what is desired, no more and no less.
fn assert_holds(actual: &Actual, desired: &Desired) {
    for (key, identity) in &desired.frontends {
        let service = &desired.services[identity];
        let members: BTreeSet<_> = lookup(actual, key).unwrap().into_iter().collect();
        assert_eq!(
            members,
            service.shares.iter().map(|(key, _)| *key).collect(),
            "{}",
            service.key
        );
        assert_eq!(actual.services[&actual.frontends[key].service].identity, *identity);
    }
    assert_eq!(actual.frontends.len(), desired.frontends.len());
    assert_eq!(actual.services.len(), desired.services.len());
    assert_eq!(
        actual.slots.len(),
        actual.services.values().map(|s| s.count as usize).sum::<usize>()
    );
    let vips: BTreeMap<_, _> = actual.vips.iter().map(|(key, vip)| (*key, vip.frontends)).collect();
    assert_eq!(vips, desired.vips);

    let live: Vec<_> = actual.backends.values().filter(|b| b.state != BACKEND_GONE).collect();
    assert_eq!(
        live.iter().map(|b| key_of(b)).collect::<BTreeSet<_>>(),
        desired.backends.keys().copied().collect()
    );
    assert_eq!(live.len(), desired.backends.len());
    let node_of = |id: u32| {
        let node = actual.nodes[&id];
        assert_eq!(node.flags & abi::NODE_PRESENT, abi::NODE_PRESENT);
        (node.tunnel_v4, node.tunnel_v6)
    };
    for there in live {
        let wanted = &desired.backends[&key_of(there)];
        let node = &desired.nodes[&wanted.node];
        assert_eq!(node_of(there.node), (node.tunnel_v4, node.tunnel_v6));
        assert_eq!(there.state == BACKEND_READY, wanted.state == BackendState::Ready);
    }
    assert!(actual.local_backends.keys().eq(desired.local_backends.iter()));
    for (key, id) in &actual.local_backends {
        assert_eq!(key_of(&actual.backends[id]), *key);
        assert_ne!(actual.backends[id].state, BACKEND_GONE);
    }
    assert!(actual.addresses.keys().eq(desired.addresses.keys()));
    for (address, value) in &actual.addresses {
        let node = &desired.nodes[&desired.addresses[address]];
        assert_eq!(node_of(value.node), (node.tunnel_v4, node.tunnel_v6));
    }
    assert_eq!(
        actual
            .nodes
            .values()
            .filter(|n| n.flags & abi::NODE_PRESENT != 0)
            .count(),
        desired.nodes.len()
    );
}

/// Services s0 and s1 with a VIP and one backend each.
fn two_services(hosts: [usize; 2]) -> Snapshot {
    let service = |i: usize| Service {
        name: format!("s{i}"),
        network: "net0".into(),
        mode: EndpointMode::Vip,
        vips: vec![v4(0, 200 + i)],
        aliases: Vec::new(),
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 80,
            target: 8080,
            published: None,
        }],
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: vec![Backend {
            name: format!("s{i}.1"),
            node: "n0".into(),
            addresses: vec![v4(0, hosts[i])],
            port: None,
            state: BackendState::Ready,
            weight: 1,
            pending: false,
            aliases: Vec::new(),
        }],
    };
    Snapshot {
        generation: 1,
        nodes: vec![Node {
            name: "n0".into(),
            id: None,
            addresses: addresses(3, 99, 1),
        }],
        networks: vec![Network {
            name: "net0".into(),
            id: 1,
            subnets: Vec::new(),
            encrypted: false,
            overlay: false,
            ingress: false,
        }],
        services: vec![service(0), service(1)].into(),
    }
}

#[test]
fn a_service_that_cannot_be_changed_keeps_its_backend_and_stops_no_other() {
    let mut tables = Checked::new();
    assert!(apply(&diff(&compile(&two_services([1, 2])), &Actual::default()), &mut tables).is_complete());
    let desired = compile(&two_services([3, 4]));
    tables.expect(&desired);
    let plan = diff(&desired, &tables.actual());
    // The first new slot has no room.
    let mut failed = false;
    tables.fails = Box::new(move |map| map == "slots" && !std::mem::replace(&mut failed, true));
    let report = apply(&plan, &mut tables);
    assert_eq!(report.failed.len(), 1);
    assert!(report.to_string().contains("first failure: + slots "), "{report}");
    // Its flip, its old slot, its old backend.
    assert_eq!(report.skipped, 3);
    let answer = |vip: usize| {
        let actual = tables.actual();
        let key = desired
            .frontends
            .keys()
            .find(|key| key.address == v4(0, vip).into())
            .unwrap();
        lookup(&actual, key).unwrap()[0].address.to_string()
    };
    let mut answers = [answer(200), answer(201)];
    answers.sort();
    assert!(
        [["10.0.0.1", "10.0.0.4"], ["10.0.0.2", "10.0.0.3"]]
            .iter()
            .any(|a| answers == *a),
        "{answers:?}"
    );
    assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
    assert_holds(&tables.actual(), &desired);
}

#[test]
fn what_programs_may_still_read_goes_after_they_have_settled() {
    let mut tables = Checked::new();
    apply(&diff(&compile(&two_services([1, 2])), &Actual::default()), &mut tables);
    assert!(
        !tables.log.contains(&"settle"),
        "nothing goes, so there is nothing to wait for"
    );
    tables.log.clear();
    apply(&diff(&compile(&two_services([1, 3])), &tables.actual()), &mut tables);
    let expected = [
        "backends",
        "local_backends",
        "slots",
        "services",
        "settle",
        "slots",
        "local_backends",
        "backends",
    ];
    assert_eq!(tables.log, expected);
}

/// What of `now` differs from `before`, each compiled from its services alone.
fn parts(before: &Snapshot, now: &Snapshot) -> [Desired; 2] {
    let changes = now.services.changes(&before.services);
    let part = |services: &[std::sync::Arc<Service>]| {
        compile(&Snapshot {
            services: services.iter().cloned().collect(),
            ..now.clone()
        })
    };
    [part(&changes.gone), part(&changes.come)]
}

/// Puts `now` in force from what differs alone. False: that was not possible, and nothing was done.
fn follow(mirror: &mut Mirror, tables: &mut Checked, before: &Snapshot, now: &Snapshot) -> bool {
    let [had, wanted] = parts(before, now);
    let part = Part {
        had: &had,
        wanted: &wanted,
    };
    let Some(plan) = mirror.plan(part, &Reusable::default(), true) else {
        return false;
    };
    tables.expect(&compile(now));
    let report = apply(&plan, tables);
    assert!(report.is_complete(), "{report}");
    plan.ops.iter().for_each(|op| mirror.note(op));
    assert_eq!(mirror.rows(), &tables.actual());
    true
}

#[test]
fn few_changed_services_are_planned_from_their_own_rows() {
    let mut before = two_services([1, 2]);
    let mut tables = Checked::new();
    assert!(apply(&diff(&compile(&before), &Actual::default()), &mut tables).is_complete());
    let mut mirror = Mirror::new(tables.actual());
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change, usize); 8] = [
        ("nothing", |_| {}, 0),
        (
            "another backend",
            |s| s.services[1].backends[0].addresses = vec![v4(0, 3)],
            7,
        ),
        (
            "draining",
            |s| s.services[1].backends[0].state = BackendState::Draining,
            1,
        ),
        (
            "the backend is back",
            |s| s.services[1].backends[0].addresses = vec![v4(0, 2)],
            7,
        ),
        ("published", |s| s.services[0].ports[0].published = Some(30_000), 1),
        (
            "a timeout",
            |s| s.services[0].tcp_timeout = Some(std::time::Duration::from_secs(9)),
            1,
        ),
        ("gone", |s| s.services.retain(|service| service.name != "s0"), 7),
        (
            "come again",
            |s| {
                let mut service = two_services([1, 2]).services[0].clone();
                service.backends[0].addresses.push(v6(0, 1));
                s.services.push(service);
            },
            6,
        ),
    ];
    for (what, change, writes) in changes {
        let mut now = before.clone();
        change(&mut now);
        let [had, wanted] = parts(&before, &now);
        let part = Part {
            had: &had,
            wanted: &wanted,
        };
        let plan = mirror.plan(part, &Reusable::default(), true).expect(what);
        assert_eq!(plan.ops.len(), writes, "{what}: {plan}");
        assert!(follow(&mut mirror, &mut tables, &before, &now), "{what}");
        assert!(diff(&compile(&now), &tables.actual()).is_empty(), "{what}");
        assert_holds(&tables.actual(), &compile(&now));
        before = now;
    }
    // What is another's, or two have, is compared as a whole.
    for change in [
        (|s| s.services[0].vips = vec![v4(0, 200)]) as Change,
        |s| s.services[0].backends[0].addresses = vec![v4(0, 1)],
        |s| s.services[1].backends[0].node = "nowhere".into(),
    ] {
        let mut now = before.clone();
        change(&mut now);
        assert!(!follow(&mut mirror, &mut tables, &before, &now));
    }
}

type Numbers = (BTreeMap<EndpointKey, u32>, BTreeMap<u64, u32>);

fn numbers(actual: &Actual) -> Numbers {
    let live = actual.backends.iter().filter(|(_, b)| b.state != BACKEND_GONE);
    (
        live.map(|(id, b)| (key_of(b), *id)).collect(),
        actual.services.iter().map(|(id, s)| (s.identity, *id)).collect(),
    )
}

fn assert_same<K: Ord>(before: &BTreeMap<K, u32>, after: &BTreeMap<K, u32>) {
    for (key, id) in before {
        assert!(after.get(key).is_none_or(|there| there == id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Services change a few at a time; whatever they share, what is planned from a part is what the whole needs.
    #[test]
    fn parts_lead_where_the_whole_leads(
        first in snapshot(),
        steps in prop::collection::vec((snapshot(), prop::collection::vec(any::<bool>(), 6)), 1..8),
    ) {
        let mut tables = Checked::new();
        let mut before = first;
        before.services.retain(|s| s.ports.iter().all(|p| p.published.is_none()));
        let whole = |tables: &mut Checked, snapshot: &Snapshot| {
            let desired = compile(snapshot);
            tables.expect(&desired);
            assert!(apply(&diff(&desired, &tables.actual()), tables).is_complete());
            desired.separate.then(|| Mirror::new(tables.actual()))
        };
        let mut mirror = whole(&mut tables, &before);
        for (other, take) in steps {
            let mut now = before.clone();
            for (service, _) in other.services.iter().zip(&take).filter(|(_, take)| **take) {
                now.services.retain(|there| (&there.network, &there.name) != (&service.network, &service.name));
                now.services.push(service.clone());
            }
            for name in (0..3).filter(|i| take[*i + 3] && !take[*i]).map(|i| format!("s{i}")) {
                now.services.retain(|there| there.name != name);
            }
            let followed = mirror.as_mut().is_some_and(|mirror| follow(mirror, &mut tables, &before, &now));
            if !followed {
                mirror = whole(&mut tables, &now);
            }
            let desired = compile(&now);
            prop_assert!(diff(&desired, &tables.actual()).is_empty());
            assert_holds(&tables.actual(), &desired);
            before = now;
        }
    }

    #[test]
    fn every_step_is_valid_and_nothing_is_left(snapshots in prop::collection::vec(snapshot(), 1..5)) {
        let mut tables = Checked::new();
        for snapshot in &snapshots {
            let desired = compile(snapshot);
            tables.expect(&desired);
            let before = tables.actual();
            let plan = diff(&desired, &before);
            prop_assert!(plan.problems.is_empty());
            prop_assert_eq!(plan.ops.is_empty(), plan.changes.is_empty());
            prop_assert!(plan.ops.is_sorted_by_key(|op| op.phase));
            let report = apply(&plan, &mut tables);
            prop_assert!(report.is_complete());
            prop_assert_eq!(report.done, plan.ops.len());
            let after = tables.actual();
            let again = diff(&desired, &after);
            prop_assert!(again.is_empty(), "{again}\n{:?}", again.ops);
            assert_holds(&after, &desired);
            // The next plan starts from the tables alone, as a restarted agent does.
            let (before, after) = (numbers(&before), numbers(&after));
            assert_same(&before.0, &after.0);
            assert_same(&before.1, &after.1);
        }
    }

    #[test]
    fn failed_writes_leave_lookups_valid_and_are_made_up_for(
        snapshots in prop::collection::vec(snapshot(), 1..5),
        seed in any::<u64>(),
    ) {
        let mut tables = Checked::new();
        for snapshot in &snapshots {
            let desired = compile(snapshot);
            tables.expect(&desired);
            let mut random = seed | 1;
            tables.fails = Box::new(move |_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % 5 == 0
            });
            for _ in 0..3 {
                let plan = diff(&desired, &tables.actual());
                let report = apply(&plan, &mut tables);
                prop_assert_eq!(report.done + report.failed.len() + report.skipped, plan.ops.len());
                prop_assert!(report.skipped == 0 || !report.failed.is_empty());
            }
            tables.fails = Box::new(|_| false);
            prop_assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
            prop_assert!(diff(&desired, &tables.actual()).is_empty());
            assert_holds(&tables.actual(), &desired);
        }
    }

    #[test]
    fn an_interrupted_apply_is_finished_by_the_next(
        first in snapshot(), second in snapshot(), third in snapshot(), stop in 0.0..1.0_f64,
    ) {
        let mut tables = Checked::new();
        let (first, second, third) = (compile(&first), compile(&second), compile(&third));
        apply(&diff(&first, &Actual::default()), &mut tables);
        tables.expect(&second);
        let mut plan = diff(&second, &tables.actual());
        plan.ops.truncate((plan.ops.len() as f64 * stop) as usize);
        apply(&plan, &mut tables);
        tables.expect(&third);
        apply(&diff(&third, &tables.actual()), &mut tables);
        prop_assert!(diff(&third, &tables.actual()).is_empty());
        assert_holds(&tables.actual(), &third);
    }

    #[test]
    fn the_order_of_the_snapshot_does_not_matter(snapshot in snapshot()) {
        let mut reversed = snapshot.clone();
        reversed.nodes.reverse();
        reversed.networks.reverse();
        reversed.services = reversed.services.iter().rev().cloned().collect();
        prop_assert_eq!(compile(&snapshot), compile(&reversed));
    }

    /// Whatever the tables hold, even rows that no plan has written, one plan mends them.
    #[test]
    fn damaged_tables_are_mended(snapshot in snapshot(), other in snapshot(), damage in any::<u64>()) {
        let (desired, other) = (compile(&snapshot), compile(&other));
        let mut tables = Checked::new();
        apply(&diff(&other, &Actual::default()), &mut tables);
        let damaged = |i: usize| damage.rotate_right(i as u32) & 3 == 3;
        let actual = tables.actual();
        for (i, key) in actual.slots.keys().enumerate().filter(|(i, _)| damaged(*i)) {
            if i % 2 == 0 {
                tables.delete::<abi::Slots>(key).unwrap();
            } else {
                tables.set::<abi::Slots>(key, &(i as u32)).unwrap();
            }
        }
        for (i, (id, service)) in actual.services.iter().enumerate().filter(|(i, _)| damaged(i + 7)) {
            let twin = id + 100 * (i as u32 % 2);
            tables.set::<abi::Services>(&twin, &abi::Service { generation: 9, ..*service }).unwrap();
        }
        for (i, (id, backend)) in actual.backends.iter().enumerate().filter(|(i, _)| damaged(i + 13)) {
            let twin = id + 100 * (i as u32 % 2);
            tables.set::<abi::Backends>(&twin, &abi::Backend { generation: 5, ..*backend }).unwrap();
        }
        for (i, key) in actual.frontends.keys().enumerate().filter(|(i, _)| damaged(i + 29)) {
            tables.set::<abi::Frontends>(key, &abi::Frontend { service: i as u32, flags: 0 }).unwrap();
        }
        prop_assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
        let again = diff(&desired, &tables.actual());
        prop_assert!(again.is_empty(), "{again}\n{:?}", again.ops);
        assert_holds(&tables.actual(), &desired);
    }
}
