//! An answer in the form asked for.

use std::time::SystemTime;

use lb_userspace::admin::api::{Code, Error, Item, List, Origin};
use serde::Serialize;

use crate::args::{Common, Output};
use crate::table::Table;

/// What is printed, and whether the answer was "no" (exit code 1).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) no: bool,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, no: false }
    }
}

/// How a kind of item looks to people. Pure.
pub(crate) trait View: Item + Serialize + Sized {
    /// The words that stand for it with `-q` and `-o name`; each is accepted where a name is asked for.
    fn name(&self) -> String;
    /// Columns for a list.
    fn table(items: &[Self], context: &Context) -> Table;
    /// A page instead of a table.
    fn page(_items: &[Self], _context: &Context) -> Option<String> {
        None
    }
}

/// What rendering depends on besides the items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// More columns.
    pub(crate) wide: bool,
    /// Who answered.
    pub(crate) source: Origin,
    /// Ages are relative to this.
    pub(crate) now: SystemTime,
}

/// Renders a list as `common` wants it.
pub(crate) fn render<T: View>(list: &List<T>, common: &Common) -> Result<String, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Code::Internal, format!("cannot write the answer: {e}"));
    let wide = common.output == Output::Wide;
    let context = Context {
        wide,
        source: list.source,
        now: SystemTime::now(),
    };
    match common.output {
        Output::Json => Ok(serde_json::to_string_pretty(list).map_err(|e| failed(&e))? + "\n"),
        Output::Yaml => serde_yaml_ng::to_string(list).map_err(|e| failed(&e)),
        _ if common.quiet || common.output == Output::Name => {
            Ok(list.items.iter().map(|item| item.name() + "\n").collect())
        }
        _ => Ok(match T::page(&list.items, &context) {
            Some(page) => page,
            None => T::table(&list.items, &context).render(!common.no_headers),
        }),
    }
}

/// `-` for what is not known.
pub(crate) fn dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

/// As `3d4h`, `5m10s`, `42s`, `0.3s`: the two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds as u64;
    let (d, h, m, s) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s}s"),
        (0, ..) => format!("{h}h{m}m"),
        _ => format!("{d}d{h}h"),
    }
}

/// As `999`, `21.4k`, `8.1M`.
pub(crate) fn count(n: u64) -> String {
    scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P"])
}

/// As `44B`, `1.5KiB`, `10.5MiB`.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0}{}", units[unit])
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(duration(0.34), "0.3s");
        assert_eq!(duration(42.9), "42s");
        assert_eq!(duration(310.0), "5m10s");
        assert_eq!(duration(3.2 * 86_400.0), "3d4h");
        assert_eq!(count(999), "999");
        assert_eq!(count(21_400), "21.4k");
        assert_eq!(bytes(44), "44B");
        assert_eq!(bytes(11_010_048), "10.5MiB");
    }
}
