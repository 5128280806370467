//! What the guest's parts wrote, and what that counts.

use super::suites::Suite;
use crate::count::Counts;

/// What `timeout` returns when the time is up, and when it had to kill.
const TIMED_OUT: [i32; 2] = [124, 137];
/// Begins the line before a part; its name follows.
pub(super) const BEGINS: &str = "guest: begins ";
/// Begins the line after it; its name and what it returned follow.
pub(super) const ENDED: &str = "guest: ended ";

/// What the suites wrote and how they ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    suites: Vec<(String, String, Option<i32>)>,
}

impl Record {
    /// Takes a line; the suite's name if one begins with it.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        if let Some(name) = line.strip_prefix(BEGINS) {
            self.suites.push((name.to_owned(), String::new(), None));
            return Some(name.to_owned());
        }
        let (name, text, code) = self.suites.last_mut()?;
        let ended = line.strip_prefix(ENDED).and_then(|rest| rest.strip_prefix(&**name));
        match ended.and_then(|rest| rest.trim().parse().ok()) {
            Some(number) => *code = Some(number),
            None if code.is_some() => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
        None
    }

    /// What a part wrote, if it came to a good end.
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        let (_, text, _) = self
            .suites
            .iter()
            .find(|(suite, _, code)| suite == name && *code == Some(0))?;
        Some(text)
    }

    /// All that is asked for has to have run: a suite without an end, or that ends badly without a failed test, counts as
    /// one that failed.
    pub(super) fn counts(&self, suites: &[Suite]) -> Counts {
        let mut sum = Counts::default();
        for suite in suites {
            let Some((_, text, code)) = self.suites.iter().find(|(name, ..)| *name == suite.name) else {
                eprintln!("error: {} did not begin", suite.name);
                sum += Counts::check(false);
                continue;
            };
            let counts = Counts::from_output(text);
            let silent = counts.failed == 0;
            sum += counts;
            let trouble = match code {
                Some(0) => continue,
                Some(code) if TIMED_OUT.contains(code) => format!("took longer than {} s", suite.limit.as_secs()),
                Some(code) => format!("ended with {code}"),
                None => "did not come to its end".to_owned(),
            };
            if silent {
                eprintln!("error: {} {trouble}", suite.name);
                sum += Counts::check(false);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::suites::SUITES;
    use super::*;

    fn counted(lines: &[&str]) -> String {
        let mut record = Record::default();
        for line in lines {
            record.take(line);
        }
        let named = |name| Suite { name, ..SUITES[0] };
        record.counts(&[named("one"), named("two")]).to_string()
    }

    #[test]
    fn a_suite_counts_by_its_results() {
        let passed = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let all = [
            "guest: begins one",
            passed,
            "guest: ended one 0",
            "guest: begins two",
            passed,
            "guest: ended two 0",
        ];
        assert_eq!(counted(&all), "6 passed, 0 failed, 0 skipped");
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored";
        let some = [
            "guest: begins one",
            passed,
            "guest: ended one 0",
            "guest: begins two",
            failed,
            "guest: ended two 101",
        ];
        assert_eq!(counted(&some), "4 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn what_a_part_wrote_is_what_stands_between_its_marks() {
        let mut record = Record::default();
        for line in [
            "early",
            "guest: begins one",
            "a = 1",
            "",
            "guest: ended one 0",
            "guest: done",
        ] {
            record.take(line);
        }
        assert_eq!(record.of("one"), Some("a = 1\n\n"));
        record.take("guest: begins two");
        record.take("guest: ended two 1");
        assert_eq!(record.of("two"), None);
    }

    #[test]
    fn a_suite_that_does_not_come_to_its_end_has_failed() {
        let begun = [
            "guest: begins one",
            "test a ... ok",
            "guest: ended one 124",
            "guest: begins two",
            "test b",
        ];
        assert_eq!(counted(&begun), "0 passed, 2 failed, 0 skipped");
        assert_eq!(counted(&[]), "0 passed, 2 failed, 0 skipped");
    }
}
