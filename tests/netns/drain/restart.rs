//! What leaves a service while no agent runs, or left it before, is dealt with as if one had run.

use lb_tests::cluster::{Cluster, Family, Spec};
use lb_tests::evidence;

use super::super::backends::{connect_to_each, ways};
use super::super::own;
use super::{PROMISE, assert_ended, assert_going_on, named_twin, twin};

#[test]
fn what_left_one_of_its_services_while_no_agent_ran_is_gone_when_one_is_back() {
    let Some(cluster) = own(Cluster::builder().nodes(3).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let names = web.backends();
    let (_, twin_port) = twin(&cluster, &web, 233);
    let other = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    let (gone, gone_port) = twin(&cluster, &other, 234);
    let client = cluster.client(0).netns();
    let (mut ending, mut going_on) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        for (netns, target) in ways(&cluster, &web, family) {
            for (name, connection) in netns.run(|| connect_to_each(target, &names)) {
                let list = if name == names[0] { &mut ending } else { &mut going_on };
                list.push((netns, name, connection));
            }
        }
        for node in [0, 2] {
            let at = |port| cluster.node(node).published(family, port);
            let twins = client.run(|| connect_to_each(at(twin_port), &names));
            let last = client.run(|| connect_to_each(at(gone_port), &other.backends()));
            going_on.extend(
                twins
                    .into_iter()
                    .chain(last)
                    .map(|(name, connection)| (client, name, connection)),
            );
        }
    }
    // With the drain its slots have gone: only the flows say that it was one of the service.
    web.drain(&names[0]).unwrap();
    for node in 0..3 {
        cluster.node(node).agent().kill().unwrap();
    }
    web.remove(&names[0]).unwrap();
    cluster
        .edit(|document| document.service.retain(|service| service.name != gone))
        .unwrap();
    for node in 0..3 {
        cluster.node(node).start_agent().unwrap();
    }
    cluster.settle().unwrap();

    assert_ended(&mut ending);
    assert_going_on(&mut going_on);
    let count = (ending.len() + going_on.len()) as u64;
    evidence::record(
        PROMISE,
        "flows over a restart in which a backend was removed from one of two services",
        count,
    );
}

#[test]
fn flows_of_what_was_closed_before_a_restart_end_as_without_one() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let names = web.backends();
    twin(&cluster, &web, 233);
    let other = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let (gone, gone_port) = twin(&cluster, &other, 234);
    let client = cluster.client(0).netns();
    let (mut ending, mut going_on) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        for node in [0, 1] {
            for (name, connection) in client.run(|| connect_to_each(web.on_node(node, family), &names)) {
                let list = if name == names[0] { &mut ending } else { &mut going_on };
                list.push((client, name, connection));
            }
            let target = cluster.node(node).published(family, gone_port);
            let others = client.run(|| connect_to_each(target, &other.backends()));
            going_on.extend(others.into_iter().map(|(name, connection)| (client, name, connection)));
        }
    }
    // A service that stays closes its port, another one goes. Their backends stay with others, so nobody is cut off.
    web.change(|service| service.ports[0].published = None).unwrap();
    cluster
        .edit(|document| document.service.retain(|service| service.name != gone))
        .unwrap();
    cluster.settle().unwrap();
    assert_going_on(&mut ending);
    assert_going_on(&mut going_on);
    // With the drain its slots have gone: only the flows say that it was one of the service.
    web.drain(&names[0]).unwrap();
    for node in [0, 1] {
        cluster.node(node).agent().kill().unwrap();
    }
    web.remove(&names[0]).unwrap();
    for node in [0, 1] {
        cluster.node(node).start_agent().unwrap();
    }
    cluster.settle().unwrap();
    assert_ended(&mut ending);
    assert_going_on(&mut going_on);
    // What comes and loses a backend is another service than the one that went: it has not got its number.
    named_twin(&cluster, &other, "next", 235);
    let leaver = other.backends().remove(0);
    cluster
        .edit(|document| {
            document
                .service("next")
                .backend
                .retain(|backend| backend.name != leaver)
        })
        .unwrap();
    cluster.settle().unwrap();
    assert_going_on(&mut going_on);
    let count = (ending.len() + going_on.len()) as u64;
    evidence::record(PROMISE, "flows of frontends that went before a restart", count);
}
