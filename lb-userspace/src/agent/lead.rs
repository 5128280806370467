//! A head start for the node that a new backend runs on.
//!
//! Every node reads the same cluster state, but not at the same instant. A node that already sends flows to a backend whose
//! own node has not heard of it loses them, and a client repeats its SYN only after a second. So a backend that appears on
//! another node takes its first flows a moment after its own node knows it, as long as its service has others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::snapshot::{Backend, BackendState, Changes, Service, Snapshot};

/// The head start: longer than nodes are apart in reading a change, and well within the time in which it must be in force.
pub(super) const LEAD: Duration = Duration::from_millis(40);

/// Decides which part of the newest snapshot is due.
#[derive(Debug)]
pub(super) struct Lead {
    node: String,
    whole: Option<Arc<Snapshot>>,
    held: Option<(Arc<Snapshot>, Instant)>,
}

impl Lead {
    /// For the node of this name.
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            whole: None,
            held: None,
        }
    }

    /// The node has another name.
    pub(super) fn rename(&mut self, node: &str) {
        if self.node != node {
            node.clone_into(&mut self.node);
        }
    }

    /// The snapshot that is due at `now`, and when the rest of it will be.
    pub(super) fn due(&mut self, newest: &Arc<Snapshot>, now: Instant) -> (Arc<Snapshot>, Option<Instant>) {
        if !self.whole.as_ref().is_some_and(|whole| Arc::ptr_eq(whole, newest)) {
            let partial = self.whole.as_ref().and_then(|before| hold(before, newest, &self.node));
            self.held = partial.map(|partial| (Arc::new(partial), now + LEAD));
            self.whole = Some(Arc::clone(newest));
        }
        match &self.held {
            Some((partial, until)) if now < *until => (Arc::clone(partial), Some(*until)),
            _ => {
                self.held = None;
                (Arc::clone(newest), None)
            }
        }
    }
}

/// `now` without the backends that `before` does not have. `None`: there are none.
fn hold(before: &Snapshot, now: &Snapshot, node: &str) -> Option<Snapshot> {
    let Changes { gone, come } = now.services.changes(&before.services);
    let key = |service: &Service| (service.network.clone(), service.name.clone());
    let known: HashMap<_, _> = gone.iter().map(|service| (key(service), service)).collect();
    let come: HashMap<*const Service, _> = come
        .iter()
        .filter_map(|service| Some((Arc::as_ptr(service), *known.get(&key(service))?)))
        .collect();
    if come.is_empty() {
        return None;
    }
    let judge = |service: &Service| {
        let known = *come.get(&std::ptr::from_ref(service))?;
        Some(|backend: &Backend| !known.backends.iter().any(|k| k.addresses == backend.addresses))
    };
    without(now, node, judge, is_ready)
}

/// The snapshot without the ready backends on other nodes that are late, where a service has another one that serves
/// `instead`. `None`: there are none. `judge` says of a service which of its backends are late; `None`: it has none.
pub(super) fn without<L: Fn(&Backend) -> bool>(
    snapshot: &Snapshot,
    node: &str,
    judge: impl Fn(&Service) -> Option<L>,
    instead: impl Fn(&Backend) -> bool,
) -> Option<Snapshot> {
    let mut held = None;
    for (index, service) in snapshot.services.iter().enumerate() {
        let Some(judge) = judge(service) else { continue };
        let late = |b: &Backend| is_ready(b) && b.node != node && judge(b);
        let any = service.backends.iter().any(late);
        if any && service.backends.iter().any(|b| instead(b) && !late(b)) {
            let held: &mut Snapshot = held.get_or_insert_with(|| snapshot.clone());
            held.services[index].backends.retain(|b| !late(b));
        }
    }
    held
}

pub(super) fn is_ready(backend: &Backend) -> bool {
    backend.state == BackendState::Ready
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fixtures::{backend, web};

    fn snapshot(backends: &[(&str, u8)]) -> Arc<Snapshot> {
        let backends = backends.iter();
        let backends = backends.map(|(node, last)| backend(&format!("web.{last}"), node, &format!("10.1.0.{last}")));
        Arc::new(Snapshot {
            services: vec![web("shop", backends.collect())].into(),
            ..Snapshot::default()
        })
    }

    fn count(snapshot: &Snapshot) -> usize {
        snapshot.services[0].backends.len()
    }

    #[test]
    fn a_new_backend_elsewhere_comes_later_and_one_here_at_once() {
        let start = Instant::now();
        let mut lead = Lead::new("here".into());
        assert_eq!(count(&lead.due(&snapshot(&[("there", 1), ("there", 2)]), start).0), 2);

        let next = snapshot(&[("there", 1), ("there", 3), ("here", 4)]);
        let (due, rest) = lead.due(&next, start);
        assert_eq!((count(&due), rest), (2, Some(start + LEAD)));
        let (due, rest) = lead.due(&next, start + LEAD);
        assert_eq!((count(&due), rest), (3, None));
    }

    #[test]
    fn a_service_without_another_backend_does_not_wait() {
        let start = Instant::now();
        let mut lead = Lead::new("here".into());
        assert_eq!(count(&lead.due(&snapshot(&[("there", 1)]), start).0), 1);
        let (due, rest) = lead.due(&snapshot(&[("there", 2)]), start);
        assert_eq!((count(&due), rest), (1, None));
    }
}
