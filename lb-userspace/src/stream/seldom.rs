//! Keeps log lines that strangers can cause from filling the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line in this time.
const SPACING: Duration = Duration::from_secs(10);

/// When something was last said, and how often it has been swallowed since.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether to say it now, with how many were swallowed since the last time.
    pub(super) fn say(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state
            .0
            .is_none_or(|last| now.saturating_duration_since(last) >= SPACING);
        if !due {
            state.1 += 1;
            return None;
        }
        let swallowed = state.1;
        *state = (Some(now), 0);
        Some(swallowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while_says_how_many_there_were() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.say(start), Some(0));
        for _ in 0..7 {
            assert_eq!(seldom.say(start + SPACING / 2), None);
        }
        assert_eq!(seldom.say(start + SPACING), Some(7));
        assert_eq!(seldom.say(start + SPACING), None);
    }
}
