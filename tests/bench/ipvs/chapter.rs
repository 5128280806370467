//! The row's tables and bars.

use std::fmt::Write as _;

use super::{Kind, Load, UNIT};
use crate::data::{Data, Spread};
use crate::plot::Plot;
use crate::report::{Bar, Chapter, Limit, cell, ratio};

/// How much plain forwarding costs, relative to itself.
const PLAIN: f64 = 1.0;

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (load, limit) in [(Load::Established, 0.40), (Load::New, 0.50)] {
        bars.push(Bar {
            what: format!("{}, {}: over plain forwarding", Kind::OursXdp.name(), load.name()),
            limit: Limit::AtMost(limit),
            measured: data.and_then(|data| relative(data, load, Kind::OursXdp)),
        });
    }
    for kind in [Kind::OursTcHere, Kind::OursTc] {
        let load = Load::Established;
        bars.push(Bar {
            what: format!("{}, {}: added to plain forwarding", kind.name(), load.name()),
            limit: Limit::AtMost(0.20),
            measured: data.and_then(|data| relative(data, load, kind)).map(|s| Spread {
                median: s.median - PLAIN,
                min: s.min - PLAIN,
                max: s.max - PLAIN,
            }),
        });
    }
    bars
}

fn relative(data: &Data, load: Load, kind: Kind) -> Option<Spread> {
    data.ratio((load.name(), kind.name()), (load.name(), Kind::Plain.name()))
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let [established, new] = Load::ALL;
    let mut text = format!(
        "| instructions of a packet | {0} | over plain forwarding | {1} | over plain forwarding |\n|---|---|---|---|---|\n",
        established.name(),
        new.name()
    );
    let shown = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Generator);
    for kind in shown.clone() {
        let _ = write!(text, "| {} |", kind.name());
        for load in Load::ALL {
            let spread = data.spread(load.name(), kind.name());
            let _ = write!(text, " {} | {} |", cell(spread), ratio(relative(data, load, kind)));
        }
        text.push('\n');
    }
    let making = Load::ALL.map(|load| cell(data.spread(load.name(), Kind::Generator.name())));
    let _ = writeln!(
        text,
        "\nTaken away already: what it costs to make a packet and to drop it in the driver, {} and {} {UNIT}.",
        making[0], making[1]
    );
    let groups = shown.map(|kind| {
        let values = Load::ALL.map(|load| relative(data, load, kind));
        (kind.name().to_owned(), values.to_vec())
    });
    let plot = Plot {
        title: "Instructions of a packet, relative to plain forwarding".to_owned(),
        unit: "of plain forwarding",
        groups: groups.collect(),
        subjects: Load::ALL.map(|load| load.name().to_owned()).to_vec(),
    };
    Chapter {
        text,
        plots: vec![("ipvs".to_owned(), plot)],
    }
}
