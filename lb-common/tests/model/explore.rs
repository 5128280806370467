//! Every order of the actors' steps.

use std::sync::{Arc, Condvar, Mutex};

use crate::schedule::{Actor, Shared, State, Without};

/// No scene needs more runs.
const RUNS: usize = 300_000;

pub(crate) type Work = fn(&Actor);

/// Runs a scene in every order. The first broken promise, and the number of runs.
pub(crate) fn explore(
    world: &State,
    actors: &[Work],
    without: Without,
    agent: bool,
    judge: fn(&Actor, &State) -> Result<(), String>,
) -> (Option<String>, usize) {
    let mut prefix = Vec::new();
    for run in 1..=RUNS {
        let mut state = world.clone();
        state.ended = vec![false; actors.len()];
        state.begun = state.ended.clone();
        state.waits = state.ended.clone();
        state.prefix = prefix;
        state.current = usize::MAX;
        state.choose();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            without,
            agent,
        });
        std::thread::scope(|scope| {
            for (number, work) in actors.iter().enumerate() {
                let actor = Actor {
                    shared: Arc::clone(&shared),
                    number: Some(number),
                };
                scope.spawn(move || actor.act(work));
            }
        });
        let after = Actor {
            shared: Arc::clone(&shared),
            number: None,
        };
        let state = shared.state.lock().unwrap().clone();
        if let Err(broken) = judge(&after, &state) {
            return (Some(format!("{broken}; order {:?}", state.trace)), run);
        }
        let mut trace = state.trace;
        while let Some((choice, of)) = trace.pop() {
            if choice + 1 < of {
                trace.push((choice + 1, of));
                break;
            }
        }
        if trace.is_empty() {
            return (None, run);
        }
        prefix = trace.into_iter().map(|(choice, _)| choice).collect();
    }
    panic!("more than {RUNS} runs");
}

/// Every order keeps the promise, and some order breaks it without the protection.
pub(crate) fn holds(
    world: &State,
    actors: &[Work],
    agent: bool,
    protection: Without,
    judge: fn(&Actor, &State) -> Result<(), String>,
) {
    let (broken, runs) = explore(world, actors, Without::Nothing, agent, judge);
    assert_eq!(broken, None);
    let (broken, tried) = explore(world, actors, protection, agent, judge);
    let broken = broken.unwrap_or_else(|| panic!("{runs} orders hold without {protection:?} too"));
    println!("{runs} orders hold; without {protection:?} number {tried} is broken: {broken}");
}
