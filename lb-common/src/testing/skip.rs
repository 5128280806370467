//! The skip rule: a test that cannot run on a machine says so by name, and where nothing may be left out, that is a failure.

use std::io::Write as _;
use std::string::String;

/// Strict mode, set by continuous integration, with the value 1.
pub const STRICT: &str = "LB_TEST_STRICT";

/// Says on standard error why the calling test does not run here: `SKIP: <test>: <reason>`. False, for whoever asks whether it
/// does.
///
/// # Panics
/// If `LB_TEST_STRICT=1`.
pub fn skip(reason: &str) -> bool {
    let test = current_test();
    if std::env::var(STRICT).is_ok_and(|value| value == "1") {
        panic!("{test}: {reason}, and {STRICT}=1 makes a skip a failure");
    }
    // Not `eprintln!`: the test runner would keep it to itself.
    let _ = std::writeln!(std::io::stderr(), "SKIP: {test}: {reason}");
    false
}

/// Name of the calling test: the test runner names its threads after their tests.
pub fn current_test() -> String {
    String::from(std::thread::current().name().unwrap_or("unnamed"))
}
