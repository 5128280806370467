//! When the loop does what it does by itself, and how soon again.

use std::time::{Duration, Instant};

use super::Synchronised;

/// Everything is looked at again this often, whether or not something is known to have changed.
pub(super) const RESYNC: Duration = Duration::from_secs(30);
/// and, where that takes long, only after so many times as long.
const RESYNC_SHARE: u32 = 4_000;
/// To start, and to compare all tables, needs memory for a moment only: so long after, it is given back.
const TIDY: Duration = Duration::from_secs(1);
/// After a failure the next try follows this soon; after the next one twice as late, up to [`RESYNC`].
const RETRY: Duration = Duration::from_secs(1);
/// Interfaces and neighbours are looked at so long after they have changed, and at most this often; while nothing
/// comes of it, less and less often.
const SPACING: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// What waits for its surroundings is looked at again after so long; twice as late each time.
const PATIENCE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To look at interfaces and neighbours.
    Look,
    /// A backend that was held back for a while may come into force.
    Lead,
    /// To try again what has failed.
    Retry,
    /// To look at everything.
    Resync,
    /// To give back memory.
    Tidy,
}

/// What is due when. A moment that is not set never comes.
#[derive(Debug)]
pub(super) struct Pace {
    look: Option<Instant>,
    lead: Option<Instant>,
    retry: Option<Instant>,
    resync: Instant,
    tidy: Option<Instant>,
    looked: Instant,
    spacing: Duration,
    patience: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            look: None,
            lead: None,
            retry: None,
            resync: now + RESYNC,
            tidy: Some(now + TIDY),
            looked: now,
            spacing: SPACING[0],
            patience: Duration::ZERO,
            failures: 0,
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        let others = [self.look, self.lead, self.retry, self.tidy];
        others.into_iter().flatten().fold(self.resync, Instant::min)
    }

    /// What is due, one thing at a time, the urgent first.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let take = |moment: &mut Option<Instant>| moment.take_if(|due| *due <= now).is_some();
        if take(&mut self.look) {
            self.looked = now;
            Some(Due::Look)
        } else if take(&mut self.lead) {
            Some(Due::Lead)
        } else if take(&mut self.retry) {
            Some(Due::Retry)
        } else if self.resync <= now {
            self.resync = now + RESYNC;
            Some(Due::Resync)
        } else {
            take(&mut self.tidy).then_some(Due::Tidy)
        }
    }

    /// Interfaces and neighbours are going to be looked at: nobody needs to say any more that they have changed.
    pub(super) const fn looks(&self) -> bool {
        self.look.is_some()
    }

    /// Interfaces or neighbours have changed, and nothing is planned yet.
    pub(super) fn surroundings_changed(&mut self, now: Instant) {
        if now - self.looked > 2 * self.spacing {
            self.spacing = SPACING[0];
        }
        self.look = Some(now + self.spacing);
    }

    /// A backend is held back until then; none: no backend is.
    pub(super) const fn hold_until(&mut self, lead: Option<Instant>) {
        self.lead = lead;
    }

    /// A synchronisation has ended; it took so long, and some of it may wait for its surroundings.
    pub(super) fn synchronised(&mut self, now: Instant, how: &Synchronised, took: Duration, waits: bool) {
        if how.is_whole() {
            self.resync = now + RESYNC.max(RESYNC_SHARE * took);
            // Not at once: the next change may be waiting.
            self.tidy = Some(now + TIDY);
        }
        self.patience = if waits {
            (2 * self.patience).clamp(PATIENCE[0], PATIENCE[1])
        } else {
            Duration::ZERO
        };
        if waits && self.look.is_none() {
            self.look = Some(now + self.patience);
        }
        match how {
            Synchronised::Unchanged => self.spacing = (2 * self.spacing).min(SPACING[1]),
            Synchronised::Done { .. } => {
                (self.failures, self.retry) = (0, None);
                self.spacing = SPACING[0];
            }
            Synchronised::Incomplete => {
                self.retry = Some(now + RETRY.saturating_mul(1 << self.failures.min(5)).min(RESYNC));
                self.failures += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Duration = Duration::ZERO;
    const DONE: Synchronised = Synchronised::Done { whole: false };

    /// What becomes due, and how long after `now`, up to `end`.
    fn all(pace: &mut Pace, now: Instant, end: Duration) -> Vec<(Duration, Due)> {
        let mut found = Vec::new();
        while pace.next() <= now + end {
            let moment = pace.next();
            found.push((moment - now, pace.due(moment).expect("what is next is due")));
        }
        found
    }

    #[test]
    fn everything_is_looked_at_again_and_memory_given_back_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.due(now), None);
        let expected = [(TIDY, Due::Tidy), (RESYNC, Due::Resync), (2 * RESYNC, Due::Resync)];
        assert_eq!(all(&mut pace, now, 2 * RESYNC), expected);
    }

    #[test]
    fn what_takes_long_is_done_less_often() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let took = Duration::from_millis(100);
        pace.synchronised(now, &Synchronised::Done { whole: true }, took, false);
        let expected = [(TIDY, Due::Tidy), (RESYNC_SHARE * took, Due::Resync)];
        assert_eq!(all(&mut pace, now, RESYNC_SHARE * took), expected);
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later_until_it_is_gone() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let mut delays = Vec::new();
        for _ in 0..7 {
            pace.synchronised(now, &Synchronised::Incomplete, NOTHING, false);
            // Looking at surroundings in between, to no avail, does not put it off.
            pace.synchronised(now, &Synchronised::Unchanged, NOTHING, false);
            let found = all(&mut pace, now, RESYNC);
            delays.push(found.iter().find(|(_, due)| *due == Due::Retry).unwrap().0.as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        pace.synchronised(now, &Synchronised::Incomplete, NOTHING, false);
        pace.synchronised(now, &DONE, NOTHING, false);
        assert!(all(&mut pace, now, RESYNC).iter().all(|(_, due)| *due != Due::Retry));
    }

    #[test]
    fn many_changes_are_looked_at_together_and_what_leads_nowhere_less_often() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.surroundings_changed(now);
        assert!(pace.looks(), "what changes until then is seen at once");
        assert_eq!(all(&mut pace, now, SPACING[1]), [(SPACING[0], Due::Look)]);
        assert!(!pace.looks());
        for _ in 0..9 {
            pace.synchronised(now, &Synchronised::Unchanged, NOTHING, false);
        }
        let later = now + SPACING[0];
        pace.surroundings_changed(later);
        assert_eq!(all(&mut pace, later, SPACING[1]), [(SPACING[1], Due::Look)]);
        // After a while of rest it is at once again.
        let later = later + 4 * SPACING[1];
        pace.surroundings_changed(later);
        assert_eq!(all(&mut pace, later, SPACING[0]), [(SPACING[0], Due::Look)]);
    }

    #[test]
    fn what_waits_is_looked_at_again_later_and_later() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let mut delays = Vec::new();
        for _ in 0..7 {
            pace.synchronised(now, &Synchronised::Unchanged, NOTHING, true);
            let found = all(&mut pace, now, PATIENCE[1]);
            delays.push(found.iter().find(|(_, due)| *due == Due::Look).unwrap().0.as_millis());
        }
        assert_eq!(delays, [50, 100, 200, 400, 800, 1000, 1000]);
        pace.synchronised(now, &Synchronised::Unchanged, NOTHING, false);
        assert!(
            all(&mut pace, now, PATIENCE[1])
                .iter()
                .all(|(_, due)| *due != Due::Look)
        );
    }

    #[test]
    fn the_urgent_comes_first() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.synchronised(now, &Synchronised::Incomplete, NOTHING, true);
        pace.hold_until(Some(now));
        let late = now + RESYNC;
        let order: Vec<_> = std::iter::from_fn(|| pace.due(late)).collect();
        assert_eq!(order, [Due::Look, Due::Lead, Due::Retry, Due::Resync, Due::Tidy]);
        pace.hold_until(Some(now + RESYNC));
        pace.hold_until(None);
        assert!(all(&mut pace, now, RESYNC).iter().all(|(_, due)| *due != Due::Lead));
    }
}
