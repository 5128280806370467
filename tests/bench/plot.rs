//! Bars with whiskers, as SVG.

use std::fmt::Write as _;

use crate::data::Spread;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 270.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TOP: f64 = 58.0;
/// One of each subject; the first is this balancer's.
const COLOURS: [&str; 8] = [
    "#1f6feb", "#8b949e", "#d29922", "#bf4b8a", "#3fb950", "#f0883e", "#a371f7", "#57606a",
];

/// Bars in groups, one for each subject: the median, and a line from the least to the greatest round.
pub(crate) struct Plot {
    /// What is shown.
    pub(crate) title: String,
    /// Of the values.
    pub(crate) unit: &'static str,
    /// Subjects, in the order of the bars.
    pub(crate) subjects: Vec<String>,
    /// Label of each group, and a value for each subject that has one.
    pub(crate) groups: Vec<(String, Vec<Option<Spread>>)>,
}

impl Plot {
    /// As an SVG document.
    pub(crate) fn svg(&self) -> String {
        let rows: usize = self
            .groups
            .iter()
            .map(|(_, values)| values.iter().flatten().count())
            .sum();
        let height = TOP + rows as f64 * BAR + self.groups.len() as f64 * GAP + 34.0;
        let all = self.groups.iter().flat_map(|(_, values)| values.iter().flatten());
        let most = all.fold(0.0, |most: f64, value| most.max(value.max));
        let step = step(most);
        let end = (most / step).ceil().max(1.0) * step;
        let x = |value: f64| LABELS + value / end * (WIDTH - LABELS - 70.0);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"8\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
            escape(&self.title)
        );
        let mut left = 8.0;
        for (index, subject) in self.subjects.iter().enumerate() {
            line(&mut out, &rect(left, 30.0, 10.0, 10.0, colour(index)));
            line(&mut out, &text(left + 14.0, 39.0, "start", subject));
            left += 30.0 + subject.chars().count() as f64 * 6.2;
        }
        let bottom = height - 24.0;
        let mut mark = 0.0;
        while mark <= end * 1.001 {
            let at = x(mark);
            let rule = format!("<path d=\"M{at:.1} {:.1}V{bottom:.1}\" stroke=\"#d0d7de\"/>", TOP - 6.0);
            line(&mut out, &rule);
            line(&mut out, &text(at, bottom + 13.0, "middle", &short(mark)));
            mark += step;
        }
        line(&mut out, &text(WIDTH - 8.0, bottom + 13.0, "end", self.unit));
        let mut y = TOP;
        for (label, values) in &self.groups {
            let count = values.iter().flatten().count() as f64;
            line(&mut out, &text(LABELS - 8.0, y + count * BAR / 2.0 + 3.0, "end", label));
            for (index, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                line(
                    &mut out,
                    &rect(LABELS, y, x(value.median) - LABELS, BAR - 3.0, colour(index)),
                );
                let middle = y + (BAR - 3.0) / 2.0;
                let whisker = format!(
                    "<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#24292f\"/>",
                    x(value.min),
                    x(value.max)
                );
                line(&mut out, &whisker);
                line(
                    &mut out,
                    &text(x(value.max) + 5.0, y + 9.0, "start", &short(value.median)),
                );
                y += BAR;
            }
            y += GAP;
        }
        out + "</svg>\n"
    }
}

fn line(out: &mut String, element: &str) {
    let _ = writeln!(out, "{element}");
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn rect(x: f64, y: f64, width: f64, height: f64, fill: &str) -> String {
    let width = width.max(0.5);
    format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>")
}

fn text(x: f64, y: f64, anchor: &str, content: &str) -> String {
    let content = escape(content);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Distance of marks: 1, 2 or 5 of some power of ten, four to nine of them.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// Three digits, and k or M.
pub(crate) fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.1234, 1.0, 9.876, 59.06, 473.2, 12_345.0, 4_100_000.0, 2.5e10];
        let shown = all.map(short);
        assert_eq!(
            shown,
            ["0", "0.123", "1", "9.88", "59.1", "473", "12.3 k", "4.1 M", "25 G"]
        );
    }

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!([9.0, 37.0, 480.0].map(step), [2.0, 10.0, 100.0]);
    }
}
