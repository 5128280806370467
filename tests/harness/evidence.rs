//! [`record`]: figures by which a test proves a promise, for `cargo xtask reliability`.
//!
//! They are appended to the file that `LB_EVIDENCE` names, one JSON object a line; without it nothing is written:
//!
//! ```text
//! {"promise":"no-flow-lost","test":"faults::every_fault_point","figure":"live TCP flows","value":1000}
//! ```
//!
//! `promise` is a name of the list in `xtask/src/reliability/promises.rs`, `value` a whole number. What one test says
//! several times of one figure is added up. A test of another package takes this file as a module of its own:
//! `#[path = "../../tests/harness/evidence.rs"] mod evidence;` (it needs nothing but std).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Names the file.
const FILE: &str = "LB_EVIDENCE";

/// Writes down that the running test has shown `promise` with `value` of what `figure` names (`live TCP flows`).
/// Threads that a test starts without its name are no test: call it on the test's own.
///
/// # Panics
/// If the file that `LB_EVIDENCE` names cannot be written: evidence must not be lost in silence.
pub fn record(promise: &str, figure: &str, value: u64) {
    let Some(path) = std::env::var_os(FILE) else { return };
    let thread = std::thread::current();
    let line = line(promise, thread.name().unwrap_or("unnamed"), figure, value);
    append(Path::new(&path), &line).unwrap_or_else(|error| panic!("{FILE}={}: {error}", path.display()));
}

/// The line, its end too.
fn line(promise: &str, test: &str, figure: &str, value: u64) -> String {
    let [promise, test, figure] = [promise, test, figure].map(quoted);
    format!("{{\"promise\":{promise},\"test\":{test},\"figure\":{figure},\"value\":{value}}}\n")
}

/// As a JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// One write, so that lines of several processes do not mix.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_whatever_is_in_them() {
        let line = line("drain", "a::b", "of \"x\\y\"\n", 3);
        assert_eq!(
            line,
            "{\"promise\":\"drain\",\"test\":\"a::b\",\"figure\":\"of \\\"x\\\\y\\\"\\u000a\",\"value\":3}\n"
        );
        assert!(line.ends_with('\n') && line.lines().count() == 1);
    }

    #[test]
    fn lines_are_added_to_what_is_there() {
        let path = std::env::temp_dir().join(format!("lb-evidence-{}", std::process::id()));
        for value in [1, 2] {
            append(&path, &line("drain", "t", "runs", value)).expect("written");
        }
        let text = std::fs::read_to_string(&path).expect("read");
        drop(std::fs::remove_file(&path));
        assert_eq!(text.lines().count(), 2);
    }
}
