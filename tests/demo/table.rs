//! Tables for people: two spaces between columns, numbers to the right.

/// Prints a table, indented by two.
pub(crate) fn print(headers: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headers[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..headers.len()).map(width).collect();
    let numeric = |column: usize| {
        rows.iter()
            .all(|row| row[column].starts_with(|c: char| c.is_ascii_digit()) && is_number(&row[column]))
    };
    let right: Vec<_> = (0..headers.len()).map(numeric).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::from(" ");
        for (column, cell) in cells.enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            line.push(' ');
            line.push_str(&if right[column] {
                format!("{pad}{cell}")
            } else {
                format!("{cell}{pad}")
            });
            line.push(' ');
        }
        println!("{}", line.trim_end());
    };
    line(&mut headers.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    println!();
}

/// A number, alone or with a unit behind a space.
fn is_number(cell: &str) -> bool {
    cell.split(' ').next().is_some_and(|word| word.parse::<f64>().is_ok())
}
