//! Expiry of flows: walks the flow tables, removes what is dead, counts what lives.
//!
//! The programs check expiry themselves whenever they look a flow up, so a late or absent collector costs
//! memory, never correctness. An entry is read again right before it is removed, and a reply must lead
//! nowhere in two walks in a row, because programs write a flow and its reply one after the other.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use lb_common::abi::{
    self, Backend, Backends, Flow, FlowKey4, FlowKey6, Flows4, Flows6, Replies4, Replies6, Reply, Table,
};
use lb_common::address::Address;
use lb_common::flow::{target, target_port};

use super::clock;
use super::store::Store;
use crate::plan::Reusable;
use crate::plan::store::{ReadTables, StoreError};

/// Ticks that an expired flow is kept, so that clocks read on different CPUs never matter.
const SLACK: u32 = abi::ticks(2_000);
/// Rest between two batches.
const PAUSE: Duration = Duration::from_millis(2);
/// The collector works at most one part in this many of its time,
const DUTY: u32 = 20;
/// and while a flow table is nearly full, when room is worth more than time, in this many.
const DUTY_UNDER_PRESSURE: u32 = 3;

/// Result of one walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Live flows by backend id.
    pub by_backend: BTreeMap<u32, u64>,
    /// Live flows by service id.
    pub by_service: BTreeMap<u32, u64>,
    /// Live IPv4 flows.
    pub flows4: u64,
    /// Live IPv6 flows.
    pub flows6: u64,
    /// A table is more than four fifths full.
    pub pressure: bool,
    /// Flows removed by this walk.
    pub expired: u64,
    /// Replies removed by this walk.
    pub orphans: u64,
    /// Elements of `backends` that are gone and that no flow refers to.
    pub reusable: Reusable,
}

/// Walks the flow tables every few seconds.
pub struct Collector {
    store: Store,
    suspects4: HashSet<FlowKey4>,
    suspects6: HashSet<FlowKey6>,
}

impl Collector {
    /// A collector over its own handles on the maps.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            suspects4: HashSet::new(),
            suspects6: HashSet::new(),
        }
    }

    /// One walk over all tables.
    ///
    /// # Errors
    /// When the kernel refuses to read or delete.
    pub fn walk(&mut self) -> Result<Census, StoreError> {
        self.store.forget();
        let backends = self.store.entries::<Backends>()?;
        let mut census = Census::default();
        let mut referred = BTreeSet::new();
        census.flows4 = self.expire::<Flows4, FlowKey4>(&mut census, &mut referred)?;
        census.flows6 = self.expire::<Flows6, FlowKey6>(&mut census, &mut referred)?;
        let capacity = u64::from(self.store.capacity::<Flows4>().min(self.store.capacity::<Flows6>()));
        census.pressure = (census.flows4.max(census.flows6) + census.expired) * 5 > capacity * 4;
        // Gone before the flows were read: no new flow came to them meanwhile.
        let gone = backends
            .iter()
            .filter(|(id, b)| b.state == abi::BACKEND_GONE && !referred.contains(id));
        census.reusable.backends = gone.map(|(id, b)| (*id, b.generation)).collect();
        let suspects = std::mem::take(&mut self.suspects4);
        self.suspects4 = self.orphans::<Flows4, Replies4, _>(&backends, suspects, &mut census)?;
        let suspects = std::mem::take(&mut self.suspects6);
        self.suspects6 = self.orphans::<Flows6, Replies6, _>(&backends, suspects, &mut census)?;
        Ok(census)
    }

    /// Removes dead flows, counts the others, notes every backend that was referred to. Returns how many live.
    fn expire<T, K>(&self, census: &mut Census, referred: &mut BTreeSet<u32>) -> Result<u64, StoreError>
    where
        T: Table<Key = K, Value = Flow>,
        K: aya::Pod,
    {
        let now = clock::now();
        let mut expired = Vec::new();
        let mut live = 0;
        self.store.walk::<T>(PAUSE, |key, flow| {
            referred.insert(flow.backend);
            if dead(flow, now) {
                expired.push(*key);
            } else {
                live += 1;
                *census.by_backend.entry(flow.backend).or_default() += 1;
                *census.by_service.entry(flow.service).or_default() += 1;
            }
        })?;
        for key in expired {
            let still = self.store.get::<T>(&key)?;
            if still.is_some_and(|flow| dead(&flow, clock::now())) && self.store.remove::<T>(&key)? {
                census.expired += 1;
            }
        }
        Ok(live)
    }

    /// Removes the replies of `suspects` that still lead nowhere, returns those that do so for the first time.
    fn orphans<F, R, K>(
        &self,
        backends: &BTreeMap<u32, Backend>,
        suspects: HashSet<K>,
        census: &mut Census,
    ) -> Result<HashSet<K>, StoreError>
    where
        F: Table<Key = K, Value = Flow>,
        R: Table<Key = K, Value = Reply>,
        K: Tuple,
    {
        let mut lost = HashSet::new();
        let mut failed = None;
        self.store
            .walk::<R>(PAUSE, |key, reply| match self.store.get::<F>(&key.flow(reply)) {
                Ok(flow) => {
                    if !leads_home(key, reply, flow.as_ref(), backends) {
                        lost.insert(*key);
                    }
                }
                Err(e) => failed = Some(e),
            })?;
        if let Some(e) = failed {
            return Err(e);
        }
        for key in lost.intersection(&suspects) {
            // The tuple may have been taken into use since the walk.
            let Some(reply) = self.store.get::<R>(key)? else {
                continue;
            };
            let flow = self.store.get::<F>(&key.flow(&reply))?;
            if !leads_home(key, &reply, flow.as_ref(), backends) && self.store.remove::<R>(key)? {
                census.orphans += 1;
            }
        }
        Ok(lost.difference(&suspects).copied().collect())
    }
}

/// How long to rest after a walk that took `busy`, when walks should be `interval` apart.
pub fn rest(interval: Duration, busy: Duration, pressure: bool) -> Duration {
    if pressure {
        busy * DUTY_UNDER_PRESSURE
    } else {
        interval.max(busy * DUTY)
    }
}

/// Walks now and then until `stop` says so; each census goes to `publish`. Runs on a thread of its own.
pub fn run(
    mut collector: Collector,
    interval: Duration,
    stop: &std::sync::mpsc::Receiver<()>,
    mut publish: impl FnMut(Result<Census, StoreError>),
) {
    loop {
        let start = Instant::now();
        let census = collector.walk();
        let pressure = census.as_ref().is_ok_and(|census| census.pressure);
        publish(census);
        match stop.recv_timeout(rest(interval, start.elapsed(), pressure)) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn dead(flow: &Flow, now: u32) -> bool {
    clock::since(flow.last_seen, now) > flow.timeout.saturating_add(SLACK)
}

/// Whether the flow that a reply leads to exists and goes to the reply's backend. A flow whose backend is
/// gone keeps its reply: it is needed to reset both sides.
fn leads_home<K: Tuple>(key: &K, reply: &Reply, flow: Option<&Flow>, backends: &BTreeMap<u32, Backend>) -> bool {
    let Some(flow) = flow else { return false };
    let (source, source_port, destination_port) = key.ends();
    if flow.source_port != destination_port {
        return false;
    }
    match backends.get(&flow.backend) {
        Some(b) if b.generation == flow.generation && b.state != abi::BACKEND_GONE => {
            // What the programs ask before they translate.
            *target(b, reply.network) == source && target_port(b, reply.frontend_port) == source_port
        }
        _ => true,
    }
}

/// The key of a flow or reply of either family.
trait Tuple: aya::Pod + Ord + Hash {
    /// Key of the flow that the reply with this key leads to.
    fn flow(&self, reply: &Reply) -> Self;
    /// Source, source port, destination port.
    fn ends(&self) -> (Address, u16, u16);
}

impl Tuple for FlowKey4 {
    fn flow(&self, reply: &Reply) -> Self {
        Self {
            source: reply.client.v4_bytes(),
            destination: reply.frontend.v4_bytes(),
            source_port: reply.client_port,
            destination_port: reply.frontend_port,
            network_protocol: reply.network << 8 | self.network_protocol & 0xff,
        }
    }

    fn ends(&self) -> (Address, u16, u16) {
        (Address::v4(self.source), self.source_port, self.destination_port)
    }
}

impl Tuple for FlowKey6 {
    fn flow(&self, reply: &Reply) -> Self {
        Self {
            source: reply.client,
            destination: reply.frontend,
            source_port: reply.client_port,
            destination_port: reply.frontend_port,
            network_protocol: reply.network << 8 | self.network_protocol & 0xff,
        }
    }

    fn ends(&self) -> (Address, u16, u16) {
        (self.source, self.source_port, self.destination_port)
    }
}

#[cfg(test)]
mod tests {
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
    fn a_flow_dies_after_timeout_and_slack() {
        assert!(!dead(&flow(100, 50), 150));
        assert!(!dead(&flow(100, 50), 150 + SLACK));
        assert!(dead(&flow(100, 50), 151 + SLACK));
        assert!(!dead(&flow(u32::MAX - 10, 50), 20), "across the wrap");
        assert!(!dead(&flow(100, u32::MAX), 99 + SLACK), "no overflow");
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
        let leads_home = |flow: Option<&Flow>, backends: &BTreeMap<_, _>| leads_home(&key, &reply, flow, backends);
        let mut backends = BTreeMap::from([(1, backend)]);
        assert!(leads_home(Some(&ours), &backends));
        assert!(!leads_home(None, &backends));
        assert!(!leads_home(
            Some(&Flow {
                source_port: 4001,
                ..ours
            }),
            &backends
        ));
        assert!(
            leads_home(Some(&Flow { generation: 2, ..ours }), &backends),
            "its backend is gone"
        );
        backends.insert(1, Backend { port: 81, ..backend });
        assert!(!leads_home(Some(&ours), &backends), "the flow moved to another backend");
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
        let backends = BTreeMap::from([(1, backend)]);
        let vip = Reply {
            frontend_port: 9000,
            network: 5,
            ..Reply::default()
        };
        assert!(leads_home(&key([10, 0, 0, 2], 9000, 5), &vip, Some(&ours), &backends));
        assert!(!leads_home(&key([10, 0, 0, 2], 9001, 5), &vip, Some(&ours), &backends));
        let published = Reply {
            network: abi::NETWORK_NODE,
            ..vip
        };
        let delivered = key([172, 18, 0, 3], 9000, abi::NETWORK_NODE);
        assert!(leads_home(&delivered, &published, Some(&ours), &backends));
        assert!(!leads_home(&delivered, &vip, Some(&ours), &backends));
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
        };
        let key = FlowKey4 {
            network_protocol: 9 << 8 | 17,
            ..FlowKey4::default()
        };
        assert_eq!(
            key.flow(&reply),
            FlowKey4 {
                source: [192, 0, 2, 1],
                destination: [203, 0, 113, 1],
                source_port: 4000,
                destination_port: 8080,
                network_protocol: 7 << 8 | 17
            }
        );
    }

    #[test]
    fn rest_bounds_the_share_of_a_core() {
        let rest = |busy, pressure| rest(Duration::from_secs(5), Duration::from_millis(busy), pressure);
        assert_eq!(rest(10, false), Duration::from_secs(5));
        assert_eq!(rest(1000, false), Duration::from_secs(20));
        assert_eq!(rest(1000, true), Duration::from_secs(3));
    }
}
