//! `deploy/prometheus/alerts.yml` asks for metrics and labels that there are, and every rule is explained.

use std::collections::BTreeSet;

use lb_common::verdict::Reason;
use lb_userspace::telemetry::metrics;
use serde_yaml_ng::Value;

const RULES: &str = include_str!("../../deploy/prometheus/alerts.yml");
const EXPLAINED: &str = include_str!("../../docs/operations.md");

fn rules() -> Vec<(String, String)> {
    let document: Value = serde_yaml_ng::from_str(RULES).unwrap();
    let rules = document["groups"][0]["rules"].as_sequence().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .iter()
        .map(|rule| {
            assert!(rule["annotations"]["summary"].is_string(), "{rule:?}");
            (text(&rule["alert"]), text(&rule["expr"]))
        })
        .collect()
}

/// Words of an expression that begin as our metrics do.
fn metrics_in(expression: &str) -> BTreeSet<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("lb_"))
        .collect()
}

#[test]
fn every_metric_of_a_rule_is_served() {
    let known = metrics::markdown();
    for (alert, expression) in rules() {
        let asked = metrics_in(&expression);
        assert!(
            !asked.is_empty() || expression.starts_with("up{"),
            "{alert}: {expression}"
        );
        for metric in asked {
            assert!(known.contains(&format!("| `{metric}` |")), "{alert}: no {metric}");
        }
    }
}

#[test]
fn every_label_of_a_rule_is_one_of_its_metrics() {
    let known = metrics::markdown();
    for (alert, expression) in rules() {
        for selector in expression.split('{').skip(1).filter(|_| !expression.starts_with("up{")) {
            let inside = selector.split('}').next().unwrap();
            for matcher in inside.split(", ") {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                let has = |metric: &&str| {
                    let row = known.lines().find(|line| line.starts_with(&format!("| `{metric}` |")));
                    row.is_some_and(|row| row.split('|').nth(3).unwrap().split(',').any(|l| l.trim() == label))
                };
                assert!(metrics_in(&expression).iter().any(has), "{alert}: no label {label}");
            }
        }
    }
}

#[test]
fn every_reason_of_a_rule_is_one_that_packets_have() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    for (alert, expression) in rules() {
        let Some(rest) = expression.split_once("reason=").map(|(_, rest)| rest) else {
            continue;
        };
        let value = rest.split('"').nth(1).unwrap();
        // Patterns here are alternatives of a beginning or an end.
        let named: Vec<String> = match value.strip_prefix("(reset|unreachable)") {
            Some(end) => ["reset", "unreachable"].map(|begin| format!("{begin}{end}")).into(),
            None => value.split('|').map(str::to_owned).collect(),
        };
        for name in named {
            let found = match name.strip_suffix(".*") {
                Some(begin) => reasons.iter().any(|reason| reason.starts_with(begin)),
                None => reasons.contains(name.as_str()),
            };
            assert!(found, "{alert}: no reason {name}");
        }
    }
}

#[test]
fn every_rule_is_explained() {
    for (alert, _) in rules() {
        assert!(
            EXPLAINED.contains(&format!("| `{alert}` |")),
            "{alert}: not in docs/operations.md"
        );
    }
}
