//! One small cluster with all sorts of names, and what clusters are made of.

use std::net::IpAddr;

use crate::model::snapshot::{Backend, BackendState, EndpointMode, Network, Node, Service, Snapshot};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn backend(name: &str, addresses: &[&str], state: BackendState) -> Backend {
    let addresses = addresses.iter().map(|a| ip(a)).collect();
    Backend {
        name: name.into(),
        node: "n1".into(),
        addresses,
        port: None,
        state,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    }
}

pub(super) fn service(network: &str, name: &str, mode: EndpointMode, vips: &[&str], backends: Vec<Backend>) -> Service {
    Service {
        name: name.into(),
        network: network.into(),
        mode,
        vips: vips.iter().map(|a| ip(a)).collect(),
        aliases: Vec::new(),
        ports: Vec::new(),
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends,
    }
}

pub(super) fn network(name: &str, id: u32, subnets: &[&str]) -> Network {
    Network {
        name: name.into(),
        id,
        subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
        encrypted: false,
        overlay: false,
        ingress: false,
    }
}

/// Two networks: `front` dual-stack with all sorts of services, `back.end` (a dot in its name) with one.
pub(in crate::dns) fn snapshot() -> Snapshot {
    use BackendState::{Draining, Ready};
    use EndpointMode::{Dnsrr, Vip};
    let mut web = service(
        "front",
        "web",
        Vip,
        &["10.1.0.100", "fd01::100"],
        vec![
            backend("web.1", &["10.1.0.1", "fd01::1"], Ready),
            backend("web.2", &["10.1.0.2"], Ready),
            backend("web.3", &["10.1.0.3"], Draining),
        ],
    );
    web.aliases = vec!["WWW".into(), "shared".into()];
    web.backends[0].aliases = vec!["C0FFEE012345".into()];
    let mut api = service(
        "front",
        "api",
        Vip,
        &["10.1.0.101"],
        vec![backend("api.1", &["10.1.0.11"], Ready)],
    );
    api.aliases = vec!["shared".into()];
    Snapshot {
        generation: 7,
        nodes: vec![Node {
            name: "n1".into(),
            id: None,
            addresses: vec![ip("192.0.2.1")],
        }],
        networks: vec![
            network("front", 1, &["10.1.0.0/24", "fd01::/64"]),
            network("back.end", 2, &["10.2.0.0/24"]),
        ],
        services: vec![
            web,
            api,
            service(
                "front",
                "rr",
                Dnsrr,
                &[],
                vec![
                    backend("rr.1", &["10.1.0.21"], Ready),
                    backend("rr.2", &["10.1.0.22"], Ready),
                    backend("rr.3", &["10.1.0.23"], Draining),
                ],
            ),
            service(
                "front",
                "leaving",
                Dnsrr,
                &[],
                vec![backend("leaving.1", &["10.1.0.31"], Draining)],
            ),
            service("front", "none", Dnsrr, &[], vec![]),
            service("front", "idle", Vip, &["10.1.0.102"], vec![]),
            service(
                "front",
                "published",
                Vip,
                &[],
                vec![backend("published.1", &["10.1.0.41"], Ready)],
            ),
            service(
                "back.end",
                "web",
                Vip,
                &["10.2.0.100"],
                vec![backend("web.1", &["10.2.0.1"], Ready)],
            ),
            service(
                "back.end",
                "db",
                Vip,
                &["10.2.0.101"],
                vec![backend("db.1", &["10.2.0.2"], Ready)],
            ),
        ]
        .into(),
    }
}
