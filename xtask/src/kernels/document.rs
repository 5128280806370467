//! `docs/kernel.md`: what kernels offer, as tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::features::{FEATURES, Seen};
use super::{Kernel, Record, record};
use crate::workspace;

const DOCUMENT: &str = "docs/kernel.md";

/// `docs/kernel.md` with its tables made anew; all else is written by hand.
pub(crate) fn document() -> Result<(&'static str, String)> {
    let path = workspace().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let record = record()?;
    let text = replaced(&text, "needed", &features(&record, true, "for"))?;
    let text = replaced(&text, "used", &features(&record, false, "without it"))?;
    Ok((DOCUMENT, replaced(&text, "verified", &verified(&record))?))
}

/// Puts a table between its two marks.
fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- {name}: made by `cargo xtask gen` -->\n");
    let missing = || format!("{DOCUMENT} has no {}", begin.trim());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once("<!-- end -->").with_context(missing)?;
    Ok(format!("{before}{begin}{table}<!-- end -->{after}"))
}

fn features(record: &Record, needed: bool, last: &str) -> String {
    let kernels = sorted(record);
    let mut text = head(&["feature", "since", last], &kernels);
    for feature in FEATURES.iter().filter(|feature| feature.needed == needed) {
        let _ = write!(text, "| {} | {} | {} |", feature.name, feature.since, feature.text);
        for (_, kernel) in &kernels {
            let cell = match feature.seen {
                Seen::Asked(_) => match kernel.features.get(feature.id) {
                    Some(true) => "yes",
                    Some(false) => "no",
                    None => "",
                },
                Seen::Loading => "loads",
                Seen::Attaching => "attaches",
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn verified(record: &Record) -> String {
    let kernels = sorted(record);
    let mut text = head(&["program"], &kernels);
    let names: BTreeSet<&String> = kernels.iter().flat_map(|(_, k)| k.verified.keys()).collect();
    for name in names {
        let _ = write!(text, "| `{name}` |");
        for (_, kernel) in &kernels {
            let count = kernel.verified.get(name).map(u32::to_string).unwrap_or_default();
            let _ = write!(text, " {count} |");
        }
        text.push('\n');
    }
    text
}

fn head(columns: &[&str], kernels: &[(&str, &Kernel)]) -> String {
    let columns: Vec<&str> = columns
        .iter()
        .copied()
        .chain(kernels.iter().map(|(release, _)| *release))
        .collect();
    format!("| {} |\n{}|\n", columns.join(" | "), "|---".repeat(columns.len()))
}

/// Older kernels first.
fn sorted(record: &Record) -> Vec<(&str, &Kernel)> {
    let mut kernels: Vec<(&str, &Kernel)> = record.iter().map(|(release, kernel)| (&**release, kernel)).collect();
    kernels.sort_by_key(|(release, _)| {
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next())
    });
    kernels
}

#[cfg(test)]
mod tests {
    use super::super::tests::kernel;
    use super::*;

    #[test]
    fn tables_have_a_column_for_each_kernel_in_the_order_of_their_age() {
        let record: Record = [("6.18".into(), kernel(true, 7)), ("6.1".into(), kernel(false, 5))].into();
        let used = features(&record, false, "without it");
        assert!(
            used.starts_with("| feature | since | without it | 6.1 | 6.18 |\n|---|---|---|---|---|\n"),
            "{used}"
        );
        let tcx = used.lines().find(|line| line.starts_with("| tcx links")).unwrap();
        assert!(tcx.ends_with("| no | yes |"), "{tcx}");
        assert!(verified(&record).ends_with("| `tc_node` | 5 | 7 |\n"));
    }

    #[test]
    fn a_table_is_replaced_between_its_marks_alone() {
        let mark = "<!-- used: made by `cargo xtask gen` -->\n";
        let text = format!("before\n{mark}old\n<!-- end -->\nafter\n");
        let expected = format!("before\n{mark}new\n<!-- end -->\nafter\n");
        assert_eq!(replaced(&text, "used", "new\n").unwrap(), expected);
        assert!(
            replaced("nothing", "used", "new\n")
                .unwrap_err()
                .to_string()
                .contains("docs/kernel.md has no")
        );
    }
}
