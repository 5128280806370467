//! What has a page and no list: a plan, an answer of the DNS, the checks of the doctor.

use std::fmt::Write as _;

use lb_userspace::admin::api::{Check, DnsAnswer, Level, Plan};

use crate::output::{Context, View};
use crate::table::Table;

impl View for Plan {
    fn name(&self) -> String {
        self.steps.to_string()
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let mut text: String = items
            .iter()
            .map(|plan| plan.text.trim_end().to_owned() + "\n")
            .collect();
        if items.iter().all(|plan| plan.steps == 0) && text.trim().is_empty() {
            text = "Nothing to do: the maps hold the desired state.\n".into();
        }
        Some(text)
    }
}

impl View for DnsAnswer {
    fn name(&self) -> String {
        self.records
            .iter()
            .map(|r| r.data.clone())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let mut text = String::new();
        for answer in items {
            let from = answer
                .network
                .as_ref()
                .map_or_else(|| "no known network".into(), |n| format!("network {n}"));
            let outcome = if answer.rcode.is_empty() {
                &answer.source
            } else {
                &answer.rcode
            };
            let _ = writeln!(text, "{} asked from {from}: {outcome}", answer.name);
            if !answer.records.is_empty() {
                let mut table = Table::new(&["NAME", "TYPE", ">TTL", "DATA"]);
                for r in &answer.records {
                    table.row([r.name.clone(), r.kind.clone(), r.ttl.to_string(), r.data.clone()]);
                }
                text += &table.render(true);
            }
            for step in &answer.why {
                let _ = writeln!(text, "  {step}");
            }
        }
        Some(text)
    }
}

impl View for Check {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let width = items.iter().map(|c| c.id.len()).max().unwrap_or(0);
        let mut text = String::new();
        for check in items {
            let level = level(check.level);
            let _ = writeln!(text, "{level}  {:<width$}  {}", check.id, check.finding);
            if let Some(fix) = &check.fix {
                let _ = writeln!(text, "        -> {fix}");
            }
        }
        let number = |level| items.iter().filter(|c| c.level == level).count();
        let (passed, warned, failed) = (number(Level::Pass), number(Level::Warn), number(Level::Fail));
        let s = if warned == 1 { "" } else { "s" };
        let _ = writeln!(text, "{passed} passed, {warned} warning{s}, {failed} failed");
        Some(text)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Pass => "PASS",
        Level::Warn => "WARN",
        Level::Fail => "FAIL",
    }
}
