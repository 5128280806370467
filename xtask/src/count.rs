//! How many tests passed, failed and were skipped, from what `cargo test` writes.

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

    /// From the output of `cargo test`, which counts a skipped test as passed.
    pub(crate) fn from_output(text: &str) -> Self {
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
        for (_, skip) in text.lines().filter_map(|line| line.split_once(SKIP)) {
            // The name of the test, which has no space, may be missing.
            let named = skip.split_once(": ").filter(|(name, _)| !name.contains(' '));
            let reason = named.map_or(skip, |(_, reason)| reason);
            *counts.reasons.entry(reason.trim().to_owned()).or_default() += 1;
            counts.skipped += 1;
        }
        counts.passed = counts.passed.saturating_sub(counts.skipped);
        counts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_up() {
        let text = "test a ... ok\ntest result: ok. 6 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
                    SKIP: b: needs a kernel with BPF\n\
                    test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.1s\n";
        assert_eq!(Counts::from_output(text).to_string(), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_reason_is_told_from_the_name_of_the_test() {
        let text = "test result: ok. 3 passed; 0 failed\nSKIP: vip::v6: needs root: really\nSKIP: needs root: EPERM\n";
        let reasons = Counts::from_output(text).reasons;
        assert_eq!(
            reasons.into_keys().collect::<Vec<_>>(),
            ["needs root: EPERM", "needs root: really"]
        );
    }

    #[test]
    fn sums_keep_the_reasons() {
        let mut sum = Counts::from_output("test result: ok. 2 passed; 0 failed\nSKIP: a: root\n");
        sum += Counts::from_output("test result: ok. 2 passed; 0 failed\nSKIP: b: root\n");
        sum += Counts::check(false);
        assert_eq!(sum.to_string(), "2 passed, 1 failed, 2 skipped");
        assert_eq!(sum.reasons["root"], 2);
    }
}
