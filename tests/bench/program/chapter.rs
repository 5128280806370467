//! The row's tables and bars.

use std::fmt::Write as _;

use super::{BARE, Flows, Hook, OURS, Path, SERVICES, STEP, case, services_case, yardstick_case};
use crate::data::{Data, Spread};
use crate::plot::Plot;
use crate::report::{Bar, Chapter, Limit, cell, ratio};
use crate::yardstick::{STEPS, Table};

/// Flows of the bars, and the most that each may cost relative to the yardstick.
const BARS: [(Flows, f64); 5] = [
    (Flows::None, 2.2),
    (Flows::Known(1), 1.30),
    (Flows::Known(60_000), 1.15),
    (Flows::Known(1_000_000), 1.10),
    (Flows::New, 1.15),
];

/// The path that is compared with the yardstick at a hook: the one that ends there.
const fn compared(hook: Hook, flows: Flows) -> Path {
    match (hook, flows) {
        (_, Flows::None) => Path::NotService,
        (Hook::Xdp, _) => Path::ToNode,
        (Hook::Tc, _) => Path::ToLocal,
    }
}

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        for (flows, limit) in BARS {
            bars.push(Bar {
                what: format!("{}, IPv4, {}: net cost over the yardstick's", hook.name(), flows.name()),
                limit: Limit::AtMost(limit),
                measured: data.and_then(|data| against(data, hook, false, flows)),
            });
        }
    }
    for flows in [Flows::Known(1), Flows::New] {
        let [few, .., many] = SERVICES.map(|services| services_case(services, flows));
        bars.push(Bar {
            what: format!(
                "{}: net cost among 10,000 services over that of one alone",
                flows.name()
            ),
            limit: Limit::AtMost(1.05),
            measured: data.and_then(|data| data.ratio((&many, OURS), (&few, OURS))),
        });
    }
    bars
}

fn against(data: &Data, hook: Hook, v6: bool, flows: Flows) -> Option<Spread> {
    let ours = case(hook, compared(hook, flows), v6, flows);
    data.ratio((&ours, OURS), (&yardstick_case(hook, flows), Table::Hash.name()))
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text = String::new();
    let bare = [Hook::Xdp, Hook::Tc].map(|hook| cell(data.spread(hook.name(), BARE)));
    let _ = writeln!(
        text,
        "A program that returns at once takes {} ns at XDP and {} ns at tc; all that follows is net of it.\n",
        bare[0], bare[1]
    );
    main_table(&mut text, data);
    all_paths(&mut text, data);
    services(&mut text, data);
    steps(&mut text, data);
    sizes(&mut text, data);
    Chapter {
        text,
        plots: vec![("program".to_owned(), plot(data))],
    }
}

fn main_table(text: &mut String, data: &Data) {
    text.push_str(
        "| hook | packets | yardstick, ns | yardstick with an LRU table, ns | this balancer IPv4, ns | over the yardstick | over that with LRU | IPv6, ns |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for hook in [Hook::Xdp, Hook::Tc] {
        for (flows, _) in BARS {
            let of = yardstick_case(hook, flows);
            let [hash, lru] = Table::BOTH.map(|table| cell(data.spread(&of, table.name())));
            let [v4, v6] = [false, true].map(|v6| case(hook, compared(hook, flows), v6, flows));
            let _ = writeln!(
                text,
                "| {} | {} | {hash} | {lru} | {} | {} | {} | {} |",
                hook.name(),
                flows.name(),
                cell(data.spread(&v4, OURS)),
                ratio(against(data, hook, false, flows)),
                ratio(data.ratio((&v4, OURS), (&of, Table::Lru.name()))),
                cell(data.spread(&v6, OURS)),
            );
        }
    }
}

fn all_paths(text: &mut String, data: &Data) {
    text.push_str(
        "\nEvery path, net ns:\n\n| case | this balancer | over the yardstick with as many flows |\n|---|---|---|\n",
    );
    for name in data.cases().into_iter().filter(|name| name.contains("IPv")) {
        let Some((hook, rest)) = name.split_once(", ") else {
            continue;
        };
        let flows = rest.rsplit(", ").next().unwrap_or_default();
        let yardstick = format!("{hook}, {flows}");
        let _ = writeln!(
            text,
            "| {name} | {} | {} |",
            cell(data.spread(name, OURS)),
            ratio(data.ratio((name, OURS), (&yardstick, Table::Hash.name())))
        );
    }
}

fn services(text: &mut String, data: &Data) {
    text.push_str("\nTraffic to one service among many (XDP, IPv4, to another node), net ns:\n\n| services | 1 flow | over 1 service | new flow per packet | over 1 service |\n|---|---|---|---|---|\n");
    for services in SERVICES {
        let _ = write!(text, "| {services} |");
        for flows in [Flows::Known(1), Flows::New] {
            let of = services_case(services, flows);
            let alone = services_case(SERVICES[0], flows);
            let over = ratio(data.ratio((&of, OURS), (&alone, OURS)));
            let _ = write!(text, " {} | {over} |", cell(data.spread(&of, OURS)));
        }
        text.push('\n');
    }
}

fn steps(text: &mut String, data: &Data) {
    text.push_str("\nSteps of which this balancer's programs take some, each alone in a program, net ns:\n\n| step | |\n|---|---|\n");
    for (_, what) in STEPS {
        let _ = writeln!(text, "| {what} | {} |", cell(data.spread(what, STEP)));
    }
}

fn sizes(text: &mut String, data: &Data) {
    text.push_str("\nWhat the kernel made of the programs:\n\n| program | verified instructions | machine code, B |\n|---|---|---|\n");
    let mut names: Vec<_> = data
        .cases()
        .into_iter()
        .filter_map(|case| case.strip_suffix(": machine code"))
        .collect();
    names.sort_unstable();
    for name in names {
        for subject in [OURS, Table::Hash.name()] {
            let value = |what| data.spread(&format!("{name}: {what}"), subject).map(|s| s.median);
            if let (Some(verified), Some(code)) = (value("verified instructions"), value("machine code")) {
                let _ = writeln!(text, "| `{name}` ({subject}) | {verified} | {code} |");
            }
        }
    }
}

fn plot(data: &Data) -> Plot {
    let mut groups = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        for (flows, _) in BARS {
            let of = yardstick_case(hook, flows);
            let mut values: Vec<_> = [false, true]
                .map(|v6| data.spread(&case(hook, compared(hook, flows), v6, flows), OURS))
                .into();
            values.extend(Table::BOTH.map(|table| data.spread(&of, table.name())));
            groups.push((of, values));
        }
    }
    let [hash, lru] = Table::BOTH.map(|table| table.name().to_owned());
    Plot {
        title: "Cost of one run of a program, net of one that returns at once".to_owned(),
        unit: "ns",
        subjects: vec![
            "this balancer, IPv4".to_owned(),
            "this balancer, IPv6".to_owned(),
            hash,
            lru,
        ],
        groups,
    }
}
