//! What `lbctl` prints of what the agent answers, and with which code it ends.

use lb_userspace::admin::api;

use crate::agent::{agent, agent_with, lbctl, state, stdout, text};

#[test]
fn services_are_named_and_joined_with_their_flows() {
    let agent = agent();
    insta::assert_snapshot!("service_ls", text(&agent, "service ls"));
    insta::assert_snapshot!("service_ps", text(&agent, "service ps web"));
    insta::assert_snapshot!("service_inspect", text(&agent, "service inspect front/web"));
    insta::assert_snapshot!(
        "service_inspect_json",
        text(&agent, "service inspect front/web -o json")
    );
    insta::assert_snapshot!("backend_ls", text(&agent, "backend ls -o wide"));
}

#[test]
fn connections_leave_out_the_expired_and_show_what_became_of_the_backend() {
    let agent = agent();
    // Ages move while the test runs.
    let line = |line: &str| {
        let keep = |(i, cell)| if (5..7).contains(&i) { "?" } else { cell };
        line.split_whitespace()
            .enumerate()
            .map(keep)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let redact = |text: &str| text.lines().skip(1).map(line).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!("conn_ls", redact(&text(&agent, "conn ls -o wide")));
    assert_eq!(text(&agent, "conn count"), "3\n");
    assert_eq!(text(&agent, "conn count -f backend=10.0.1.21:8080"), "2\n");
    assert_eq!(text(&agent, "conn count -f origin=n2"), "1\n");
    assert_eq!(text(&agent, "conn count -f service=web -f client=198.51.100.9"), "3\n");
    let none = lbctl(&agent, "conn count --fail-empty -f service=api");
    assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(1), "0\n"));
    let cut = lbctl(&agent, "conn ls --limit 1 -q");
    assert_eq!(String::from_utf8_lossy(&cut.stdout).lines().count(), 1);
    assert_eq!(
        String::from_utf8_lossy(&cut.stderr),
        "note: 1 of 3 connections; --limit 0 shows all\n"
    );
}

#[test]
fn names_may_be_shortened_unless_ambiguous() {
    let agent = agent();
    assert_eq!(text(&agent, "service inspect web-a -q"), "back/web-admin\n");
    assert_eq!(text(&agent, "service inspect 3 -q"), "front/web\n");
    let ambiguous = lbctl(&agent, "service inspect api");
    assert_eq!(ambiguous.status.code(), Some(5));
    assert_eq!(
        String::from_utf8_lossy(&ambiguous.stderr),
        "error: \"api\" is more than one service\n  hint: one of: back/api, front/api\n"
    );
    assert_eq!(text(&agent, "service inspect back/api -q"), "back/api\n");
    let missing = lbctl(&agent, "service inspect wbe -o json");
    assert_eq!(missing.status.code(), Some(5));
    let error: api::ErrorBody = serde_json::from_slice(&missing.stderr).unwrap();
    assert_eq!(error.error.code, api::Code::NotFound);
    assert_eq!(
        error.error.hint.unwrap(),
        "did you mean \"web\"? list with `lbctl service ls`"
    );
}

#[test]
fn lists_filter_and_print_names() {
    let agent = agent();
    assert_eq!(
        text(&agent, "service ls -q -f network=back"),
        "back/api\nback/db\nback/web-admin\n"
    );
    assert_eq!(text(&agent, "service ls -o name -f mode=dnsrr"), "back/db\n");
    assert_eq!(text(&agent, "backend ls -q -f state=draining"), "web.2\n");
    assert_eq!(text(&agent, "service ls --no-headers -f name=db").lines().count(), 1);
    let bad = lbctl(&agent, "service ls -f colour=red");
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("hint: fields: id, mode, name"));
    let yaml = text(&agent, "service ls -o yaml -f name=db");
    assert!(
        yaml.starts_with("api_version: v1\nkind: ServiceList\nsource: agent\ngeneration: 418\n"),
        "{yaml}"
    );
}

#[test]
fn status_shows_the_node() {
    let agent = agent();
    insta::assert_snapshot!("status", text(&agent, "status"));
    assert_eq!(lbctl(&agent, "status -q").status.code(), Some(0));
    let list: api::List<api::Status> = serde_json::from_str(&text(&agent, "status -o json")).unwrap();
    assert_eq!((list.kind.as_str(), list.items[0].ready), ("Status", true));
    assert_eq!(list.items[0].traffic.len(), lb_common::verdict::Reason::ALL.len());
}

#[test]
fn plan_and_names_answer_with_exit_codes() {
    let same = agent();
    assert_eq!(text(&same, "plan"), "Nothing to do: the maps hold the desired state.\n");
    let differs = agent_with(state(2), 0o600);
    let plan = lbctl(&differs, "plan");
    assert_eq!(
        (plan.status.code(), stdout(&plan).as_str()),
        (Some(1), "~ service web\n")
    );
    let known = lbctl(&same, "dns query web --from front");
    assert_eq!(known.status.code(), Some(0));
    insta::assert_snapshot!("dns_query", stdout(&known));
    assert_eq!(lbctl(&same, "dns query nope --from front").status.code(), Some(1));
    assert_eq!(lbctl(&same, "dns query web --client nonsense").status.code(), Some(2));
}
