//! [`shed`]: datagrams leave a backend that drains in their service and takes new flows in another one.
//!
//! A backend's element says for all services whether it drains, and one that is ready anywhere is ready. Connections stay
//! all the same, and new flows never get there, because slots are a service's own; only a UDP flow would. It is removed
//! instead, so that its next packet selects among the slots of its service.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use lb_common::abi::{BACKEND_GONE, Backends, EndpointKey, Flow, Flows4, Flows6, Services, Table, UDP};

use super::store::Store;
use crate::plan::store::{ReadTables, StoreError, WriteTables};

/// Removes the UDP flows of each service (its identity) to each backend; how many there were. Slots of the services must
/// be without those backends already.
///
/// # Errors
/// A table cannot be read or written.
pub fn shed(store: &mut Store, drained: &BTreeSet<(u64, EndpointKey)>) -> Result<usize, StoreError> {
    if drained.is_empty() {
        return Ok(0);
    }
    // A program that has read the old slots may be writing its flow down.
    store.settle();
    let services = store.entries::<Services>()?;
    let backends = store.entries::<Backends>()?;
    let mut leave = HashSet::new();
    for (id, service) in &services {
        for (backend, value) in backends.iter().filter(|(_, value)| value.state != BACKEND_GONE) {
            let key = EndpointKey {
                address: value.address,
                network: value.network,
                port: value.port,
                protocol: value.protocol,
                family: if value.address.is_v4() { 4 } else { 6 },
            };
            if value.protocol == UDP && drained.contains(&(service.identity, key)) {
                leave.insert((*id, *backend));
            }
        }
    }
    if leave.is_empty() {
        return Ok(0);
    }
    Ok(remove::<Flows4>(store, &leave)? + remove::<Flows6>(store, &leave)?)
}

fn remove<T: Table<Value = Flow>>(store: &Store, leave: &HashSet<(u32, u32)>) -> Result<usize, StoreError>
where
    T::Key: aya::Pod,
{
    let mut keys = Vec::new();
    store.walk::<T>(Duration::ZERO, |key, flow| {
        if leave.contains(&(flow.service, flow.backend)) {
            keys.push(*key);
        }
    })?;
    let mut removed = 0;
    for key in keys {
        removed += usize::from(store.remove::<T>(&key)?);
    }
    Ok(removed)
}
