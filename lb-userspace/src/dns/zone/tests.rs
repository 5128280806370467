//! Which names there are, and for whom.

mod cluster;
mod properties;
mod rules;

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, MX, PTR, TXT};

use super::*;
use crate::model::snapshot::{BackendState, EndpointMode};
pub(in crate::dns) use cluster::snapshot;
use cluster::{ip, network, service};

fn show(answer: &Answer) -> String {
    match answer {
        Answer::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Answer::Pointers(names) => names.join(" "),
        Answer::Empty => "empty".into(),
        Answer::OtherType => "other type".into(),
        Answer::Unknown => "unknown".into(),
    }
}

const FRONT: &str = "10.1.0.1";
const FRONT6: &str = "fd01::77";
const BACK: &str = "10.2.0.9";
const OUTSIDE: &str = "198.51.100.1";

#[test]
fn the_most_specific_subnet_goes_first_and_names_settle_ties() {
    let mut snapshot = snapshot();
    snapshot.networks.push(network("inner", 3, &["10.1.0.0/28"]));
    snapshot.networks.push(network("also", 4, &["10.1.0.0/24"]));
    snapshot
        .services
        .push(service("inner", "web", EndpointMode::Vip, &["10.1.0.14"], vec![]));
    snapshot
        .services
        .push(service("also", "web", EndpointMode::Vip, &["10.1.0.250"], vec![]));
    let zone = Zone::compile(&snapshot);
    let names = |client| -> Vec<_> {
        zone.scope(ip(client))
            .iter()
            .map(|&i| zone.networks[i].name.clone())
            .collect()
    };
    assert_eq!(names("10.1.0.1"), ["inner", "also", "front"]);
    assert_eq!(show(&zone.lookup(ip("10.1.0.1"), "web", A)), "10.1.0.14");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "web", A)), "10.1.0.250");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "web.front", A)), "10.1.0.100");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "api", A)), "10.1.0.101");
}

#[test]
fn nodes_and_workloads_are_served_and_strangers_are_not() {
    let zone = Zone::compile(&snapshot());
    for (client, expected) in [
        (FRONT, true),
        (FRONT6, true),
        ("192.0.2.1", true),
        (OUTSIDE, false),
        ("::1", false),
    ] {
        assert_eq!(zone.serves(ip(client)), expected, "{client}");
    }
}

#[test]
fn the_empty_zone_knows_nothing() {
    let zone = Zone::default();
    assert!(zone.is_empty());
    assert_eq!(zone.lookup(ip(FRONT), "web", A), Answer::Unknown);
    assert_eq!(zone.lookup(ip(FRONT), "1.0.1.10.in-addr.arpa", PTR), Answer::Unknown);
}
