//! Tables in disorder: rows that no agent wrote together, from a seed.
//!
//! An agent that died half-way, an older one, a table that gave way: what programs find is not always whole. Whatever they
//! find, they do what the pure pipeline does, and forward nothing that they should not.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::mutate::Random;
use super::tables::MemoryTables;
use crate::abi::{Backend, Flow, Interface, Node, Pressure, Reply, Service, Settings};

/// Numbers at which a field means something, or stops to.
const EDGES: [u32; 10] = [0, 1, 2, 3, 4, 5, 7, 64, 0xffff, u32::MAX];
/// Services and backends have ids below this; those that a world does not have are all zero.
const ELEMENTS: usize = 90;

/// Another backend of the same family and protocol ([`super::case::Case::backend_id`]), or none at all.
fn other(backend: u32, random: &mut Random) -> u32 {
    backend % 10 + 10 * random.below(ELEMENTS / 10) as u32
}

impl Random {
    fn edge(&mut self) -> u32 {
        EDGES[self.below(EDGES.len())]
    }

    fn bit(&mut self) -> u32 {
        1 << self.below(8)
    }

    fn key<K: Copy + Ord, V>(&mut self, map: &BTreeMap<K, V>) -> Option<K> {
        let keys: Vec<K> = map.keys().copied().collect();
        match keys.len() {
            0 => None,
            n => Some(keys[self.below(n)]),
        }
    }
}

/// Changes up to eight rows. `now`: the tick at which packets will come.
pub fn disorder(tables: &mut MemoryTables, random: &mut Random, now: u32) {
    for _ in 0..=random.below(8) {
        match random.below(16) {
            0..=3 => flow(tables, random, now),
            4 | 5 => reply(tables, random),
            6 | 7 => backend(tables, random),
            8 | 9 => service(tables, random),
            10 => node(tables, random),
            11 => interface(tables, random),
            12 => settings(&mut tables.settings, random),
            13 => tables.press(Pressure {
                full: now.wrapping_sub(random.edge()) | 1,
                used: now.wrapping_sub(random.edge()) | 1,
            }),
            14 => tables.cursors.borrow_mut().clear(),
            _ => lost(tables, random),
        }
    }
}

/// A flow, where it is or in the overflow table, too.
fn flow(tables: &MemoryTables, random: &mut Random, now: u32) {
    let flows = tables.flows();
    let Some(tuple) = random.key(&flows) else { return };
    let flow: Flow = flows[&tuple];
    let changed = match random.below(9) {
        0 => Flow {
            state: random.below(7) as u8,
            ..flow
        },
        1 => Flow {
            flags: flow.flags ^ random.bit() as u8,
            ..flow
        },
        2 => Flow {
            last_seen: now.wrapping_sub(random.edge()),
            ..flow
        },
        3 => Flow {
            timeout: random.edge(),
            ..flow
        },
        4 => Flow {
            generation: random.edge(),
            ..flow
        },
        5 => Flow {
            backend: other(flow.backend, random),
            ..flow
        },
        6 => Flow {
            origin: random.below(7) as u32,
            ..flow
        },
        7 => Flow {
            service: random.below(ELEMENTS) as u32,
            ..flow
        },
        _ => Flow {
            source_port: flow.source_port ^ 1,
            ..flow
        },
    };
    if random.below(4) == 0 {
        tables.put_overflow(tuple, changed);
    } else {
        tables.put_flow(tuple, changed);
    }
}

fn reply(tables: &MemoryTables, random: &mut Random) {
    let replies = tables.replies();
    let Some(tuple) = random.key(&replies) else { return };
    let reply: Reply = replies[&tuple];
    let changed = match random.below(5) {
        0 => Reply {
            kind: random.below(5) as u32,
            ..reply
        },
        1 => Reply {
            frontend: reply.client,
            client: reply.frontend,
            ..reply
        },
        2 => Reply {
            client_port: reply.client_port ^ 1,
            ..reply
        },
        3 => Reply {
            network: random.edge() & 0xff,
            ..reply
        },
        _ => reply,
    };
    if random.below(4) == 0 {
        tables.put_overflow_reply(tuple, changed);
    } else {
        tables.put_reply(tuple, changed);
    }
}

fn backend(tables: &mut MemoryTables, random: &mut Random) {
    let Some(id) = random.key(&tables.backends) else { return };
    let backend: Backend = tables.backends[&id];
    let changed = match random.below(8) {
        0 | 1 => Backend {
            state: random.below(4) as u8,
            ..backend
        },
        2 => Backend {
            generation: backend.generation + 1,
            ..backend
        },
        3 => Backend {
            flags: backend.flags ^ random.bit() as u16,
            ..backend
        },
        4 => Backend {
            node: random.below(7) as u32,
            ..backend
        },
        5 => Backend {
            ifindex: random.edge() & 0xff,
            ..backend
        },
        6 => Backend {
            port: random.edge() as u16,
            ..backend
        },
        _ => tables.backends.get(&other(id, random)).copied().unwrap_or_default(),
    };
    tables.backends.insert(id, changed);
}

fn service(tables: &mut MemoryTables, random: &mut Random) {
    if random.below(3) == 0 {
        let Some(slot) = random.key(&tables.slots) else { return };
        let backend = other(tables.slots[&slot], random);
        tables.slots.insert(slot, backend);
        return;
    }
    let Some(id) = random.key(&tables.services) else { return };
    let service: Service = tables.services[&id];
    let changed = match random.below(4) {
        0 => Service {
            count: random.edge(),
            ..service
        },
        1 => Service {
            generation: service.generation + 1,
            ..service
        },
        2 => Service {
            tcp_timeout: random.edge(),
            udp_timeout: random.edge(),
            ..service
        },
        _ => Service {
            identity: u64::from(random.edge()),
            ..service
        },
    };
    tables.services.insert(id, changed);
}

fn node(tables: &mut MemoryTables, random: &mut Random) {
    let Some(id) = random.key(&tables.nodes) else { return };
    let node: Node = tables.nodes[&id];
    let flags = node.flags ^ (random.bit() & 3);
    tables.nodes.insert(id, Node { flags, ..node });
}

fn interface(tables: &mut MemoryTables, random: &mut Random) {
    let Some(key) = random.key(&tables.interfaces) else {
        return;
    };
    let interface: Interface = tables.interfaces[&key];
    let changed = if random.below(2) == 0 {
        Interface {
            flags: interface.flags ^ (random.bit() & 7),
            ..interface
        }
    } else {
        Interface {
            network: random.edge() & 0xff,
            ..interface
        }
    };
    tables.interfaces.insert(key, changed);
}

fn settings(settings: &mut Settings, random: &mut Random) {
    match random.below(4) {
        0 => settings.tunnel_mtu = random.edge() as u16,
        1 => settings.tunnel_port ^= random.bit() as u16,
        2 => settings.tcp_established = random.edge(),
        _ => settings.udp_established = random.edge(),
    }
}

/// A row that is not there.
fn lost(tables: &mut MemoryTables, random: &mut Random) {
    fn remove<K: Copy + Ord, V>(map: &mut BTreeMap<K, V>, random: &mut Random) {
        if let Some(key) = random.key(map) {
            map.remove(&key);
        }
    }
    match random.below(8) {
        0 => remove(&mut tables.frontends, random),
        1 => remove(&mut tables.services, random),
        2 => remove(&mut tables.slots, random),
        3 => remove(&mut tables.backends, random),
        4 => remove(&mut tables.local_backends, random),
        5 => remove(&mut tables.vips, random),
        6 => remove(&mut tables.addresses, random),
        _ => remove(&mut tables.interfaces, random),
    }
}
