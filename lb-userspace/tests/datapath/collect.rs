//! What is dead is collected, and nothing else.

use std::collections::BTreeMap;

use lb_common::abi::{self, Backend, Backends, FlowKey4, Flows4, Replies4};
use lb_common::address::Address;
use lb_userspace::datapath::collect::Collector;
use lb_userspace::datapath::store::{Access, Store};
use lb_userspace::datapath::{OBJECT, clock, load};
use lb_userspace::plan::store::{ReadTables, WriteTables};

use crate::sandbox::{capacity, in_sandbox};

#[test]
fn only_dead_flows_and_lost_replies_are_collected() {
    in_sandbox("collect", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(65_536)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        let now = clock::now();
        let backend = Backend {
            address: Address::v4([10, 0, 0, 2]),
            delivery: Address::v4([10, 0, 0, 2]),
            port: 80,
            generation: 1,
            state: abi::BACKEND_READY,
            ..Backend::default()
        };
        store.set::<Backends>(&3, &backend).expect("backend");
        let key = |port| FlowKey4 {
            source: [192, 0, 2, 1],
            destination: [203, 0, 113, 1],
            source_port: port,
            destination_port: 8080,
            network_protocol: u32::from(abi::TCP),
        };
        let flow = |port, last_seen| abi::Flow {
            backend: 3,
            generation: 1,
            service: 9,
            last_seen,
            // Those that are to live do so however long the tables take to fill.
            timeout: abi::ticks(3_600_000),
            source_port: port,
            ..abi::Flow::default()
        };
        let reply_key = |port| FlowKey4 {
            source: [10, 0, 0, 2],
            destination: [192, 0, 2, 1],
            source_port: 80,
            destination_port: port,
            network_protocol: u32::from(abi::TCP),
        };
        let reply = |port| abi::Reply {
            frontend: Address::v4([203, 0, 113, 1]),
            client: Address::v4([192, 0, 2, 1]),
            frontend_port: 8080,
            client_port: port,
            network: 0,
            kind: abi::REPLY_PUBLISHED,
            bound: 0,
        };
        for port in 1..=10_000 {
            let last_seen = if port <= 4000 {
                now.wrapping_sub(abi::ticks(7_200_000))
            } else {
                now
            };
            store.set::<Flows4>(&key(port), &flow(port, last_seen)).expect("flow");
            store.set::<Replies4>(&reply_key(port), &reply(port)).expect("reply");
        }
        let collector = Collector::new(Store::open(&loaded.directory, Access::Write).expect("store"));
        let first = collector.walk().expect("walk");
        assert_eq!((first.flows4, first.expired, first.orphans), (6000, 4000, 4000));
        let second = collector.walk().expect("walk");
        assert_eq!((second.flows4, second.expired, second.orphans), (6000, 0, 0));
        assert_eq!(store.entries::<Flows4>().expect("flows").len(), 6000);
        assert_eq!(store.entries::<Replies4>().expect("replies").len(), 6000);
    });
}

#[test]
fn elements_that_are_gone_are_looked_for_when_new_ones_become_scarce() {
    in_sandbox("gone", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(1024)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        let backend = |state| Backend {
            address: Address::v4([10, 0, 0, 2]),
            generation: 7,
            state,
            ..Backend::default()
        };
        let gone = backend(abi::BACKEND_GONE);
        for id in [3, 4] {
            store.set::<Backends>(&id, &gone).expect("backend");
        }
        let flow = abi::Flow {
            backend: 4,
            generation: 7,
            last_seen: clock::now(),
            timeout: abi::ticks(3_600_000),
            ..abi::Flow::default()
        };
        store.set::<Flows4>(&FlowKey4::default(), &flow).expect("flow");
        let collector = Collector::new(Store::open(&loaded.directory, Access::Write).expect("store"));
        let unused = || collector.walk().expect("walk").unused;
        assert_eq!(unused(), BTreeMap::new());
        let ready = backend(abi::BACKEND_READY);
        for id in 5..abi::capacity::BACKENDS / 4 * 3 + 1 {
            store.set::<Backends>(&id, &ready).expect("backend");
        }
        assert_eq!(unused(), BTreeMap::from([(3, 7)]), "a flow refers to the other");
    });
}
