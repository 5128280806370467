//! `marks` and `ports` where tables of other versions go on: of what these hold already, before the first program is attached
//! that asks for them.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::abi::{
    Flows4, Flows6, Frontends, Marks, NETWORK_NODE, Overflow4, Overflow6, Ports, TCP, capacity, port_mark,
};

use super::collect::Key as _;
use super::store::Store;
use crate::plan::marks::add;
use crate::plan::store::{ReadTables as _, StoreError, WriteTables as _};

/// Marks the ports of all that is there, where agents or programs of other versions may have written it (`carried`).
///
/// # Errors
/// If a table cannot be read or written.
pub fn complete(store: &mut Store, carried: bool) -> Result<(), StoreError> {
    published(store, carried)?;
    noted(store, carried)
}

/// `ports`, which the programs write: where others than those have written flows, or still do, it has every port, from the first
/// time on. That there was one is said by a port that nobody sends from.
fn noted(store: &mut Store, carried: bool) -> Result<(), StoreError> {
    let (first, done) = port_mark(TCP, 0);
    if store.get::<Ports>(&first)?.unwrap_or_default() & done != 0 {
        return Ok(());
    }
    let mut in_force = carried;
    store.walk::<Frontends>(Duration::ZERO, |_, _| in_force = true)?;
    if in_force {
        // The one that says so comes last.
        for element in (0..capacity::PORTS).rev() {
            store.set::<Ports>(&element, &u64::MAX)?;
        }
    }
    let bits = store.get::<Ports>(&first)?.unwrap_or_default();
    store.set::<Ports>(&first, &(bits | done))
}

/// `marks`, of all frontends and flows: the first time, and whenever they may be others'. That it was done once is said by the mark of
/// a port that nobody can publish.
fn published(store: &mut Store, carried: bool) -> Result<(), StoreError> {
    let (first, done) = port_mark(TCP, 0);
    if !carried && store.get::<Marks>(&first)?.unwrap_or_default() & done != 0 {
        return Ok(());
    }
    let mut found = BTreeMap::<u32, u64>::new();
    let mut see = |network: u32, protocol: u8, port: u16| {
        if network == NETWORK_NODE {
            let (element, bit) = port_mark(protocol, port);
            *found.entry(element).or_default() |= bit;
        }
    };
    // Before the flows: what begins meanwhile, in programs of another version, begins at one of them.
    store.walk::<Frontends>(Duration::ZERO, |key, _| see(key.network, key.protocol, key.port))?;
    macro_rules! flows {
        ($($table:ident)*) => { $(
            store.walk::<$table>(Duration::ZERO, |key, _| {
                let tuple = key.tuple();
                see(tuple.network, tuple.protocol, tuple.destination_port);
            })?;
        )* };
    }
    // What settles meanwhile goes from the overflow tables to the others.
    flows!(Overflow4 Overflow6 Flows4 Flows6);
    for (element, bits) in found {
        add(store, element, bits)?;
    }
    add(store, first, done)
}
