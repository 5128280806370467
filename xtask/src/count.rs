//! How many tests passed, failed and were skipped, from what the test runners write.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::ops::AddAssign;

/// What a test prints when the machine lacks something: `SKIP: <test>: <reason>`.
const SKIP: &str = "SKIP: ";

/// Outcome of test runs; its Display is the closing line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// How many tests were skipped for each reason.
    pub(crate) reasons: BTreeMap<String, usize>,
}

impl Counts {
    /// One check that is not a test, such as the format of the code.
    pub(crate) fn check(passed: bool) -> Self {
        Self {
            passed: passed.into(),
            failed: (!passed).into(),
            ..Self::default()
        }
    }

    /// From the JUnit file of cargo-nextest, which counts a skipped test as passed.
    pub(crate) fn from_junit(xml: &str) -> Option<Self> {
        let head = xml.lines().find_map(|line| line.trim().strip_prefix("<testsuites "))?;
        let number = |name: &str| attribute(head, name)?.parse::<usize>().ok();
        let failed = number("failures")? + number("errors")?;
        Some(
            Self {
                passed: number("tests")?.checked_sub(failed)?,
                failed,
                ..Self::default()
            }
            .with_skips(xml),
        )
    }

    /// From the output of `cargo test`, which counts a skipped test as passed.
    pub(crate) fn from_libtest(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("test result: "))
        {
            let number = |name: &str| {
                let field = line
                    .split([';', '.'])
                    .find_map(|field| field.trim().strip_suffix(name))?;
                field.trim().parse::<usize>().ok()
            };
            counts.passed += number("passed").unwrap_or(0);
            counts.failed += number("failed").unwrap_or(0);
        }
        counts.with_skips(text)
    }

    fn with_skips(mut self, text: &str) -> Self {
        for (_, skip) in text.lines().filter_map(|line| line.split_once(SKIP)) {
            let reason = skip.split_once(": ").map_or(skip, |(_, reason)| reason);
            *self.reasons.entry(reason.trim().to_owned()).or_default() += 1;
            self.skipped += 1;
        }
        self.passed = self.passed.saturating_sub(self.skipped);
        self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_and_skips() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="5" failures="1" errors="1" uuid="x" time="0.4">
    <testsuite name="lb-tests::netns" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="published" classname="lb-tests::netns"><system-err>SKIP: published: needs root (run with sudo)
</system-err></testcase>
"#;
        let counts = Counts::from_junit(xml).unwrap();
        assert_eq!(counts.to_string(), "2 passed, 2 failed, 1 skipped");
        assert_eq!(
            counts.reasons,
            BTreeMap::from([("needs root (run with sudo)".to_owned(), 1)])
        );
        assert_eq!(Counts::from_junit("<html>"), None);
    }

    #[test]
    fn libtest_counts_are_added_up() {
        let text = "test a ... ok\ntest result: ok. 6 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
                    SKIP: b: needs a kernel with BPF\n\
                    test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.1s\n";
        assert_eq!(Counts::from_libtest(text).to_string(), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn sums_keep_the_reasons() {
        let mut sum = Counts::from_libtest("test result: ok. 2 passed; 0 failed\nSKIP: a: root\n");
        sum += Counts::from_libtest("test result: ok. 2 passed; 0 failed\nSKIP: b: root\n");
        sum += Counts::check(false);
        assert_eq!(sum.to_string(), "2 passed, 1 failed, 2 skipped");
        assert_eq!(sum.reasons["root"], 2);
    }
}
