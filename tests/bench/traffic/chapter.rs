//! The row's tables and bars.

use std::fmt::Write as _;

use super::{
    DIRECT, DIRECT_BARE, DIRECT_PASS, EACH, EACH_GIGABYTE, Load, MANY, OURS, OURS_XDP, PEERS, WITH_MANY, case, ways,
};
use crate::data::{Data, Spread};
use crate::plot::Plot;
use crate::report::{Bar, Chapter, Limit, cell, ratio};

/// Share of what is possible without a balancer.
const LEAST: [(Load, f64); 4] = [
    (Load::Upload, 0.97),
    (Load::Download, 0.97),
    (Load::Requests, 0.97),
    (Load::Connections, 0.92),
];

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (ours, limit_of) in [(OURS, DIRECT), (OURS_XDP, DIRECT_BARE)] {
        for (load, least) in LEAST {
            for way in ways() {
                let of = case(way, load, "");
                let measured = data.and_then(|data| data.ratio((&of, ours), (&of, limit_of)));
                // At XDP only published ports are carried.
                if ours == OURS_XDP && !way.starts_with("published") {
                    continue;
                }
                bars.push(Bar {
                    what: format!("{ours}, {of}: share of {limit_of}"),
                    limit: Limit::AtLeast(least),
                    measured,
                });
            }
        }
    }
    for way in ways() {
        for load in Load::ALL {
            bars.push(ahead(data, way, load));
        }
    }
    for load in [Load::Requests, Load::Connections] {
        let of = case(ways()[0], load, "");
        bars.push(Bar {
            what: format!("{of} with 10,000 services: share of that with a few"),
            limit: Limit::AtLeast(0.97),
            measured: data.and_then(|data| data.ratio((&of, &format!("{OURS}{MANY}")), (&of, OURS))),
        });
    }
    bars
}

/// This balancer against the best of its peers.
fn ahead(data: Option<&Data>, way: &str, load: Load) -> Bar {
    let detail = if load == Load::Latency { " p50" } else { "" };
    let of = case(way, load, detail);
    let measured = data.and_then(|data| {
        let all = PEERS.iter().filter_map(|peer| data.ratio((&of, OURS), (&of, peer)));
        // The peer that comes closest.
        let worse = |a: &Spread, b: &Spread| {
            let order = a.median.total_cmp(&b.median);
            if load == Load::Latency { order.reverse() } else { order }
        };
        all.min_by(worse)
    });
    Bar {
        what: format!("{of}: over the best peer's"),
        limit: if load == Load::Latency {
            Limit::AtMost(1.0)
        } else {
            Limit::AtLeast(1.0)
        },
        measured,
    }
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text = String::from("Shares are of `no balancer` over the same hops.\n");
    let subjects: Vec<&str> = [DIRECT, OURS].into_iter().chain(PEERS).collect();
    let bare = [DIRECT_BARE, DIRECT_PASS, OURS_XDP];
    let mut plots = Vec::new();
    for (index, way) in ways().into_iter().enumerate() {
        let _ = writeln!(text, "\n### {}\n", sentence(way));
        table(&mut text, data, way, &subjects, DIRECT);
        if way.starts_with("published") {
            text.push_str("\nWithout offloads, as XDP on a veth leaves its peer:\n\n");
            table(&mut text, data, way, &bare, DIRECT_BARE);
            parts(&mut text, data, way);
        }
        plots.push((format!("traffic-{}", index + 1), plot(data, way)));
    }
    text.push_str("\n### 10,000 services\n\n| published port, backend on the node | few services | 10,000 services | share |\n|---|---|---|---|\n");
    for load in [Load::Requests, Load::Connections] {
        let of = case(ways()[0], load, "");
        for subject in WITH_MANY {
            let many = format!("{subject}{MANY}");
            let _ = writeln!(
                text,
                "| {}, {}: {subject} | {} | {} | {} |",
                load.name(),
                load.unit(),
                cell(data.spread(&of, subject)),
                cell(data.spread(&of, &many)),
                ratio(data.ratio((&of, &many), (&of, subject)))
            );
        }
    }
    Chapter { text, plots }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A line for each load, a column for each subject.
fn table(text: &mut String, data: &Data, way: &str, subjects: &[&str], limit: &str) {
    let _ = writeln!(text, "| | {} |", subjects.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(subjects.len()));
    for load in Load::ALL {
        let details: &[&str] = match load {
            Load::Latency => &[" p50", " p99", " p99.9"],
            Load::Upload | Load::Download => &["", EACH_GIGABYTE],
            Load::Requests => &["", EACH],
            Load::Datagrams => &["", ", lost"],
            Load::Connections => &[""],
        };
        for detail in details {
            let of = case(way, load, detail);
            let unit = data
                .series
                .iter()
                .find(|series| series.case == of)
                .map_or("", |series| &series.unit);
            let _ = write!(text, "| {}{detail}, {unit} |", load.name());
            for subject in subjects {
                let _ = write!(text, " {}", cell(data.spread(&of, subject)));
                if *subject != limit && *detail != ", lost" {
                    let share = data.ratio((&of, subject), (&of, limit));
                    let share = share.map_or_else(String::new, |share| format!("; {:.2}", share.median));
                    text.push_str(&share);
                }
                text.push_str(" |");
            }
            text.push('\n');
        }
    }
}

/// What of XDP's row is XDP's on a veth, and what is this balancer's.
fn parts(text: &mut String, data: &Data, way: &str) {
    text.push_str("\n| | XDP that passes, over none | this balancer, over XDP that passes |\n|---|---|---|\n");
    for load in Load::ALL {
        let detail = if load == Load::Latency { " p50" } else { "" };
        let of = case(way, load, detail);
        let over = |subject, limit| ratio(data.ratio((&of, subject), (&of, limit)));
        let (alone, ours) = (over(DIRECT_PASS, DIRECT_BARE), over(OURS_XDP, DIRECT_PASS));
        let _ = writeln!(text, "| {}{detail} | {alone} | {ours} |", load.name());
    }
}

/// Shares of what is possible without a balancer.
fn plot(data: &Data, way: &str) -> Plot {
    let subjects: Vec<&str> = std::iter::once(OURS).chain(PEERS).collect();
    let loads = Load::ALL.into_iter().filter(|load| *load != Load::Latency);
    let groups = loads.map(|load| {
        let of = case(way, load, "");
        let values = subjects.iter().map(|subject| data.ratio((&of, subject), (&of, DIRECT)));
        (load.name().to_owned(), values.collect())
    });
    Plot {
        title: format!("{}: share of no balancer", sentence(way)),
        unit: "of no balancer",
        groups: groups.collect(),
        subjects: subjects.into_iter().map(str::to_owned).collect(),
    }
}
