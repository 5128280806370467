//! Pages and tables from fixed items, as people see them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_userspace::admin::api::*;
use lb_userspace::model::snapshot::Protocol;
use lb_userspace::provider::docker::Drift;
use lb_userspace::stream::{ManagerStatus, Role, Source, StreamStatus};

use super::service;
use crate::output::{Context, View as _};

fn context(wide: bool) -> Context {
    Context {
        wide,
        source: Origin::Agent,
        now: now(),
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn busy() -> Status {
    let hook = |hook: &str, mode: &str, why: Option<&str>| HookStatus {
        hook: hook.into(),
        mode: mode.into(),
        why: why.map(Into::into),
    };
    let map = |name: &str, entries, max_entries| MapStatus {
        name: name.into(),
        id: 1,
        kind: "hash".into(),
        key_size: 16,
        value_size: 32,
        entries,
        max_entries,
        memory_bytes: 1_000_000,
    };
    let traffic = |reason: &str, verdict: &str, packets| Traffic {
        reason: reason.into(),
        verdict: verdict.into(),
        packets,
        bytes: packets * 100,
    };
    Status {
        ready: true,
        agent: Some(AgentStatus {
            pid: 812,
            version: "0.3.1".into(),
            node: "worker-2".into(),
            addresses: vec!["10.0.0.12".parse().unwrap(), "fd00::12".parse().unwrap()],
            started: now() - Duration::from_secs(3 * 86_400 + 4 * 3600),
        }),
        provider: Some(ProviderStatus {
            kind: "file".into(),
            location: "/etc/lb/cluster.toml".into(),
            connected: false,
            error: Some(ProviderError {
                message: "port 70000 is above 65535".into(),
                file: Some("/etc/lb/cluster.toml".into()),
                line: Some(14),
                field: Some("services[0].ports[0].port".into()),
            }),
            generation: 418,
            applied: 417,
            sync_error: None,
            last_sync: Some(now() - Duration::from_secs(2)),
            last_sync_ms: Some(7.25),
        }),
        swarm: Some(SwarmStatus {
            role: "worker".into(),
            node: "f7ky63f14ew65xt9b8u19096w".into(),
            containers: 7,
            drift: Some(Drift {
                missing: vec!["shop/web 10.0.1.9".into()],
                surplus: Vec::new(),
            }),
            stream: StreamStatus {
                role: Role::Worker,
                source: Source::Manager {
                    address: "192.0.2.1:4790".parse().unwrap(),
                    node: "l5674lfl47vz8s3qmkm8qhi01".into(),
                },
                age_ms: Some(350),
                managers: vec![ManagerStatus {
                    address: "192.0.2.1:4790".parse().unwrap(),
                    node: None,
                    connected: true,
                    current: true,
                    generation: Some(4),
                    age_ms: Some(350),
                    error: None,
                }],
                ..StreamStatus::default()
            },
            ..SwarmStatus::default()
        }),
        datapath: DatapathStatus {
            schema: 1,
            interfaces: vec![
                InterfaceStatus {
                    name: "eth0".into(),
                    namespace: String::new(),
                    ifindex: 2,
                    role: "node".into(),
                    hooks: vec![
                        hook("xdp", "off", Some("veth loses what XDP transmits")),
                        hook("tc_ingress", "tcx", None),
                    ],
                },
                InterfaceStatus {
                    name: "veth5f2c".into(),
                    namespace: String::new(),
                    ifindex: 9,
                    role: "workload".into(),
                    hooks: vec![
                        hook("tc_ingress", "tcx", Some("workload")),
                        hook("tc_egress", "off", Some("no such device")),
                    ],
                },
            ],
        },
        dns: Some(DnsStatus {
            listen: vec!["127.0.0.1:53".parse().unwrap()],
            networks: 12,
            names: 40,
            queries: 12_345,
            servfail: 2,
        }),
        refused: vec![Refused {
            network: "secret".into(),
            reason: "encrypted; left to dockerd".into(),
        }],
        pressed: false,
        maps: vec![
            map("flows4", 18_204, 524_288),
            map("services", 42, 4096),
            map("vips", 3, 100),
        ],
        traffic: vec![
            traffic("forward_local", "forward", 21_400),
            traffic("forward_tunnel", "forward", 600),
            traffic("not_a_service", "pass", 3100),
            traffic("no_route", "drop", 2),
            traffic("malformed", "drop", 7),
            traffic("rewrite_failed", "drop", 0),
        ],
    }
}

#[test]
fn status_of_a_busy_node() {
    insta::assert_snapshot!("status", Status::page(&[busy()], &context(false)).unwrap());
    insta::assert_snapshot!("status_wide", Status::page(&[busy()], &context(true)).unwrap());
}

#[test]
fn status_json_is_stable() {
    let list = List::new(Origin::Agent, vec![busy()]);
    let json = serde_json::to_string_pretty(&list).unwrap();
    assert_eq!(serde_json::from_str::<List<Status>>(&json).unwrap(), list);
    insta::assert_snapshot!("status_json", json);
}

#[test]
fn ports_as_docker_writes_them() {
    let of = |port, target, published| {
        service::port(&Port {
            protocol: Protocol::Tcp,
            port,
            target,
            published,
        })
    };
    assert_eq!(of(Some(80), Some(80), None), "80/tcp");
    assert_eq!(of(Some(80), Some(8080), None), "80->8080/tcp");
    assert_eq!(of(None, Some(8080), Some(443)), "*:443->8080/tcp");
    assert_eq!(of(Some(80), Some(8080), Some(443)), "*:443->8080/tcp,80->8080/tcp");
}

#[test]
fn programs_with_and_without_statistics() {
    let items = [
        Program {
            pin: "links/tcx_ingress-eth0".into(),
            name: Some("tc_node".into()),
            id: Some(31),
            tag: Some("0123456789abcdef".into()),
            hook: Some("tcx_ingress".into()),
            ifindex: Some(2),
            interface: Some("eth0".into()),
            run_count: Some(1_200_000),
            run_time_ns: Some(240_000_000),
            note: None,
        },
        Program {
            pin: "links/xdp-7".into(),
            hook: Some("xdp".into()),
            ifindex: Some(0),
            ..Default::default()
        },
        Program {
            pin: "programs/xdp_node".into(),
            note: Some("permission denied".into()),
            ..Default::default()
        },
    ];
    insta::assert_snapshot!("programs", Program::table(&items, &context(true)).render(true));
}

#[test]
fn doctor_counts_and_shows_the_fix() {
    let check = |id: &str, level, fix: Option<&str>| Check {
        id: id.into(),
        level,
        finding: format!("about {id}"),
        fix: fix.map(Into::into),
    };
    let items = [
        check("kernel", Level::Pass, None),
        check("rp_filter", Level::Warn, Some("sysctl -w x=2")),
        check("bpffs", Level::Fail, Some("mount it")),
    ];
    insta::assert_snapshot!("doctor", Check::page(&items, &context(false)).unwrap());
}

#[test]
fn maps_show_fill_rounded_up() {
    let mut status = busy();
    status.maps[1].entries = 1;
    insta::assert_snapshot!("maps", MapStatus::table(&status.maps, &context(true)).render(true));
}
