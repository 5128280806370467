//! [`shed`]: flows of a service leave a backend that another service still uses.
//!
//! A backend's element says for all services whether it is there and whether it drains, and one that is ready anywhere is
//! ready. New flows get to it by the slots of a service alone; what is under way does not ask. So the flows are removed: the
//! next packet of a TCP connection is reset as one that nobody knows, a datagram selects among the slots of its service.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use lb_common::abi::{
    BACKEND_GONE, Backends, Collect, EndpointKey, Flow, Flows4, Flows6, Overflow4, Overflow6, Services, Table, UDP,
};

use super::collect::{Key, is_overflow};
use super::store::Store;
use crate::plan::actual::key_of;
use crate::plan::store::{ReadTables, StoreError};

/// Looks at all flows at most: a packet at the same moment keeps a flow from being ended, until the next look.
const LOOKS: usize = 4;

/// Service and backend, by the numbers that flows have, of UDP backends that drain in a service (its identity) alone.
///
/// # Errors
/// A table cannot be read.
pub fn drained(store: &Store, drained: &BTreeSet<(u64, EndpointKey)>) -> Result<BTreeSet<(u32, u32)>, StoreError> {
    let mut leave = BTreeSet::new();
    if drained.iter().all(|(_, key)| key.protocol != UDP) {
        return Ok(leave);
    }
    let services = store.entries::<Services>()?;
    let backends = store.entries::<Backends>()?;
    for (id, service) in &services {
        for (backend, value) in backends.iter().filter(|(_, value)| value.state != BACKEND_GONE) {
            if value.protocol == UDP && drained.contains(&(service.identity, key_of(value))) {
                leave.insert((*id, *backend));
            }
        }
    }
    Ok(leave)
}

/// Removes the flows that have to leave their backend; how many there were. Slots in force must be without that backend, and
/// no program may run that has read others.
///
/// # Errors
/// A table cannot be read, or the program that removes flows cannot be run.
pub fn shed(store: &Store, leaves: impl Fn(&Flow) -> bool) -> Result<usize, StoreError> {
    let mut removed = 0;
    for _ in 0..LOOKS {
        let mut found = 0;
        // These first: a flow may move from there to a flow table meanwhile.
        for look in [
            look::<Overflow4, _>,
            look::<Overflow6, _>,
            look::<Flows4, _>,
            look::<Flows6, _>,
        ] {
            let (there, gone) = look(store, &leaves)?;
            found += there;
            removed += gone;
        }
        if found == 0 {
            break;
        }
    }
    Ok(removed)
}

/// Numbers of the services that flows name.
///
/// # Errors
/// A table cannot be read.
pub fn named(store: &Store) -> Result<HashSet<u32>, StoreError> {
    let mut services = HashSet::new();
    // In the same order, for the same reason.
    name::<Overflow4>(store, &mut services)?;
    name::<Overflow6>(store, &mut services)?;
    name::<Flows4>(store, &mut services)?;
    name::<Flows6>(store, &mut services)?;
    Ok(services)
}

fn name<T>(store: &Store, services: &mut HashSet<u32>) -> Result<(), StoreError>
where
    T: Table<Value = Flow>,
    T::Key: aya::Pod + Ord,
{
    store.walk::<T>(Duration::ZERO, |_, flow| {
        services.insert(flow.service);
    })
}

/// Flows that were found, and those of them that were removed.
fn look<T, K: Key>(store: &Store, leaves: &dyn Fn(&Flow) -> bool) -> Result<(usize, usize), StoreError>
where
    T: Table<Key = K, Value = Flow>,
{
    let mut flows = Vec::new();
    store.walk::<T>(Duration::ZERO, |key, flow| {
        if leaves(flow) {
            flows.push((key.tuple(), flow.service, flow.backend));
        }
    })?;
    let mut removed = 0;
    for (tuple, service, backend) in &flows {
        let request = Collect::left(tuple, is_overflow::<T>(), *service, *backend);
        removed += usize::from(store.collect(&request)?);
    }
    Ok((flows.len(), removed))
}
