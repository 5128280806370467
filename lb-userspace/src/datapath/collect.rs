//! Expiry of flows: walks the flow tables, removes what is dead, counts what lives.
//!
//! The programs check expiry themselves whenever they look a flow up, so a late or absent collector costs
//! memory, never correctness. What looks dead here is looked at again and removed by a program in the kernel, which
//! knows whether a packet takes it into use at that moment (`lb_common::collect`).

mod pace;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use lb_common::abi::{
    self, Backend, Backends, Collect, Flow, FlowKey4, FlowKey6, Flows4, Flows6, Overflow4, Overflow6, OverflowReplies4,
    OverflowReplies6, PressureTable, Replies4, Replies6, Reply, Table,
};
use lb_common::collect::{dead, leads_home};
use lb_common::flow::flow_tuple;
use lb_common::pressure;
use lb_common::tuple::Tuple;

use super::store::Store;
use super::{clock, layout};
use crate::plan::store::{ReadTables, StoreError};

pub use pace::run;

/// Ticks that a flow which nobody has answered keeps its place in a flow table while room is short.
const UNANSWERED: u32 = abi::ticks(3_000);
/// Rest between two batches.
const PAUSE: Duration = Duration::from_millis(2);
/// There is room for whatever may have come while at most one part of a flow table in so many can be in use.
const EASE: u64 = 8;

/// Result of one walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Live IPv4 flows.
    pub flows4: u64,
    /// Live IPv6 flows.
    pub flows6: u64,
    /// New flows go to the overflow tables, because a table was full.
    pub pressed: bool,
    /// That, or a table is more than four fifths full.
    pub pressure: bool,
    /// Live flows in the overflow tables, which are among the others too.
    pub overflow: u64,
    /// Flows removed by this walk.
    pub expired: u64,
    /// Replies removed by this walk.
    pub orphans: u64,
    /// Elements of `backends` that are gone and that no flow refers to, and their generations; looked for only when new ones
    /// become scarce.
    pub unused: BTreeMap<u32, u32>,
    /// Numbers of the services that flows name.
    pub services: HashSet<u32>,
    /// When the walk began; none: there was none.
    pub began: Option<Instant>,
    /// Packets that the programs had counted when the walk began.
    packets: u64,
}

/// Walks the flow tables every few seconds.
pub struct Collector {
    store: Store,
}

impl Collector {
    /// A collector over its own handles on the maps.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// One walk over all tables.
    ///
    /// # Errors
    /// When the kernel refuses to read or delete.
    pub fn walk(&self) -> Result<Census, StoreError> {
        let mut census = Census {
            began: Some(Instant::now()),
            packets: self.store.packets()?,
            ..Census::default()
        };
        let gone = self.gone()?;
        let mut referred = HashSet::new();
        let state = self.store.get::<PressureTable>(&0)?.unwrap_or_default();
        census.pressed = pressure::holds(&state, clock::now());
        // First: a flow that moves from there to a flow table meanwhile is counted twice rather than missed.
        let overflow4 = self.expire::<Overflow4, FlowKey4>(&mut census, &mut referred, u32::MAX)?;
        let overflow6 = self.expire::<Overflow6, FlowKey6>(&mut census, &mut referred, u32::MAX)?;
        let unanswered = if census.pressed { UNANSWERED } else { u32::MAX };
        let flows4 = self.expire::<Flows4, FlowKey4>(&mut census, &mut referred, unanswered)?;
        let flows6 = self.expire::<Flows6, FlowKey6>(&mut census, &mut referred, unanswered)?;
        let capacity = u64::from(self.store.capacity::<Flows4>().min(self.store.capacity::<Flows6>()));
        census.pressure = census.pressed || (flows4.max(flows6) + census.expired) * 5 > capacity * 4;
        census.overflow = overflow4 + overflow6;
        census.flows4 = flows4 + overflow4;
        census.flows6 = flows6 + overflow6;
        // Gone before the flows were read: no new flow came to them meanwhile.
        let unused = gone.into_iter().filter(|(id, _)| !referred.contains(id));
        census.unused = unused.collect();
        let mut backends = HashMap::new();
        self.orphans::<Flows4, Overflow4, Replies4, _>(&mut backends, &mut census)?;
        self.orphans::<Flows6, Overflow6, Replies6, _>(&mut backends, &mut census)?;
        self.orphans::<Flows4, Overflow4, OverflowReplies4, _>(&mut backends, &mut census)?;
        self.orphans::<Flows6, Overflow6, OverflowReplies6, _>(&mut backends, &mut census)?;
        Ok(census)
    }

    /// Elements of `backends` that are gone, with their generations. None while there are elements that were never used:
    /// those are given out first, and to read a large table for nothing costs more than all the rest.
    fn gone(&self) -> Result<Vec<(u32, u32)>, StoreError> {
        let scarce = self.store.capacity::<Backends>() / 4 * 3;
        let used = self.store.get::<Backends>(&scarce)?.unwrap_or_default() != Backend::default();
        if !used {
            return Ok(Vec::new());
        }
        let backends = self.store.entries::<Backends>()?;
        let gone = backends.iter().filter(|(_, b)| b.state == abi::BACKEND_GONE);
        Ok(gone.map(|(id, b)| (*id, b.generation)).collect())
    }

    /// Whether the tables have room for whatever may have come since `census` was taken: a packet opens one flow at most.
    fn at_ease(&self, census: &Census) -> Result<bool, StoreError> {
        let state = self.store.get::<PressureTable>(&0)?.unwrap_or_default();
        let came = self.store.packets()?.wrapping_sub(census.packets);
        let capacity = u64::from(self.store.capacity::<Flows4>().min(self.store.capacity::<Flows6>()));
        let most = census.flows4.max(census.flows6).saturating_add(came);
        Ok(!pressure::holds(&state, clock::now()) && most.saturating_mul(EASE) < capacity)
    }

    /// Removes dead flows, counts the others, notes every backend that was referred to. Returns how many live. Flows that
    /// nobody has answered live for `unanswered` ticks at most.
    fn expire<T, K: Key>(
        &self,
        census: &mut Census,
        referred: &mut HashSet<u32>,
        unanswered: u32,
    ) -> Result<u64, StoreError>
    where
        T: Table<Key = K, Value = Flow>,
    {
        let now = clock::now();
        let mut expired = Vec::new();
        let mut live = 0;
        let services = &mut census.services;
        self.store.walk::<T>(PAUSE, |key, flow| {
            referred.insert(flow.backend);
            services.insert(flow.service);
            if dead(flow, now, unanswered) {
                expired.push(*key);
            } else {
                live += 1;
            }
        })?;
        for key in expired {
            census.expired += u64::from(self.store.collect(&Collect::dead(
                &key.tuple(),
                is_overflow::<T>(),
                unanswered,
            ))?);
        }
        Ok(live)
    }

    /// A flow, in whichever of two tables it is.
    fn flow<F, O, K>(&self, key: &K) -> Result<Option<Flow>, StoreError>
    where
        F: Table<Key = K, Value = Flow>,
        O: Table<Key = K, Value = Flow>,
        K: aya::Pod,
    {
        match self.store.get::<F>(key)? {
            Some(flow) => Ok(Some(flow)),
            None => self.store.get::<O>(key),
        }
    }

    /// Removes the replies that lead nowhere.
    fn orphans<F, O, R, K>(&self, backends: &mut HashMap<u32, Backend>, census: &mut Census) -> Result<(), StoreError>
    where
        F: Table<Key = K, Value = Flow>,
        O: Table<Key = K, Value = Flow>,
        R: Table<Key = K, Value = Reply>,
        K: Key,
    {
        let mut lost = Vec::new();
        let mut failed = None;
        let mut stays = |back: &Tuple, reply: &Reply| -> Result<bool, StoreError> {
            let Some(flow) = self.flow::<F, O, K>(&K::from(&flow_tuple(reply, back)))? else {
                return Ok(false);
            };
            let backend = match backends.get(&flow.backend) {
                Some(known) => *known,
                None => {
                    let read = self.store.get::<Backends>(&flow.backend)?.unwrap_or_default();
                    *backends.entry(flow.backend).or_insert(read)
                }
            };
            Ok(leads_home(reply, back, &flow, Some(&backend)))
        };
        self.store.walk::<R>(PAUSE, |key, reply| {
            let back = key.tuple();
            match stays(&back, reply) {
                Ok(true) => {}
                Ok(false) => lost.push(back),
                Err(e) => failed = Some(e),
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        for back in lost {
            census.orphans += u64::from(self.store.collect(&Collect::reply(&back, is_overflow::<R>()))?);
        }
        Ok(())
    }
}

/// Whether what is least used gives way in a table.
pub(super) fn is_overflow<T: Table>() -> bool {
    layout::is_overflow_table(T::NAME)
}

/// The key of a flow or reply of either family.
pub(super) trait Key: aya::Pod + Ord + for<'a> From<&'a Tuple> {
    /// What it says.
    fn tuple(&self) -> Tuple;
}

impl Key for FlowKey4 {
    fn tuple(&self) -> Tuple {
        self.into()
    }
}

impl Key for FlowKey6 {
    fn tuple(&self) -> Tuple {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::address::Address;

    use super::*;

    fn flow(last_seen: u32, timeout: u32) -> Flow {
        Flow {
            last_seen,
            timeout,
            source_port: 4000,
            ..Flow::default()
        }
    }

    #[test]
    fn replies_lead_home_or_nowhere() {
        let key = FlowKey4 {
            source: [10, 0, 0, 2],
            destination: [192, 0, 2, 1],
            source_port: 80,
            destination_port: 4000,
            network_protocol: 5 << 8 | 6,
        };
        let backend = Backend {
            address: Address::v4([10, 0, 0, 2]),
            port: 80,
            generation: 3,
            state: abi::BACKEND_READY,
            ..Backend::default()
        };
        let ours = Flow {
            backend: 1,
            generation: 3,
            ..flow(0, 0)
        };
        let reply = Reply {
            frontend_port: 8080,
            network: 5,
            ..Reply::default()
        };
        let leads_home = |flow: &Flow, backend: &Backend| leads_home(&reply, &key.tuple(), flow, Some(backend));
        assert!(leads_home(&ours, &backend));
        let other = Flow {
            source_port: 4001,
            ..ours
        };
        assert!(!leads_home(&other, &backend));
        assert!(
            leads_home(&Flow { generation: 2, ..ours }, &backend),
            "its backend is gone"
        );
        let moved = Backend { port: 81, ..backend };
        assert!(!leads_home(&ours, &moved), "the flow moved to another backend");
    }

    #[test]
    fn replies_lead_home_from_every_port_and_from_the_gateway_bridge() {
        let key = |source, source_port, network: u32| FlowKey4 {
            source,
            source_port,
            destination: [192, 0, 2, 1],
            destination_port: 4000,
            network_protocol: network << 8 | 6,
        };
        let ours = Flow {
            backend: 1,
            ..flow(0, 0)
        };
        let backend = Backend {
            address: Address::v4([10, 0, 0, 2]),
            delivery: Address::v4([172, 18, 0, 3]),
            state: abi::BACKEND_READY,
            ..Backend::default()
        };
        let vip = Reply {
            frontend_port: 9000,
            network: 5,
            ..Reply::default()
        };
        let leads_home = |key: &FlowKey4, reply: &Reply| leads_home(reply, &key.tuple(), &ours, Some(&backend));
        assert!(leads_home(&key([10, 0, 0, 2], 9000, 5), &vip));
        assert!(!leads_home(&key([10, 0, 0, 2], 9001, 5), &vip));
        let published = Reply {
            network: abi::NETWORK_NODE,
            ..vip
        };
        let delivered = key([172, 18, 0, 3], 9000, abi::NETWORK_NODE);
        assert!(leads_home(&delivered, &published));
        assert!(!leads_home(&delivered, &vip));
    }

    #[test]
    fn a_reply_names_its_flow() {
        let reply = Reply {
            frontend: Address::v4([203, 0, 113, 1]),
            client: Address::v4([192, 0, 2, 1]),
            frontend_port: 8080,
            client_port: 4000,
            network: 7,
            kind: abi::REPLY_VIP,
            bound: 0,
        };
        let key = FlowKey4 {
            network_protocol: 9 << 8 | 17,
            ..FlowKey4::default()
        };
        assert_eq!(
            FlowKey4::from(&flow_tuple(&reply, &key.tuple())),
            FlowKey4 {
                source: [192, 0, 2, 1],
                destination: [203, 0, 113, 1],
                source_port: 4000,
                destination_port: 8080,
                network_protocol: 7 << 8 | 17
            }
        );
    }
}
