//! What an operator sees: lbctl, metrics, health.

use std::time::Duration;

use lb_tests::client::{Connection, get, tally};
use lb_tests::cluster::{Family, Spec};
use lb_tests::{lbctl, require};
use lb_userspace::net::privileges;
use serde_json::Value;

use super::{assert_even, shared};

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().unwrap_or_else(|| panic!("no items: {list}"))
}

#[test]
fn lbctl_shows_services_backends_and_connections() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let names = web.backends();
    web.drain(&names[1]).unwrap();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let mut kept = cluster.client(0).netns().run(|| Connection::open(target).unwrap());
    kept.ask().unwrap();

    let status = lbctl::text(node, &["status"]).unwrap();
    for word in ["node1", "eth0", "file"] {
        assert!(status.contains(word), "status without {word}:\n{status}");
    }
    let list = lbctl::json(node, &["service", "ls"]).unwrap();
    assert_eq!(list["kind"], "ServiceList");
    let service = items(&list)
        .iter()
        .find(|item| item["name"] == web.name())
        .expect("the service");
    assert_eq!(service["network"], "shop");
    assert_eq!(
        (&service["backends"]["ready"], &service["backends"]["total"]),
        (&1.into(), &2.into())
    );
    assert_eq!(service["vips"][0], web.vip(Family::V4).ip().to_string());
    let table = lbctl::text(node, &["service", "ls"]).unwrap();
    let row = table
        .lines()
        .find(|line| line.starts_with(web.name()))
        .unwrap_or_else(|| panic!("no row:\n{table}"));
    assert!(row.contains("1/2") && row.contains("80"), "{table}");

    let table = lbctl::text(node, &["service", "ps", web.name()]).unwrap();
    assert!(
        table.contains(&names[0]) && table.contains("ready") && table.contains("draining"),
        "{table}"
    );
    let list = lbctl::json(node, &["backend", "ls"]).unwrap();
    let states: Vec<_> = items(&list)
        .iter()
        .filter(|item| item["service"] == web.name())
        .collect();
    assert!(
        states
            .iter()
            .any(|item| item["task"] == names[1].as_str() && item["state"] == "draining"),
        "{list}"
    );

    let list = lbctl::json(node, &["conn", "ls"]).unwrap();
    let own = kept.local_address().unwrap().to_string();
    let flow = items(&list)
        .iter()
        .find(|item| item["client"] == own.as_str())
        .unwrap_or_else(|| panic!("no {own}: {list}"));
    assert_eq!(
        (&flow["frontend"], &flow["state"]),
        (&target.to_string().into(), &"established".into())
    );
    let count = lbctl::text(node, &["conn", "count"]).unwrap();
    assert!(count.chars().any(|c| c.is_ascii_digit()), "{count}");
}

#[test]
fn lbctl_explains_names_maps_programs_and_plan() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[0])).unwrap();
    let node = cluster.node(0);
    let vip = web.vip(Family::V4).ip().to_string();
    let answer = lbctl::text(node, &["dns", "query", web.name(), "--from", "shop"]).unwrap();
    assert!(answer.contains(&vip), "{answer}");
    let maps = lbctl::json(node, &["map", "ls"]).unwrap();
    for name in ["frontends", "services", "flows4", "counters"] {
        assert!(
            items(&maps).iter().any(|item| item["name"] == name),
            "no map {name}: {maps}"
        );
    }
    let dump = lbctl::text(node, &["map", "dump", "frontends"]).unwrap();
    assert!(dump.contains(&vip), "{dump}");
    let programs = lbctl::text(node, &["prog", "ls"]).unwrap();
    for name in ["tc_node", "from_workload", "to_workload"] {
        assert!(programs.contains(name), "no program {name}:\n{programs}");
    }
    let plan = lbctl::run(node, &["plan"]).unwrap();
    assert!(
        plan.status.success(),
        "a settled node has nothing to plan: {}",
        String::from_utf8_lossy(&plan.stdout)
    );
    let doctor = lbctl::run(node, &["doctor"]).unwrap();
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(
        doctor.status.success(),
        "doctor finds fault with a healthy node:\n{text}"
    );
    assert!(text.contains("PASS") && !text.contains("FAIL"), "{text}");
}

#[test]
fn lbctl_has_its_exit_codes() {
    let Some(cluster) = shared() else { return };
    let node = cluster.node(0);
    let unknown = lbctl::run(node, &["service", "inspect", "no-such-service"]).unwrap();
    let text = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(5), "{text}");
    assert!(text.contains("no-such-service"), "{text}");
    assert_eq!(lbctl::run(node, &["frobnicate"]).unwrap().status.code(), Some(2));
    let mut command = std::process::Command::new(require::binary("lbctl").unwrap());
    command
        .env("LB_SOCKET", "/nonexistent/admin.sock")
        .env("LB_BPFFS", "/nonexistent/bpf")
        .args(["service", "ls"]);
    let nobody = command.output().unwrap();
    assert_eq!(
        nobody.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&nobody.stderr)
    );
}

#[test]
fn metrics_count_what_was_forwarded() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(2);
    let target = web.on_node(2, Family::V4);
    let counts = cluster.client(0).netns().run(|| tally((0..10).map(|_| get(target))));
    assert_even(&counts, &web.backends());
    let metrics = node.metrics("/metrics").unwrap();
    let label = format!("service=\"{}\"", web.name());
    let flows = metrics
        .lines()
        .find(|line| line.starts_with("lb_service_flows_total{") && line.contains(&label));
    let flows = flows.unwrap_or_else(|| panic!("no flows of {}:\n{metrics}", web.name()));
    assert!(flows.ends_with(" 10"), "{flows}");
    for name in [
        "lb_build_info",
        "lb_packets_total",
        "lb_map_entries",
        "lb_dns_queries_total",
        "lb_sync_total",
    ] {
        assert!(metrics.contains(name), "no {name}:\n{metrics}");
    }
    for path in ["/livez", "/readyz"] {
        node.metrics(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    // The admin API is on the Unix socket only.
    node.metrics("/v1/services").expect_err("the admin API over TCP");
    std::thread::sleep(Duration::ZERO);
}

/// Every thread of the agent, and whatever it might start, may do what it needs and no more.
#[test]
fn the_agent_keeps_no_privilege_that_it_does_not_need() {
    let Some(cluster) = shared() else { return };
    let pid = cluster.node(0).agent().pid().unwrap();
    let needed = privileges::NEEDED.iter().fold(0u64, |set, (bit, _)| set | 1 << bit);
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let set = |name: &str| u64::from_str_radix(field(name), 16).unwrap();
        for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(set(name) & !needed, 0, "{name} {}", field(name));
        }
        assert_eq!((set("CapInh:"), set("CapAmb:")), (0, 0));
        assert_eq!(field("NoNewPrivs:"), "1");
        threads += 1;
    }
    assert!(threads > 1);
}

#[test]
fn the_admin_socket_is_for_owner_and_group() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let Some(cluster) = shared() else { return };
    let socket = std::fs::metadata(cluster.node(0).socket()).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
}
