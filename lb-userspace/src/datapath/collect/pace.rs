//! When the collector walks: seldom while there is room, often while there is none.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Census, Collector};
use crate::datapath::clock;
use crate::plan::store::StoreError;

/// The collector works at most one part in this many of its time,
const DUTY: u32 = 20;
/// while a flow table is nearly full, when room is worth more than time, in this many,
const DUTY_UNDER_PRESSURE: u32 = 3;
/// and while there is room for whatever may have come, in this many.
const DUTY_AT_EASE: u32 = 4_000;
/// It never rests for longer.
const REST_MAX: Duration = Duration::from_secs(60);

/// How much the collector is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// There is room for whatever may have come.
    Ease,
    /// Flows come.
    Usual,
    /// A flow table is full, or nearly so.
    Pressure,
}

/// How long to rest after a walk that took `busy` of processor time, when walks should be `interval` apart.
fn rest(interval: Duration, busy: Duration, need: Need) -> Duration {
    match need {
        Need::Ease => (busy * DUTY_AT_EASE).clamp(interval, REST_MAX.max(interval)),
        Need::Usual => interval.max(busy * DUTY),
        Need::Pressure => busy * DUTY_UNDER_PRESSURE,
    }
}

/// Walks now and then, and when `asked` to, until nobody can ask any more; each census goes to `publish`. Runs on a thread
/// of its own.
pub fn run(
    collector: Collector,
    interval: Duration,
    asked: &Receiver<()>,
    mut publish: impl FnMut(Result<Census, StoreError>),
) {
    loop {
        let began = clock::of_thread();
        let census = collector.walk();
        let busy = clock::of_thread().saturating_sub(began);
        let known = census.as_ref().ok().cloned();
        publish(census);
        let ended = Instant::now();
        // Whether there is need may change at any time; to ask costs next to nothing.
        loop {
            let need = match &known {
                Some(census) if census.pressure => Need::Pressure,
                Some(census) if collector.at_ease(census).is_ok_and(|ease| ease) => Need::Ease,
                _ => Need::Usual,
            };
            let left = rest(interval, busy, need).saturating_sub(ended.elapsed());
            if left.is_zero() {
                break;
            }
            match asked.recv_timeout(left.min(interval)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_bounds_the_share_of_a_core() {
        let rest = |busy, need| rest(Duration::from_secs(5), Duration::from_millis(busy), need);
        assert_eq!(rest(10, Need::Usual), Duration::from_secs(5));
        assert_eq!(rest(1000, Need::Usual), Duration::from_secs(20));
        assert_eq!(rest(1000, Need::Pressure), Duration::from_secs(3));
        assert_eq!(rest(1, Need::Ease), Duration::from_secs(5));
        assert_eq!(rest(10, Need::Ease), Duration::from_secs(40));
        assert_eq!(rest(1000, Need::Ease), REST_MAX);
    }
}
