//! What is served over TCP: metrics and health.

use lb_userspace::admin::api;
use tokio::sync::watch;

use crate::agent::{agent, agent_with, http, lbctl, state};

#[test]
fn tcp_serves_metrics_and_health_only() {
    let agent = agent();
    assert_eq!(
        http(agent.metrics_address, "/livez"),
        ("HTTP/1.0 200 OK".into(), "ok\n".into())
    );
    assert_eq!(http(agent.metrics_address, "/readyz").0, "HTTP/1.0 200 OK");
    assert_eq!(http(agent.metrics_address, "/v1/status").0, "HTTP/1.0 404 Not Found");
    let (head, page) = http(agent.metrics_address, "/metrics");
    assert_eq!(head, "HTTP/1.0 200 OK");
    for family in lb_userspace::telemetry::metrics::FAMILIES {
        assert!(
            page.contains(&format!("# TYPE {} ", family.name)),
            "{} is missing",
            family.name
        );
    }
    for reason in lb_common::verdict::Reason::ALL {
        assert!(
            page.contains(&format!("reason=\"{}\"", reason.name())),
            "{} is missing",
            reason.name()
        );
    }
    let stable = page
        .lines()
        .filter(|l| !l.contains("process_") && !l.contains("last_success"));
    insta::assert_snapshot!("metrics", stable.collect::<Vec<_>>().join("\n"));
}

#[test]
fn not_ready_before_the_first_synchronisation() {
    let mut early = state(0);
    early.status = watch::channel(api::Status::default()).1;
    let agent = agent_with(early, 0o600);
    assert_eq!(
        http(agent.metrics_address, "/readyz").0,
        "HTTP/1.0 503 Service Unavailable"
    );
    assert_eq!(http(agent.metrics_address, "/livez").0, "HTTP/1.0 200 OK");
    assert_eq!(lbctl(&agent, "status -q").status.code(), Some(1));
}
