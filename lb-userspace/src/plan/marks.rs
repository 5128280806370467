//! `marks`: the ports on which the programs look for frontends and flows. What is for another port of the node they let pass
//! without a look-up.

use lb_common::abi::{EndpointKey, Marks, NETWORK_NODE, port_mark};

use super::store::{StoreError, WriteTables};

/// Makes the programs look for a frontend; to be called before it is written. The mark stays when the frontend goes: its
/// flows go on, or are reset.
///
/// # Errors
/// If the table refuses the write.
pub fn set(tables: &mut impl WriteTables, frontend: &EndpointKey) -> Result<(), StoreError> {
    if frontend.network != NETWORK_NODE {
        return Ok(());
    }
    let (element, bit) = port_mark(frontend.protocol, frontend.port);
    add(tables, element, bit)
}

/// Adds bits to an element. Nobody but an agent writes there, and there is one.
///
/// # Errors
/// If the table refuses the write.
pub fn add(tables: &mut impl WriteTables, element: u32, bits: u64) -> Result<(), StoreError> {
    let old = tables.get::<Marks>(&element)?.unwrap_or_default();
    if old & bits == bits {
        return Ok(());
    }
    tables.set::<Marks>(&element, &(old | bits))
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{TCP, UDP};

    use super::*;
    use crate::plan::memory::MemoryTables;
    use crate::plan::store::ReadTables as _;

    fn marked(keys: &[(u32, u8, u16)]) -> Vec<(u32, u64)> {
        let mut tables = MemoryTables::default();
        for &(network, protocol, port) in keys {
            let key = EndpointKey {
                network,
                protocol,
                port,
                ..EndpointKey::default()
            };
            set(&mut tables, &key).unwrap();
        }
        tables.entries::<Marks>().unwrap().into_iter().collect()
    }

    #[test]
    fn each_published_port_of_each_protocol_has_a_bit() {
        let ports = [(TCP, 1), (TCP, 63), (TCP, 64), (UDP, 1), (UDP, 65_535), (TCP, 1)];
        assert_eq!(
            marked(&ports.map(|(protocol, port)| (NETWORK_NODE, protocol, port))),
            [(0, 1 << 1 | 1 << 63), (1, 1), (1024, 1 << 1), (2047, 1 << 63)]
        );
    }

    #[test]
    fn vips_have_none() {
        assert_eq!(marked(&[(4096, TCP, 80), (7, UDP, 0)]), []);
    }
}
