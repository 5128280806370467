//! `lbctl` without an agent: over real pinned maps, and without anything.

use std::path::Path;
use std::process::{Command, Output};

use lb_common::abi::{self, EndpointKey, SCHEMA_VERSION, SlotKey};
use lb_common::address::Address;
use lb_userspace::datapath::view::now_ticks;

use crate::pinned;

fn lbctl(bpffs: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbctl"))
        .env_clear()
        .args(arguments.split(' '))
        .arg("--bpffs")
        .arg(bpffs)
        .arg("--socket")
        .arg(std::env::temp_dir().join("lbctl-without-agent/no-agent.sock"))
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fill(pinned: &pinned::Pinned) {
    pinned.create_all();
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let key = |address, network, port| EndpointKey {
        address,
        network,
        port,
        protocol: abi::TCP,
        family: 4,
    };
    let frontend = abi::Frontend { service: 17, flags: 0 };
    pinned.insert::<abi::Frontends>([
        (key(address("10.0.1.9"), 7, 80), frontend),
        (key(Address::ANY, 0, 30080), frontend),
    ]);
    pinned.insert::<abi::Services>([(
        17,
        abi::Service {
            generation: 1,
            count: 1,
            ..Default::default()
        },
    )]);
    pinned.insert::<abi::Slots>([(
        SlotKey {
            service: 17,
            generation: 1,
            index: 0,
        },
        5,
    )]);
    let backend = abi::Backend {
        address: address("10.0.1.21"),
        network: 7,
        node: 1,
        generation: 3,
        port: 8080,
        protocol: abi::TCP,
        state: abi::BACKEND_READY,
        flags: abi::BACKEND_LOCAL,
        ..Default::default()
    };
    pinned.set::<abi::Backends>(5, backend);
    pinned.set::<abi::Nodes>(
        1,
        abi::Node {
            tunnel_v4: address("192.0.2.1"),
            flags: abi::NODE_PRESENT | abi::NODE_LOCAL,
            ..Default::default()
        },
    );
    pinned.set::<abi::SettingsTable>(
        0,
        abi::Settings {
            tunnel_port: 4789,
            tunnel_mtu: 1450,
            ..Default::default()
        },
    );
    let flow = abi::Flow {
        backend: 5,
        generation: 3,
        service: 17,
        last_seen: now_ticks(),
        created: now_ticks(),
        timeout: abi::ticks(3_600_000),
        source_port: 4000,
        state: abi::FLOW_ESTABLISHED,
        ..Default::default()
    };
    let key = abi::FlowKey4 {
        source: [198, 51, 100, 9],
        destination: [10, 0, 1, 9],
        source_port: 4000,
        destination_port: 80,
        network_protocol: 7 << 8 | u32::from(abi::TCP),
    };
    pinned.insert::<abi::Flows4>([(key, flow)]);
}

#[test]
fn with_the_agent_dead_the_maps_still_tell() {
    let Some(pinned) = pinned::bpffs() else { return };
    fill(&pinned);
    let services = lbctl(pinned.path(), "service ls");
    assert_eq!(services.status.code(), Some(0));
    let note = stderr(&services);
    assert!(note.starts_with("note: agent not reachable ("), "{note}");
    assert!(
        note.ends_with("no-agent.sock: no such file); reading pinned maps, names unknown\n"),
        "{note}"
    );
    insta::assert_snapshot!("maps_service_ls", stdout(&services));
    insta::assert_snapshot!(
        "maps_service_ps",
        stdout(&lbctl(pinned.path(), "service ps 17 --from maps"))
    );
    insta::assert_snapshot!(
        "maps_backend_ls",
        stdout(&lbctl(pinned.path(), "--from maps backend ls"))
    );
    let count = lbctl(pinned.path(), "conn count --from maps -f client=198.51.100.9");
    assert_eq!((stdout(&count).as_str(), stderr(&count).as_str()), ("1\n", ""));
    let flows = stdout(&lbctl(pinned.path(), "conn ls --from maps"));
    assert!(
        flows.contains("tcp    198.51.100.9:4000  10.0.1.9:80  10.0.1.21:8080  established"),
        "{flows}"
    );
    let status = stdout(&lbctl(pinned.path(), "status --from maps"));
    assert!(status.starts_with("AGENT      not asked"), "{status}");
    assert!(status.contains("flows4 1/20000 (1%)"), "{status}");
}

#[test]
fn maps_are_listed_and_dumped() {
    let Some(pinned) = pinned::bpffs() else { return };
    fill(&pinned);
    let names = stdout(&lbctl(pinned.path(), "map ls -q"));
    assert_eq!(names.lines().count(), abi::TABLE_NAMES.len() + 2, "{names}");
    for name in names.lines() {
        let dump = lbctl(pinned.path(), &format!("map dump {name} -o json"));
        assert_eq!(dump.status.code(), Some(0), "{name}: {}", stderr(&dump));
    }
    insta::assert_snapshot!("map_dump", stdout(&lbctl(pinned.path(), "map dump frontends -o json")));
    let settings = stdout(&lbctl(pinned.path(), "map dump settings --no-headers"));
    assert!(settings.contains("tunnel_mtu=1450 tunnel_port=4789"), "{settings}");
    let unknown = lbctl(pinned.path(), "map dump flow");
    assert_eq!(unknown.status.code(), Some(5));
    let none = lbctl(pinned.path(), "prog ls --no-headers");
    assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(0), ""));
}

#[test]
fn exit_codes_without_an_agent() {
    let Some(pinned) = pinned::bpffs() else { return };
    fill(&pinned);
    assert_eq!(
        lbctl(pinned.path(), "service inspect nope --from maps").status.code(),
        Some(5)
    );
    assert_eq!(lbctl(pinned.path(), "plan").status.code(), Some(3));
    assert_eq!(lbctl(pinned.path(), "service ls --from agent").status.code(), Some(3));
    assert_eq!(lbctl(pinned.path(), "doctor").status.code(), Some(1));
    std::fs::rename(pinned.maps(), pinned.path().join("v999")).unwrap();
    let other = lbctl(pinned.path(), "service ls");
    assert_eq!(other.status.code(), Some(6), "{}", stderr(&other));
    let told = format!("holds schema v999; this program reads schema v{SCHEMA_VERSION}");
    assert!(stderr(&other).contains(&told));
}

#[test]
fn neither_agent_nor_maps() {
    let directory = tempfile::tempdir().unwrap();
    let output = lbctl(directory.path(), "status");
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(
        text.starts_with("error: agent not reachable (") && text.contains(", and no maps pinned under "),
        "{text}"
    );
    assert!(text.contains("\n  hint: is lb-agent running?"), "{text}");
    let json = lbctl(directory.path(), "conn ls -o json");
    assert_eq!(json.status.code(), Some(3));
    let error: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "unavailable");
    assert_eq!(lbctl(directory.path(), "no-such-verb").status.code(), Some(2));
    assert_eq!(lbctl(directory.path(), "map dump nope").status.code(), Some(5));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lbctl"))
        .args(["docs", "lbctl"])
        .current_dir(directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn completions_and_version_need_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&lbctl(directory.path(), &format!("completion {shell}")));
        assert!(script.contains("doctor"), "{shell}");
    }
    let told = format!("api v1   schema v{SCHEMA_VERSION}\n");
    assert!(stdout(&lbctl(directory.path(), "version")).ends_with(&told));
}
