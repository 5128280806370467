//! `marks` where tables of other versions go on: of what these hold already, before the first program is attached that asks
//! for them.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::abi::{Flows4, Flows6, Frontends, Marks, NETWORK_NODE, Overflow4, Overflow6, TCP, port_mark};

use super::collect::Key as _;
use super::store::Store;
use crate::plan::marks::add;
use crate::plan::store::{ReadTables as _, StoreError};

/// Marks the ports of all frontends and flows that are there: the first time, and whenever agents of other versions may have
/// written some since (`carried`). That it was done once is said by the mark of a port that nobody can publish.
///
/// # Errors
/// If a table cannot be read or written.
pub fn complete(store: &mut Store, carried: bool) -> Result<(), StoreError> {
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
