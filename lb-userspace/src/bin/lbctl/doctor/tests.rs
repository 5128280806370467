//! The checks over facts made up here.

use lb_userspace::admin::api::{AgentStatus, ProviderError, ProviderStatus, Status};

use super::*;

pub(super) fn healthy() -> Facts {
    let interfaces = vec![InterfaceStatus {
        name: "eth0".into(),
        namespace: String::new(),
        ifindex: 2,
        role: "node".into(),
        hooks: vec![HookStatus {
            hook: "tc_ingress".into(),
            mode: "tcx".into(),
            why: None,
        }],
    }];
    let map = |name: &str, entries| MapStatus {
        name: name.into(),
        id: 1,
        kind: "hash".into(),
        key_size: 16,
        value_size: 32,
        entries,
        max_entries: 100,
        memory_bytes: 4096,
    };
    Facts {
        release: "6.18.1".into(),
        kernel: Some((6, 18)),
        btf: true,
        jit: Some(1),
        bpffs: "/sys/fs/bpf/lb".into(),
        bpffs_mounted: Some(true),
        agent: Ok(Status {
            ready: true,
            agent: Some(AgentStatus {
                pid: 812,
                version: "0.1.0".into(),
                node: "n1".into(),
                addresses: vec![],
                started: std::time::UNIX_EPOCH,
            }),
            provider: Some(ProviderStatus {
                generation: 4,
                applied: 4,
                connected: true,
                ..Default::default()
            }),
            ..Default::default()
        }),
        capabilities: Some(1 << 12 | 1 << 38 | 1 << 39),
        other_netns: None,
        maps: Maps::Open(vec![map("frontends", 3), map("flows4", 40)]),
        interfaces,
        forward_v4: Some(true),
        forward_v6: Some(true),
        rp_filter: vec![("eth0".into(), 2)],
        tunnel_mtu: Some(1450),
        mtus: vec![("eth0".into(), 1500)],
        config: Ok(()),
        swarm: None,
    }
}

/// Ids of the checks that did not pass.
pub(super) fn complaints(facts: &Facts) -> Vec<(String, Level)> {
    let checks = judge(facts).into_iter().filter(|c| c.level != Level::Pass);
    checks
        .map(|c| {
            assert!(c.fix.is_some(), "{}: no fix", c.id);
            (c.id, c.level)
        })
        .collect()
}

fn one(change: impl FnOnce(&mut Facts)) -> Vec<(String, Level)> {
    let mut facts = healthy();
    change(&mut facts);
    complaints(&facts)
}

#[test]
fn a_healthy_node_passes_every_check() {
    assert_eq!(complaints(&healthy()), []);
}

#[test]
fn each_fault_is_found_alone() {
    let only = |id: &str, level| vec![(id.to_owned(), level)];
    assert_eq!(one(|f| f.kernel = Some((5, 4))), only("kernel", Level::Fail));
    assert_eq!(one(|f| f.kernel = Some((6, 1))), only("kernel", Level::Warn));
    assert_eq!(one(|f| f.btf = false), only("btf", Level::Fail));
    assert_eq!(one(|f| f.jit = Some(0)), only("jit", Level::Warn));
    assert_eq!(one(|f| f.bpffs_mounted = Some(false)), only("bpffs", Level::Fail));
    assert_eq!(one(|f| f.agent = Err("no answer".into())), only("agent", Level::Fail));
    assert_eq!(
        one(|f| f.capabilities = Some(1 << 12 | 1 << 38)),
        only("capabilities", Level::Fail)
    );
    assert_eq!(one(|f| f.capabilities = Some(1 << 12 | 1 << 21)), []);
    assert_eq!(one(|f| f.config = Err("line 3".into())), only("config", Level::Fail));
    assert_eq!(one(|f| f.other_netns = Some(812)), only("netns", Level::Warn));
    assert_eq!(
        one(|f| f.maps = Maps::OtherSchema("v2".into())),
        only("schema", Level::Fail)
    );
    assert_eq!(one(|f| f.interfaces.clear()), only("programs", Level::Fail));
    assert_eq!(
        one(|f| f.interfaces[0].hooks[0].mode = "off".into()),
        only("programs", Level::Fail)
    );
    assert_eq!(
        one(|f| f.interfaces[0].hooks[0].mode = "generic".into()),
        only("xdp-mode", Level::Warn)
    );
    assert_eq!(one(|f| f.forward_v4 = Some(false)), only("ip_forward", Level::Fail));
    assert_eq!(one(|f| f.forward_v6 = Some(false)), only("ip6_forward", Level::Warn));
    assert_eq!(one(|f| f.rp_filter[0].1 = 1), only("rp_filter", Level::Warn));
    assert_eq!(one(|f| f.tunnel_mtu = Some(1600)), only("tunnel-mtu", Level::Fail));
    assert_eq!(one(|f| f.tunnel_mtu = Some(1200)), only("tunnel-mtu", Level::Warn));
    let error = ProviderError {
        message: "unknown node".into(),
        ..Default::default()
    };
    let broken = one(|f| f.agent.as_mut().unwrap().provider.as_mut().unwrap().error = Some(error));
    assert_eq!(broken, only("provider", Level::Fail));
}

#[test]
fn clsact_filters_without_an_agent_are_not_called_missing() {
    let found = one(|f| {
        f.kernel = Some((6, 1));
        f.agent = Err("no answer".into());
        f.interfaces.clear();
    });
    assert_eq!(found.last(), Some(&("programs".into(), Level::Warn)));
}

#[test]
fn a_full_map_is_told_before_it_is_full() {
    let with = |entries| {
        one(|f| {
            let Maps::Open(maps) = &mut f.maps else { unreachable!() };
            maps[1].entries = entries;
        })
    };
    assert_eq!(with(79), []);
    assert_eq!(with(80), [("map-fill".into(), Level::Warn)]);
    assert_eq!(with(98), [("map-fill".into(), Level::Fail)]);
}

#[test]
fn kernel_releases_of_every_shape() {
    assert_eq!(facts::version("6.18.44-fc-v657"), Some((6, 18)));
    assert_eq!(facts::version("6.6-rc1"), Some((6, 6)));
    assert_eq!(facts::version(""), None);
}
