//! `docs/benchmarks.md` and its plots, from the template and the rows' files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::Row;
use crate::data::{Data, Spread};
use crate::plot::{Plot, short};

/// The hand-written part, with a place for each row's tables.
const TEMPLATE: &str = include_str!("template.md");

/// What a row has to reach.
pub(crate) struct Bar {
    /// What is measured.
    pub(crate) what: String,
    /// The limit, and whether it may be exceeded downwards (`at most`) or upwards.
    pub(crate) limit: Limit,
    /// What came out; `None`: not measured.
    pub(crate) measured: Option<Spread>,
}

impl Bar {
    /// Whether it is met, if it was measured.
    fn met(&self) -> Option<bool> {
        Some(self.limit.met(self.measured?.median))
    }
}

/// Which side of a number is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
        }
    }
}

/// A row's part of the document.
pub(crate) struct Chapter {
    /// Markdown, without a heading.
    pub(crate) text: String,
    /// Name of the file, and the plot.
    pub(crate) plots: Vec<(String, Plot)>,
}

/// Writes the document and the plots.
///
/// # Errors
/// If a row's file is not to be read, or something not to be written.
pub(crate) fn write(output: &Path) -> Result<()> {
    let mut document = TEMPLATE.to_owned();
    let mut overview = String::from("| row | bars met | missed | not measured |\n|---|---|---|---|\n");
    for row in Row::value_variants() {
        let data = Data::load(output, row.name())?;
        let mut text = String::new();
        let bars = row.bars(data.as_ref());
        let count = |wanted: Option<bool>| bars.iter().filter(|bar| bar.met() == wanted).count();
        let [met, missed, unknown] = [Some(true), Some(false), None].map(count);
        let _ = writeln!(overview, "| {} | {met} | {missed} | {unknown} |", row.name());
        match &data {
            None => {
                let _ = writeln!(text, "Not measured yet: `cargo xtask bench {}`.", row.name());
            }
            Some(data) => {
                let chapter = row.chapter(data);
                let _ = writeln!(text, "{}\n\n{}", origin(data), chapter.text.trim_end());
                if !bars.is_empty() {
                    text.push_str("\n| what | bar | measured | |\n|---|---|---|---|\n");
                }
                text.extend(bars.iter().map(|bar| format!("| {}\n", line(bar))));
                for (name, plot) in chapter.plots {
                    let file = format!("benchmarks/{name}.svg");
                    fs::write(output.join(&file), plot.svg()).context(file.clone())?;
                    let _ = writeln!(text, "\n![{}]({file})", plot.title);
                }
                for note in &data.notes {
                    let _ = write!(text, "\n- {note}");
                }
            }
        }
        document = put(&document, row.name(), text.trim_end())?;
    }
    document = put(&document, "bars", overview.trim_end())?;
    let path = output.join("benchmarks.md");
    fs::write(&path, document).with_context(|| path.display().to_string())
}

fn put(document: &str, name: &str, text: &str) -> Result<String> {
    let place = format!("{{{{{name}}}}}");
    ensure!(
        document.contains(&place),
        "tests/bench/template.md has no place {place}"
    );
    Ok(document.replace(&place, text))
}

/// Where and how a row was measured.
fn origin(data: &Data) -> String {
    let m = &data.machine;
    format!(
        "{}, {} CPU{}, {} GiB, Linux {}; {}, sources {}; {} round{}{}. Data: every round's values.",
        m.cpu,
        m.cpus,
        if m.cpus == 1 { "" } else { "s" },
        m.memory,
        m.kernel,
        m.date,
        data.commit,
        data.rounds,
        if data.rounds == 1 { "" } else { "s" },
        if data.quick { ", cut short (`--quick`)" } else { "" },
    )
}

fn line(bar: &Bar) -> String {
    let (measured, verdict) = match bar.measured {
        None => ("not measured".to_owned(), "?"),
        Some(spread) => (
            cell(Some(spread)),
            if bar.met() == Some(true) { "met" } else { "**missed**" },
        ),
    };
    format!("{} | {} | {measured} | {verdict} |", bar.what, bar.limit.text())
}

/// `median (min-max)` for a table.
pub(crate) fn cell(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, min, max }) if min == max => short(median),
        Some(Spread { median, min, max }) => format!("{} ({}-{})", short(median), short(min), short(max)),
    }
}

/// A ratio for a table.
pub(crate) fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |s| match s {
            Spread { median, min, max } if min == max => format!("{median:.2}"),
            Spread { median, min, max } => format!("{median:.2} ({min:.2}-{max:.2})"),
        },
    )
}
