//! The checks of a Swarm's node, over facts made up here.

use lb_userspace::admin::api::Level;
use lb_userspace::net::card::Card;
use lb_userspace::provider::docker::{Part, Role};

use super::super::facts::swarm::{Answer, Namespaces, Swarm};
use super::super::tests::{complaints, healthy};
use super::super::{Facts, judge};

fn worker() -> Facts {
    let mut facts = healthy();
    facts.capabilities = facts.capabilities.map(|has| has | 1 << 21);
    facts.swarm = Some(Swarm {
        socket: "/run/docker.sock".into(),
        engine: Ok(Answer {
            api: "v1.41".into(),
            role: Role {
                part: Part::Worker,
                managers: vec!["10.0.0.1:2377".parse().unwrap(), "10.0.0.2:2377".parse().unwrap()],
                ..Role::default()
            },
        }),
        directory: "/run/docker/netns".into(),
        namespaces: Ok(Namespaces {
            mounted: 5,
            empty: 0,
            follows: true,
        }),
        identity: Some(Ok(())),
        managers: vec![
            ("10.0.0.1:4790".parse().unwrap(), Ok(())),
            ("10.0.0.2:4790".parse().unwrap(), Ok(())),
        ],
        tunnel_port: 4790,
        paths: vec![([10, 0, 0, 1].into(), Ok(1500)), ([10, 0, 0, 2].into(), Ok(1500))],
        cards: vec![(
            "eth0".into(),
            Card {
                driver: "virtio_net".into(),
                sums: true,
            },
        )],
    });
    facts
}

fn one(change: impl FnOnce(&mut Swarm)) -> Vec<(String, Level)> {
    let mut facts = worker();
    change(facts.swarm.as_mut().unwrap());
    complaints(&facts)
}

fn role(swarm: &mut Swarm) -> &mut Role {
    &mut swarm.engine.as_mut().ok().unwrap().role
}

#[test]
fn each_fault_of_a_swarm_is_found_alone() {
    let only = |id: &str, level| vec![(id.to_owned(), level)];
    assert_eq!(one(|_| {}), []);
    assert_eq!(
        one(|s| s.engine = Err("cannot reach it".into())),
        only("engine", Level::Fail)
    );
    assert_eq!(
        one(|s| role(s).part = Part::None("it is in no Swarm".into())),
        only("swarm", Level::Fail)
    );
    assert_eq!(one(|s| role(s).part = Part::Unknown), only("swarm", Level::Warn));
    assert_eq!(
        one(|s| s.namespaces = Err("permission denied".into())),
        only("namespaces", Level::Fail)
    );
    let files = |mounted, empty, follows| {
        one(|s| {
            s.namespaces = Ok(Namespaces {
                mounted,
                empty,
                follows,
            });
        })
    };
    assert_eq!(files(5, 1, true), []);
    assert_eq!(files(5, 0, false), []);
    assert_eq!(files(5, 1, false), only("namespaces", Level::Warn));
    assert_eq!(files(0, 1, true), only("namespaces", Level::Fail));
    assert_eq!(files(0, 0, true), only("namespaces", Level::Warn));
    assert_eq!(
        one(|s| s.identity = Some(Err("/etc/lb/secret: no such file".into()))),
        only("stream", Level::Fail)
    );
    assert_eq!(one(|s| s.paths[0].1 = Ok(1400)), only("tunnel-path", Level::Fail));
    assert_eq!(
        one(|s| s.paths[1].1 = Err("network is unreachable".into())),
        only("tunnel-path", Level::Fail)
    );
    assert_eq!(
        one(|s| s.cards[0].1.driver = "vmxnet3".into()),
        only("offload", Level::Warn)
    );
}

#[test]
fn a_worker_needs_the_stream_more_than_a_manager() {
    let off = |s: &mut Swarm| {
        s.identity = None;
        s.managers.clear();
    };
    assert_eq!(one(off), [("stream".into(), Level::Fail)]);
    let manager = one(|s| {
        off(s);
        role(s).part = Part::Manager;
    });
    assert_eq!(manager, [("stream".into(), Level::Warn)]);

    let refused = || Err("connection refused".to_owned());
    assert_eq!(one(|s| s.managers[0].1 = refused()), [("stream".into(), Level::Warn)]);
    let all = one(|s| s.managers.iter_mut().for_each(|(_, result)| *result = refused()));
    assert_eq!(all, [("stream".into(), Level::Fail), ("stream".into(), Level::Fail)]);
}

#[test]
fn a_careless_card_that_sums_nothing_up_does_no_harm() {
    let complaints = one(|s| {
        s.cards[0].1 = Card {
            driver: "vmxnet3".into(),
            sums: false,
        };
    });
    assert_eq!(complaints, []);
}

#[test]
fn without_the_right_to_enter_namespaces_the_agent_is_told() {
    let mut facts = worker();
    facts.capabilities = healthy().capabilities;
    assert_eq!(complaints(&facts), [("namespaces".into(), Level::Fail)]);
    // Who does not balance a Swarm does not need it.
    facts.swarm = None;
    assert_eq!(complaints(&facts), []);
}

#[test]
fn a_node_in_trouble_reads_what_to_do() {
    let mut facts = worker();
    let swarm = facts.swarm.as_mut().unwrap();
    swarm.namespaces = Ok(Namespaces {
        mounted: 0,
        empty: 2,
        follows: false,
    });
    swarm.managers[0].1 = Err("no answer within 2s".into());
    swarm.managers[1].1 = Err("connection refused".into());
    swarm.paths[0].1 = Ok(1420);
    swarm.cards[0].1.driver = "vmxnet3".into();
    let checks = judge(&facts).into_iter().skip_while(|check| check.id != "engine");
    let text = checks.map(|check| {
        let fix = check.fix.map(|fix| format!("\n    {fix}")).unwrap_or_default();
        format!("{:?} {}: {}{fix}\n", check.level, check.id, check.finding)
    });
    insta::assert_snapshot!(text.collect::<String>());
}
