//! [`Inspect`]: what reports are made from, over the pinned maps or, in tests, over memory.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_common::abi::{self, Counter, EndpointKey, ServiceCounter, SlotKey, TICK_SHIFT};
use lb_common::address::Address;
use lb_common::pressure;

use crate::datapath::view::{MapInfo, View, now_ticks};
use crate::plan::store::{ReadTables as _, StoreError};

/// The tables that decide where traffic goes, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// `frontends`.
    pub frontends: BTreeMap<EndpointKey, abi::Frontend>,
    /// `services`.
    pub services: BTreeMap<u32, abi::Service>,
    /// `slots`.
    pub slots: BTreeMap<SlotKey, u32>,
    /// `backends`.
    pub backends: BTreeMap<u32, abi::Backend>,
    /// `nodes`.
    pub nodes: BTreeMap<u32, abi::Node>,
}

/// An entry of either flow table.
#[derive(Clone, Copy, Debug)]
pub struct TrackedFlow {
    /// Who speaks.
    pub client: SocketAddr,
    /// What it speaks to.
    pub frontend: SocketAddr,
    /// Network of the frontend.
    pub network: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// The rest.
    pub flow: abi::Flow,
}

impl TrackedFlow {
    /// Ticks left at tick `now`; none: expired, and merely not collected yet.
    pub fn ticks_left(&self, now: u32) -> Option<u32> {
        // Other CPUs may have written a tick later than our `now`: a difference in the upper half is negative.
        let idle = now.wrapping_sub(self.flow.last_seen);
        let idle = if idle > u32::MAX / 2 { 0 } else { idle };
        self.flow.timeout.checked_sub(idle)
    }
}

/// Read access to everything that reports show.
pub trait Inspect: Send + Sync {
    /// The tables of frontends, services and backends.
    ///
    /// # Errors
    /// What the kernel said; so for every method.
    fn tables(&self) -> Result<Tables, StoreError>;

    /// Calls `each` for every flow of both families, also expired ones.
    ///
    /// # Errors
    /// What the kernel said.
    fn for_each_flow(&self, each: &mut dyn FnMut(TrackedFlow)) -> Result<(), StoreError>;

    /// Whether new flows go to the overflow tables, because a flow table was full a moment ago.
    ///
    /// # Errors
    /// What the kernel said.
    fn pressed(&self) -> Result<bool, StoreError>;

    /// Packets by reason code.
    ///
    /// # Errors
    /// What the kernel said.
    fn counters(&self) -> Result<BTreeMap<u8, Counter>, StoreError>;

    /// Traffic by service id.
    ///
    /// # Errors
    /// What the kernel said.
    fn service_counters(&self) -> Result<BTreeMap<u32, ServiceCounter>, StoreError>;

    /// Fill of every map.
    ///
    /// # Errors
    /// What the kernel said.
    fn map_info(&self) -> Result<Vec<MapInfo>, StoreError>;
}

impl Inspect for View {
    fn tables(&self) -> Result<Tables, StoreError> {
        Ok(Tables {
            frontends: self.entries::<abi::Frontends>()?,
            services: self.entries::<abi::Services>()?,
            slots: self.entries::<abi::Slots>()?,
            backends: self.entries::<abi::Backends>()?,
            nodes: self.entries::<abi::Nodes>()?,
        })
    }

    fn for_each_flow(&self, each: &mut dyn FnMut(TrackedFlow)) -> Result<(), StoreError> {
        macro_rules! each {
            ($($v4:ident $v6:ident;)*) => { $(
                self.for_each::<abi::$v4>(|key, flow| {
                    each(TrackedFlow {
                        client: SocketAddr::new(Ipv4Addr::from(key.source).into(), key.source_port),
                        frontend: SocketAddr::new(Ipv4Addr::from(key.destination).into(), key.destination_port),
                        network: key.network_protocol >> 8,
                        protocol: key.network_protocol as u8,
                        flow,
                    });
                })?;
                self.for_each::<abi::$v6>(|key, flow| {
                    each(TrackedFlow {
                        client: SocketAddr::new(key.source.to_ip(), key.source_port),
                        frontend: SocketAddr::new(key.destination.to_ip(), key.destination_port),
                        network: key.network_protocol >> 8,
                        protocol: key.network_protocol as u8,
                        flow,
                    });
                })?;
            )* };
        }
        each! {
            Flows4 Flows6;
            Overflow4 Overflow6;
        }
        Ok(())
    }

    fn pressed(&self) -> Result<bool, StoreError> {
        let pressure = self.get::<abi::PressureTable>(&0)?.unwrap_or_default();
        Ok(pressure::holds(&pressure, now_ticks()))
    }

    fn counters(&self) -> Result<BTreeMap<u8, Counter>, StoreError> {
        self.counters()
    }

    fn service_counters(&self) -> Result<BTreeMap<u32, ServiceCounter>, StoreError> {
        self.service_counters()
    }

    fn map_info(&self) -> Result<Vec<MapInfo>, StoreError> {
        self.map_info()
    }
}

/// Flows that are alive, counted in one walk through the flow tables.
#[derive(Clone, Debug, Default)]
pub struct FlowCounts {
    /// By service id.
    pub by_service: HashMap<u32, u64>,
    /// By backend id.
    pub by_backend: HashMap<u32, u64>,
}

impl FlowCounts {
    /// Counts the flows alive at tick `now`. A flow counts for its backend as long as that has not been replaced.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read(from: &dyn Inspect, tables: &Tables, now: u32) -> Result<Self, StoreError> {
        let mut counts = Self::default();
        from.for_each_flow(&mut |entry| {
            if entry.ticks_left(now).is_none() {
                return;
            }
            *counts.by_service.entry(entry.flow.service).or_default() += 1;
            if backend_of(tables, &entry.flow).is_some() {
                *counts.by_backend.entry(entry.flow.backend).or_default() += 1;
            }
        })?;
        Ok(counts)
    }
}

/// The backend that a flow belongs to, unless the element was given to another one or is gone.
pub(super) fn backend_of<'a>(tables: &'a Tables, flow: &abi::Flow) -> Option<&'a abi::Backend> {
    let backend = tables.backends.get(&flow.backend)?;
    (backend.generation == flow.generation && backend.state != abi::BACKEND_GONE).then_some(backend)
}

/// Seconds in so many ticks.
pub fn seconds(ticks: u32) -> f64 {
    // Rounded to milliseconds, which a tick nearly is.
    let nanoseconds = u64::from(ticks) << TICK_SHIFT;
    (nanoseconds / 1_000_000) as f64 / 1000.0
}

/// The address, unless it is the unspecified one.
pub(super) fn specified(address: Address) -> Option<IpAddr> {
    (address != Address::ANY).then(|| address.to_ip())
}
