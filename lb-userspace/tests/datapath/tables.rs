//! Tables: their layout, their capacity, what is written and read.

use std::collections::BTreeMap;
use std::fs;

use lb_common::abi::{self, Backend, Backends, Replies4, Slots};
use lb_common::address::Address;
use lb_userspace::datapath::store::{Access, Store};
use lb_userspace::datapath::{OBJECT, layout, load};
use lb_userspace::plan::store::{ReadTables, WriteTables};

use crate::sandbox::{capacity, in_sandbox};

#[test]
fn a_map_of_another_layout_stops_the_start_and_is_left_alone() {
    in_sandbox("layout", |sandbox| {
        let bpffs = sandbox.bpffs();
        drop(load::load(OBJECT, &bpffs, capacity(4096)).expect("load"));
        let directory = layout::versioned(&bpffs);
        // The flow table takes the place of another table.
        fs::remove_file(directory.join("vips")).expect("unpin");
        fs::rename(directory.join("nodes"), directory.join("vips")).expect("rename");
        let error = load::load(OBJECT, &bpffs, capacity(4096))
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("vips") && error.contains("type") && error.contains("uninstall"),
            "{error}"
        );
        assert!(directory.join("vips").exists());
    });
}

#[test]
fn the_capacity_of_adopted_flow_tables_stays() {
    in_sandbox("capacity", |sandbox| {
        let bpffs = sandbox.bpffs();
        assert_eq!(
            load::load(OBJECT, &bpffs, capacity(4096)).expect("load").capacity,
            capacity(4096)
        );
        let second = load::load(OBJECT, &bpffs, capacity(8192)).expect("load again");
        assert!(second.adopted);
        assert_eq!(second.capacity.flows, 4096);
        let store = Store::open(&second.directory, Access::Read).expect("store");
        assert_eq!(store.capacity::<Replies4>(), 4096);
    });
}

#[test]
fn tables_read_back_what_was_written() {
    in_sandbox("tables", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(4096)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        assert!(store.entries::<Backends>().expect("read").is_empty());
        let backend = |i: u32| Backend {
            address: Address::v4(i.to_be_bytes()),
            port: 80,
            generation: i,
            ..Backend::default()
        };
        let mut expected = BTreeMap::new();
        for i in [0, 1, 7, 5000, 262_143] {
            store.set::<Backends>(&i, &backend(i)).expect("write");
            if backend(i) != Backend::default() {
                expected.insert(i, backend(i));
            }
        }
        assert_eq!(store.entries::<Backends>().expect("read"), expected);
        store.delete::<Backends>(&262_143).expect("delete");
        expected.remove(&262_143);
        assert_eq!(store.entries::<Backends>().expect("read"), expected);

        // A hundred thousand entries, each in the same time: if each took longer than the one before, hours would not do.
        let slot = |index| abi::SlotKey {
            service: 1,
            generation: 1,
            index,
        };
        let start = std::time::Instant::now();
        for index in 0..100_000 {
            store.set::<Slots>(&slot(index), &index).expect("write");
        }
        let slots = store.entries::<Slots>().expect("read");
        assert_eq!(slots.len(), 100_000);
        assert!(slots.iter().all(|(key, value)| key.index == *value));
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
        assert_eq!(store.get::<Slots>(&slot(5)).expect("get"), Some(5));
        store.delete::<Slots>(&slot(5)).expect("delete");
        store.delete::<Slots>(&slot(5)).expect("delete again");
        assert_eq!(store.get::<Slots>(&slot(5)).expect("get"), None);
    });
}
