//! Expiry of flows: walks the flow tables, removes what is dead, counts what lives.
//!
//! The programs check expiry themselves whenever they look a flow up, so a late or absent collector costs
//! memory, never correctness. What looks dead here is looked at again and removed by a program in the kernel, which
//! knows whether a packet takes it into use at that moment (`lb_common::collect`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lb_common::abi::{
    self, Backend, Backends, Collect, Flow, FlowKey4, FlowKey6, Flows4, Flows6, Overflow4, Overflow6, OverflowReplies4,
    OverflowReplies6, PressureTable, Replies4, Replies6, Reply, Table,
};
use lb_common::collect::{self, dead};
use lb_common::flow::flow_tuple;
use lb_common::pressure;
use lb_common::tuple::Tuple;

use super::store::Store;
use super::{clock, layout};
use crate::plan::Reusable;
use crate::plan::store::{ReadTables, StoreError};

/// Ticks that a flow which nobody has answered keeps its place in a flow table while room is short.
const UNANSWERED: u32 = abi::ticks(3_000);
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
    /// Elements of `backends` that are gone and that no flow refers to.
    pub reusable: Reusable,
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
        self.store.forget();
        let backends = self.store.entries::<Backends>()?;
        let mut census = Census::default();
        let mut referred = BTreeSet::new();
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
        let gone = backends
            .iter()
            .filter(|(id, b)| b.state == abi::BACKEND_GONE && !referred.contains(id));
        census.reusable.backends = gone.map(|(id, b)| (*id, b.generation)).collect();
        self.orphans::<Flows4, Overflow4, Replies4, _>(&backends, &mut census)?;
        self.orphans::<Flows6, Overflow6, Replies6, _>(&backends, &mut census)?;
        self.orphans::<Flows4, Overflow4, OverflowReplies4, _>(&backends, &mut census)?;
        self.orphans::<Flows6, Overflow6, OverflowReplies6, _>(&backends, &mut census)?;
        Ok(census)
    }

    /// Removes dead flows, counts the others, notes every backend that was referred to. Returns how many live. Flows that
    /// nobody has answered live for `unanswered` ticks at most.
    fn expire<T, K: Key>(
        &self,
        census: &mut Census,
        referred: &mut BTreeSet<u32>,
        unanswered: u32,
    ) -> Result<u64, StoreError>
    where
        T: Table<Key = K, Value = Flow>,
    {
        let now = clock::now();
        let mut expired = Vec::new();
        let mut live = 0;
        self.store.walk::<T>(PAUSE, |key, flow| {
            referred.insert(flow.backend);
            if dead(flow, now, unanswered) {
                expired.push(*key);
            } else {
                live += 1;
                *census.by_backend.entry(flow.backend).or_default() += 1;
                *census.by_service.entry(flow.service).or_default() += 1;
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
    fn orphans<F, O, R, K>(&self, backends: &BTreeMap<u32, Backend>, census: &mut Census) -> Result<(), StoreError>
    where
        F: Table<Key = K, Value = Flow>,
        O: Table<Key = K, Value = Flow>,
        R: Table<Key = K, Value = Reply>,
        K: Key,
    {
        let mut lost = Vec::new();
        let mut failed = None;
        self.store.walk::<R>(PAUSE, |key, reply| {
            let back = key.tuple();
            match self.flow::<F, O, K>(&K::from(&flow_tuple(reply, &back))) {
                Ok(flow) if leads_home(&back, reply, flow.as_ref(), backends) => {}
                Ok(_) => lost.push(back),
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
    collector: Collector,
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

/// Whether the flow that a reply leads to exists and goes to the reply's backend.
fn leads_home(back: &Tuple, reply: &Reply, flow: Option<&Flow>, backends: &BTreeMap<u32, Backend>) -> bool {
    flow.is_some_and(|flow| collect::leads_home(reply, back, flow, backends.get(&flow.backend)))
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
        let leads_home =
            |flow: Option<&Flow>, backends: &BTreeMap<_, _>| leads_home(&key.tuple(), &reply, flow, backends);
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
        assert!(leads_home(
            &key([10, 0, 0, 2], 9000, 5).tuple(),
            &vip,
            Some(&ours),
            &backends
        ));
        assert!(!leads_home(
            &key([10, 0, 0, 2], 9001, 5).tuple(),
            &vip,
            Some(&ours),
            &backends
        ));
        let published = Reply {
            network: abi::NETWORK_NODE,
            ..vip
        };
        let delivered = key([172, 18, 0, 3], 9000, abi::NETWORK_NODE).tuple();
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

    #[test]
    fn rest_bounds_the_share_of_a_core() {
        let rest = |busy, pressure| rest(Duration::from_secs(5), Duration::from_millis(busy), pressure);
        assert_eq!(rest(10, false), Duration::from_secs(5));
        assert_eq!(rest(1000, false), Duration::from_secs(20));
        assert_eq!(rest(1000, true), Duration::from_secs(3));
    }
}
