//! What documents mean, and what is said about wrong ones.

use super::{EXAMPLE, error_of, snapshot_of};
use crate::model::snapshot::{BackendState, EndpointMode, Protocol};

/// A good beginning for documents with one thing wrong: two nodes, two networks, one service.
const BASE: &str = r#"
[[node]]
name = "n1"
addresses = ["10.80.0.1"]
[[node]]
name = "n2"
addresses = ["10.80.0.2"]
[[network]]
name = "shop"
subnets = ["10.1.0.0/16"]
[[network]]
name = "back"
[[service]]
name = "web"
network = "shop"
vip = ["10.1.255.1"]
ports = [{ port = 80, published = 8080 }]
[[service.backend]]
name = "web.1"
node = "n1"
addresses = ["10.1.1.2"]
"#;

#[test]
fn the_example_is_valid() {
    let snapshot = snapshot_of(EXAMPLE);
    insta::assert_snapshot!(serde_json::to_string_pretty(&snapshot).unwrap());
}

#[test]
fn defaults() {
    let snapshot = snapshot_of(BASE);
    let service = &snapshot.services[0];
    assert_eq!(service.mode, EndpointMode::Vip);
    assert_eq!(
        (service.ports[0].target, service.ports[0].protocol),
        (80, Protocol::Tcp)
    );
    assert_eq!((service.tcp_timeout, service.udp_timeout), (None, None));
    let backend = &service.backends[0];
    assert_eq!(
        (backend.weight, backend.state, backend.port),
        (1, BackendState::Ready, None)
    );
    assert!(!snapshot.networks[0].encrypted);
}

#[test]
fn no_services_is_a_valid_cluster() {
    assert!(snapshot_of("service = []").services.is_empty());
}

#[test]
fn the_same_vip_may_stand_in_two_networks() {
    let more = "[[service]]\nname = \"web\"\nnetwork = \"back\"\nvip = [\"10.1.255.1\"]\nports = [{ port = 80 }]\n";
    assert_eq!(snapshot_of(&format!("{BASE}{more}")).services.len(), 2);
}

#[test]
fn a_port_may_be_published_once_for_each_protocol() {
    let text = BASE.replace(
        "[{ port",
        "[{ port = 80, protocol = \"udp\", published = 8080 }, { port",
    );
    assert_eq!(snapshot_of(&text).services[0].ports.len(), 2);
}

#[test]
fn automatic_ports_do_not_depend_on_what_is_appended() {
    let auto = BASE.replace("published = 8080", "published = \"auto\"");
    let before = snapshot_of(&auto).services[0].ports[0].published;
    let mut text = auto;
    for i in 0..200 {
        text.push_str(&format!(
            "[[service]]\nname = \"s{i}\"\nnetwork = \"shop\"\nports = [{{ port = 80, published = true }}]\n"
        ));
    }
    let snapshot = snapshot_of(&text);
    assert_eq!(snapshot.services[0].ports[0].published, before);
    let mut ports: Vec<_> = snapshot
        .services
        .iter()
        .map(|service| service.ports[0].published.unwrap())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 201);
    assert!(ports.iter().all(|port| super::super::AUTOMATIC.contains(port)));
}

#[test]
fn an_automatic_port_survives_changes_of_the_service() {
    let auto = BASE.replace("published = 8080", "published = true");
    let before = snapshot_of(&auto).services[0].ports[0].published;
    let changed = auto
        .replace("10.1.1.2", "10.1.1.3")
        .replace("10.1.255.1", "10.1.255.2")
        .replace("n1", "n3");
    assert_eq!(snapshot_of(&changed).services[0].ports[0].published, before);
}

/// Everything that is refused, with the words in which it is.
#[test]
fn wrong_documents() {
    let replaced: &[(&str, &str)] = &[
        // What the types refuse.
        ("name = \"web\"", "nmae = \"web\""),
        ("[[service]]", "[[services]]"),
        ("vip = [\"10.1.255.1\"]", "vip = \"10.1.255.1\""),
        ("vip = [\"10.1.255.1\"]", "vip = [\"10.1.255.300\"]"),
        ("vip = [\"10.1.255.1\"]", "vip = [\"10.1.255.1/24\"]"),
        ("vip = [\"10.1.255.1\"]", "vip = [\"10.1.255.1\""),
        ("subnets = [\"10.1.0.0/16\"]", "subnets = [\"10.1.0.0\"]"),
        ("published = 8080", "published = 80800"),
        ("published = 8080", "published = \"yes\""),
        ("port = 80,", "port = 80, protocol = \"sctp\","),
        ("network = \"shop\"\nvip", "vip"),
        ("network = \"shop\"\nvip", "network = \"shop\"\nmode = \"vipp\"\nvip"),
        (
            "network = \"shop\"\nvip",
            "network = \"shop\"\ntcp_timeout = \"soon\"\nvip",
        ),
        ("node = \"n1\"", "node = \"n1\"\nstate = \"reddy\""),
        ("node = \"n1\"", "node = \"n1\"\nnode = \"n2\""),
        // Nodes.
        ("name = \"n2\"", "name = \"N1\""),
        ("10.80.0.2", "10.80.0.1"),
        ("[\"10.80.0.2\"]", "[]"),
        ("[\"10.80.0.2\"]", "[\"127.0.0.1\", \"fe80::1\", \"::ffff:10.0.0.1\"]"),
        // Networks.
        ("name = \"back\"", "name = \"shop\""),
        ("name = \"back\"", "name = \"back\"\nid = 0"),
        ("name = \"back\"", "name = \"back\"\nid = SHOP_ID"),
        ("name = \"back\"", "name = \"back\"\nid = 16777216"),
        ("name = \"back\"", "name = \"back\"\nsubnets = [\"10.1.128.0/24\"]"),
        ("name = \"back\"", "name = \"back\"\nsubnets = [\"10.3.1.0/16\"]"),
        // Services.
        ("name = \"web\"", "name = \"web.shop\""),
        ("name = \"web\"", "name = \"tasks\""),
        ("name = \"web\"", "name = \"we b\""),
        ("network = \"shop\"", "network = \"shopp\""),
        ("network = \"shop\"", "network = \"elsewhere\""),
        ("vip = [\"10.1.255.1\"]", "vip = [\"10.1.255.1\", \"10.1.255.2\"]"),
        ("vip = [\"10.1.255.1\"]", "vip = [\"10.1.255.1\", \"10.1.255.1\"]"),
        ("10.1.255.1", "10.80.0.2"),
        ("10.1.255.1", "10.1.1.2"),
        ("10.1.255.1", "224.0.0.1"),
        (
            "vip = [\"10.1.255.1\"]\nports = [{ port = 80, published = 8080 }]",
            "ports = [{ port = 80 }]",
        ),
        ("\nports = [{ port = 80, published = 8080 }]", ""),
        ("vip =", "mode = \"dnsrr\"\nvip ="),
        ("vip =", "aliases = [\"www\", \"WEB\"]\nvip ="),
        ("vip =", "udp_timeout = \"0s\"\nvip ="),
        // Ports.
        ("port = 80,", "port = 0,"),
        ("port = 80,", "port = 80, target = 0,"),
        ("published = 8080", "published = 0"),
        ("}]", "}, { port = 80 }]"),
        ("}]", "}, { port = 81, published = 8080 }]"),
        ("published = 8080", "published = 4790, protocol = \"udp\""),
        // Backends.
        ("node = \"n1\"", "node = \"n9\""),
        ("node = \"n1\"", "node = \"n1\"\nweight = 0"),
        ("node = \"n1\"", "node = \"n1\"\nweight = 257"),
        ("node = \"n1\"", "node = \"n1\"\nport = 0"),
        (
            "}]\n[[service.backend]]",
            "}, { port = 81 }]\n[[service.backend]]\nport = 8080",
        ),
        ("[\"10.1.1.2\"]", "[]"),
        ("[\"10.1.1.2\"]", "[\"10.2.1.2\"]"),
        ("[\"10.1.1.2\"]", "[\"10.1.1.2\", \"10.1.1.3\"]"),
    ];
    let appended = [
        "[[service]]\nname = \"web\"\nnetwork = \"shop\"\nmode = \"dnsrr\"\n",
        "[[service]]\nname = \"api\"\nnetwork = \"shop\"\nvip = [\"10.1.255.1\"]\nports = [{ port = 80 }]\n",
        "[[service]]\nname = \"api\"\nnetwork = \"shop\"\nports = [{ port = 80, published = 8080 }]\n",
        "[[service]]\nname = \"api\"\nnetwork = \"shop\"\nmode = \"dnsrr\"\naliases = [\"web\"]\n",
        "[[service.backend]]\nname = \"web.1\"\nnode = \"n1\"\naddresses = [\"10.1.1.3\"]\n",
        "[[service.backend]]\nname = \"web.2\"\nnode = \"n1\"\naddresses = [\"10.1.1.2\"]\n",
        "[[service]]\nname = \"api\"\nnetwork = \"shop\"\nmode = \"dnsrr\"\n[[service.backend]]\nname = \"api.1\"\nnode = \"n2\"\naddresses = [\"10.1.1.2\"]\n",
        "[[service]]\nname = \"api\"\n",
    ];
    let shop_id = super::super::ports::network_id("shop").to_string();
    let mut report = String::new();
    for (from, to) in replaced {
        assert!(BASE.contains(from), "{from}");
        let text = BASE.replacen(from, &to.replace("SHOP_ID", &shop_id), 1);
        report.push_str(&format!("### {from:?} -> {to:?}\n{}\n\n", error_of(&text)));
    }
    for more in appended {
        report.push_str(&format!("### + {more:?}\n{}\n\n", error_of(&format!("{BASE}{more}"))));
    }
    for text in ["", "# nothing yet\n\n", "web", "\u{feff}[[node]]\nname = \"n\t\n"] {
        report.push_str(&format!("### {text:?}\n{}\n\n", error_of(text)));
    }
    insta::assert_snapshot!(report);
}

#[test]
fn every_fault_has_file_line_and_hint_and_all_are_reported() {
    let text = BASE.replace(
        "\"n1\"\naddresses = [\"10.1.1.2\"]",
        "\"n7\"\nweight = 0\naddresses = [\"10.9.1.2\"]",
    );
    let error = super::parse("cluster.toml", text.as_bytes(), 4790).unwrap_err();
    let crate::provider::ProviderError::Invalid(faults) = &error else {
        panic!("{error}")
    };
    let lines: Vec<_> = faults.iter().map(|fault| (fault.line, fault.field.as_str())).collect();
    let field = |name: &str| format!("service[0].backend[0].{name}");
    assert_eq!(
        lines,
        [
            (Some(20), &*field("node")),
            (Some(21), &*field("weight")),
            (Some(22), &*field("addresses[0]"))
        ]
    );
    assert!(
        faults
            .iter()
            .all(|fault| fault.source == "cluster.toml" && fault.hint.is_some())
    );
    assert!(
        error
            .summary()
            .starts_with("cluster.toml:20: service[0].backend[0].node: "),
        "{}",
        error.summary()
    );
    assert!(error.summary().ends_with("(and 2 more)"), "{}", error.summary());
}

#[test]
fn examples_in_the_documentation_are_valid() {
    let text = include_str!("../../../../../docs/cluster-file.md");
    let blocks: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        snapshot_of(block);
    }
}

#[test]
fn few_automatic_ports_are_not_the_first_choice() {
    // The documentation says one in a hundred among fifty.
    let service = |i: usize| {
        format!("[[service]]\nname = \"s{i}\"\nnetwork = \"n\"\nports = [{{ port = 80, published = true }}]\n")
    };
    let network = "[[network]]\nname = \"n\"\n".to_owned();
    let alone = |i: usize| snapshot_of(&(network.clone() + &service(i))).services[0].ports[0].published;
    let mut moved = 0;
    for cluster in 0..40 {
        let range = cluster * 50..(cluster + 1) * 50;
        let text = range.clone().fold(network.clone(), |text, i| text + &service(i));
        let together = snapshot_of(&text);
        moved += range
            .zip(&together.services)
            .filter(|(i, s)| alone(*i) != s.ports[0].published)
            .count();
    }
    assert!((1..=40).contains(&moved), "{moved} of 2000");
}

#[test]
fn the_time_to_read_grows_with_the_document_and_no_faster() {
    let document = |backends: usize, node: &str| {
        let mut text = String::from("[[node]]\nname = \"n\"\naddresses = [\"192.0.2.1\"]\n");
        text.push_str("[[network]]\nname = \"n\"\n[[service]]\nname = \"s\"\nnetwork = \"n\"\nmode = \"dnsrr\"\n");
        for i in 0..backends {
            let address = format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255);
            let head = format!("[[service.backend]]\nname = \"s.{i}\"\nnode = \"{node}\"\n");
            text.push_str(&format!("{head}addresses = [\"{address}\"]\n"));
        }
        text
    };
    // This thread's own time: other tests run beside it.
    let clock =
        || std::time::Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let took = |text: &str| {
        let began = clock();
        let _ = std::hint::black_box(super::parse("cluster.toml", text.as_bytes(), 4790));
        clock() - began
    };
    for node in ["n", "nowhere"] {
        let (small, large) = (took(&document(500, node)), took(&document(10_000, node)));
        // Twenty times the text: linear is 20, quadratic 400.
        assert!(
            large < small * 120,
            "{node}: {small:?} for 500 backends, {large:?} for 10000"
        );
    }
}
