//! Explanations agree with answers, and say why.

use super::super::zone::tests::snapshot;
use super::*;

fn explain(asker: Asker, name: &str, record_type: &str) -> Explanation {
    Zone::compile(&snapshot()).explain(&asker, name, record_type).unwrap()
}

fn values(explanation: &Explanation) -> Vec<&str> {
    explanation.records.iter().map(|record| record.value.as_str()).collect()
}

#[test]
fn records_name_their_service_and_task() {
    let explanation = explain(Asker::Network("front".into()), "tasks.web", "a");
    assert_eq!(explanation.outcome, Outcome::Answered);
    assert_eq!(values(&explanation), ["10.1.0.1", "10.1.0.2"]);
    let record = &explanation.records[0];
    assert_eq!(
        (record.service.as_deref(), record.task.as_deref()),
        (Some("web"), Some("web.1"))
    );
    assert_eq!(record.fitness, Some(Fitness::Ready));
    assert_eq!(
        explanation.why,
        "the name of a service's tasks in network front: ready tasks"
    );
}

#[test]
fn reasons_fit_the_outcome() {
    let front = || Asker::Network("FRONT".into());
    let client = |text: &str| Asker::Client(text.parse().unwrap());
    for (asker, name, record_type, outcome, why) in [
        (
            front(),
            "web",
            "A",
            Outcome::Answered,
            "the name of a service in network front: VIP",
        ),
        (
            front(),
            "leaving",
            "A",
            Outcome::Answered,
            "the name of a service in network front: draining tasks, as none is ready",
        ),
        (
            front(),
            "web.3",
            "A",
            Outcome::Answered,
            "the name of a task in network front",
        ),
        (
            client("10.1.0.9"),
            "1.0.1.10.in-addr.arpa",
            "PTR",
            Outcome::Answered,
            "the address of a task in network front",
        ),
        (
            front(),
            "api",
            "AAAA",
            Outcome::Empty,
            "the name of a service in network front, which has no AAAA record",
        ),
        (
            front(),
            "api",
            "txt",
            Outcome::Forwarded,
            "the name of a service in network front; TXT records come from the upstreams alone",
        ),
        (
            front(),
            "db",
            "A",
            Outcome::Forwarded,
            "known in network back.end, which the asker is not in",
        ),
        (
            Asker::Outside,
            "db",
            "A",
            Outcome::Forwarded,
            "known in network back.end, but who asks from outside must add the network: db.back.end",
        ),
        (
            client("198.51.100.7"),
            "nope",
            "A",
            Outcome::Forwarded,
            "no such name in any network of this cluster",
        ),
    ] {
        let explanation = explain(asker, name, record_type);
        assert_eq!(
            (explanation.outcome, explanation.why.as_str()),
            (outcome, why),
            "{name} {record_type}"
        );
    }
}

#[test]
fn unknown_networks_and_types_are_named() {
    let zone = Zone::compile(&snapshot());
    let error = zone.explain(&Asker::Network("nope".into()), "web", "A").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no network named \"nope\"; there are: back.end, front"
    );
    let error = zone.explain(&Asker::Outside, "web", "BOGUS").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown record type \"BOGUS\"; for example A, AAAA, PTR, MX or TXT"
    );
}

#[test]
fn an_explanation_survives_json() {
    let explanation = explain(Asker::Network("front".into()), "shared", "A");
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation);
}
