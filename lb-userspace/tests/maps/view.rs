//! `datapath::view` over real BPF maps in a bpffs of the test's own.

use std::collections::BTreeMap;

use aya_obj::generated::bpf_map_type;
use lb_common::abi::{self, FlowKey4, Flows4};
use lb_userspace::datapath::view::{View, ViewError};
use lb_userspace::plan::store::ReadTables as _;

use crate::pinned;

#[test]
fn reads_hashes_and_arrays_across_batches() {
    let Some(pinned) = pinned::bpffs() else { return };
    pinned.create_all();
    let flows: BTreeMap<_, _> = (0..15_000u32)
        .map(|i| {
            let key = FlowKey4 {
                source: i.to_be_bytes(),
                source_port: 7,
                ..Default::default()
            };
            (
                key,
                abi::Flow {
                    backend: i,
                    ..Default::default()
                },
            )
        })
        .collect();
    pinned.insert::<Flows4>(flows.clone());
    let backend = abi::Backend {
        port: 80,
        ..Default::default()
    };
    // Numbers are given out from the lowest: the stretch of zeros behind the last one in use is not read.
    let backends: BTreeMap<_, _> = (1..9_999u32).map(|id| (id, backend)).collect();
    for id in backends.keys() {
        pinned.set::<abi::Backends>(*id, backend);
    }

    let view = View::find(pinned.path()).unwrap();
    assert_eq!(view.entries::<Flows4>().unwrap(), flows);
    assert_eq!(view.entries::<abi::Backends>().unwrap(), backends);
    assert!(view.entries::<abi::Flows6>().unwrap().is_empty());

    let (key, flow) = flows.last_key_value().unwrap();
    assert_eq!(view.get::<Flows4>(key).unwrap(), Some(*flow));
    assert_eq!(view.get::<Flows4>(&FlowKey4::default()).unwrap(), None);
    assert_eq!(view.get::<abi::Backends>(&1).unwrap(), Some(backend));
    assert_eq!(view.get::<abi::Backends>(&9_999).unwrap(), None);

    let info = view.map_info().unwrap();
    let map = |name: &str| info.iter().find(|m| m.name == name).unwrap();
    assert_eq!(
        (
            map("flows4").entries,
            map("flows4").max_entries,
            map("flows4").kind.as_str()
        ),
        (15_000, 20_000, "hash")
    );
    assert_eq!(
        (map("backends").entries, map("backends").kind.as_str()),
        (9_998, "array")
    );
    assert!(map("flows4").memory > 15_000 * 48, "{:?}", map("flows4"));
    assert_eq!(info.len(), abi::TABLE_NAMES.len() + 2);
}

#[test]
fn counters_are_summed_over_cpus() {
    let Some(pinned) = pinned::bpffs() else { return };
    pinned.create_all();
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    pinned.set_percpu(abi::COUNTERS, 42, |cpu| abi::Counter {
        packets: cpu + 1,
        bytes: 100,
    });
    pinned.insert::<abi::Services>(BTreeMap::from([(99, abi::Service::default())]));
    pinned.set_percpu(abi::SERVICE_COUNTERS, 99, |_| abi::ServiceCounter {
        flows: 2,
        ..Default::default()
    });

    let view = View::open(&pinned.maps()).unwrap();
    let packets = cpus * (cpus + 1) / 2;
    assert_eq!(
        view.counters().unwrap(),
        BTreeMap::from([(
            42,
            abi::Counter {
                packets,
                bytes: 100 * cpus
            }
        )])
    );
    let service = abi::ServiceCounter {
        flows: 2 * cpus,
        ..Default::default()
    };
    assert_eq!(view.service_counters().unwrap(), BTreeMap::from([(99, service)]));
}

#[test]
fn another_layout_is_refused_by_name() {
    let Some(pinned) = pinned::bpffs() else { return };
    assert!(matches!(View::find(pinned.path()), Err(ViewError::NotFound(_))));

    pinned.create(
        "settings",
        bpf_map_type::BPF_MAP_TYPE_ARRAY,
        4,
        size_of::<abi::Settings>(),
        1,
    );
    let error = View::find(pinned.path()).unwrap_err();
    assert!(matches!(error, ViewError::Schema { .. }), "{error}");
    let missing = format!("v{}/interfaces: no such map", abi::SCHEMA_VERSION);
    assert!(error.to_string().contains(&missing), "{error}");

    std::fs::rename(pinned.maps(), pinned.path().join("v999")).unwrap();
    let error = View::find(pinned.path()).unwrap_err();
    let told = format!(
        "v999: holds schema v999; this program reads schema v{}",
        abi::SCHEMA_VERSION
    );
    assert!(error.to_string().ends_with(&told), "{error}");
}

#[test]
fn another_value_size_is_refused_with_both_sizes() {
    let Some(pinned) = pinned::bpffs() else { return };
    pinned.create("settings", bpf_map_type::BPF_MAP_TYPE_ARRAY, 4, 40, 1);
    let error = View::find(pinned.path()).unwrap_err().to_string();
    let told = format!(
        "keys of 4 and values of 40 bytes where 4 and {} are expected",
        size_of::<abi::Settings>()
    );
    assert!(error.contains(&told), "{error}");
}
