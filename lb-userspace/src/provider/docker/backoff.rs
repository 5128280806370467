//! [`Backoff`]: how long to wait after one more failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Pauses that double, from [`FIRST`] to [`LAST`].
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The pause after this failure.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (2 * pause).min(LAST);
        pause
    }

    /// There was a success.
    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}
