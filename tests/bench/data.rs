//! What was measured, as it is kept in `docs/benchmarks/<row>.json`, and the numbers made from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::Effort;
use crate::machine::Machine;

/// One row's measurements, all of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Data {
    /// Where.
    pub(crate) machine: Machine,
    /// Of which sources.
    pub(crate) commit: String,
    /// How often each subject had its turn.
    pub(crate) rounds: usize,
    /// Whether rounds were cut short.
    pub(crate) quick: bool,
    /// What a reader should know about this run: versions, offloads, what is missing and why.
    pub(crate) notes: Vec<String>,
    /// What was measured.
    pub(crate) series: Vec<Series>,
}

/// One subject in one case: a value for each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    /// What is done.
    pub(crate) case: String,
    /// Who does it.
    pub(crate) subject: String,
    /// Of the values.
    pub(crate) unit: String,
    /// By round.
    pub(crate) values: Vec<f64>,
}

/// Median, least and greatest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Data {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// If the machine cannot be described.
    pub(crate) fn new(effort: Effort, commit: &str) -> Result<Self> {
        Ok(Self {
            machine: Machine::this()?,
            commit: commit.to_owned(),
            rounds: effort.rounds,
            quick: effort.quick,
            notes: Vec::new(),
            series: Vec::new(),
        })
    }

    /// Adds a round's value.
    pub(crate) fn add(&mut self, case: &str, subject: &str, unit: &str, value: f64) {
        match self.series.iter_mut().find(|s| s.case == case && s.subject == subject) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series {
                case: case.to_owned(),
                subject: subject.to_owned(),
                unit: unit.to_owned(),
                values: vec![value],
            }),
        }
    }

    /// Says something once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The values of a subject in a case.
    pub(crate) fn values(&self, case: &str, subject: &str) -> Option<&[f64]> {
        let series = self.series.iter().find(|s| s.case == case && s.subject == subject)?;
        Some(&series.values)
    }

    /// Their spread.
    pub(crate) fn spread(&self, case: &str, subject: &str) -> Option<Spread> {
        Spread::of(self.values(case, subject)?)
    }

    /// A subject in a case, relative to another in its case, round by round.
    pub(crate) fn ratio(&self, of: (&str, &str), to: (&str, &str)) -> Option<Spread> {
        let (of, to) = (self.values(of.0, of.1)?, self.values(to.0, to.1)?);
        Spread::of(&of.iter().zip(to).map(|(a, b)| a / b).collect::<Vec<_>>())
    }

    /// Cases, in the order in which they were measured first.
    pub(crate) fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for series in &self.series {
            if !cases.contains(&series.case.as_str()) {
                cases.push(&series.case);
            }
        }
        cases
    }

    /// Writes the row's file.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn save(&self, output: &Path, row: &str) -> Result<()> {
        let path = path(output, row);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        let rounded = Self {
            series: self.series.iter().map(Series::rounded).collect(),
            ..self.clone()
        };
        let text = serde_json::to_string_pretty(&rounded)?;
        fs::write(&path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Reads a row's file, if there is one.
    ///
    /// # Errors
    /// If it is not what this program writes.
    pub(crate) fn load(output: &Path, row: &str) -> Result<Option<Self>> {
        let path = path(output, row);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let data = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Some(data))
    }
}

impl Series {
    /// To five digits: more is noise.
    fn rounded(&self) -> Self {
        let digits = |value: f64| {
            if value == 0.0 || !value.is_finite() {
                return value;
            }
            let scale = 10f64.powi(4 - value.abs().log10().floor() as i32);
            (value * scale).round() / scale
        };
        Self {
            values: self.values.iter().copied().map(digits).collect(),
            ..self.clone()
        }
    }
}

impl Spread {
    /// Of some values; `None` of none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Some(Self { median, min, max })
    }
}

fn path(output: &Path, row: &str) -> PathBuf {
    output.join("benchmarks").join(format!("{row}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_two() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.median, s.min, s.max));
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some((3.0, 1.0, 9.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 1.0, 9.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn values_are_kept_to_five_digits() {
        let series = |value: f64| Series {
            case: String::new(),
            subject: String::new(),
            unit: String::new(),
            values: vec![value],
        };
        assert_eq!(series(123_456.789).rounded().values, [123_460.0]);
        assert_eq!(series(0.012_345_678).rounded().values, [0.012_346]);
        assert_eq!(series(0.0).rounded().values, [0.0]);
    }
}
