//! Plain tables: upper-case headers, two spaces between columns, numbers to the right, nothing cut off.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Columns and rows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A name that begins with `>` belongs to a column of numbers.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('>') {
            Some(name) => (name, Align::Right),
            None => (*name, Align::Left),
        };
        Self {
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().take(self.columns.len()).collect();
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, headers: bool) -> String {
        let head: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines: Vec<&Vec<String>> = headers.then_some(&head).into_iter().chain(&self.rows).collect();
        let width = |i: usize| {
            lines
                .iter()
                .filter_map(|l| l.get(i))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells = line
                .iter()
                .zip(&self.columns)
                .zip(&widths)
                .map(|((cell, (_, align)), width)| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_lines_end_without_spaces() {
        let mut table = Table::new(&["NAME", ">FLOWS", "NOTE"]);
        table.row(["web".into(), "7".into(), String::new()]);
        table.row(["a-long-name".into(), "1200".into(), "x".into()]);
        let expected = "NAME         FLOWS  NOTE\nweb              7\na-long-name   1200  x\n";
        assert_eq!(table.render(true), expected);
        assert_eq!(table.render(false), "web             7\na-long-name  1200  x\n");
        assert_eq!(Table::new(&["NAME"]).render(true), "NAME\n");
    }
}
