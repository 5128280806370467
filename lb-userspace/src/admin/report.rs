//! The answers themselves, as the agent gives them with names and `lbctl` without: one code for both.
//!
//! Blocking: walking through the maps takes milliseconds.

use lb_common::verdict::Reason;

use super::api::{Backend, Code, Error, Flow, List, MapStatus, Origin, Service, Status, Traffic};
use super::filter::Filter;
use super::inspect::{FlowCounts, Inspect, Tables};
use super::inventory::{Inventory, find_service};
use crate::datapath::view::now_ticks;
use crate::model::snapshot::Snapshot;
use crate::plan::store::StoreError;

/// Flows in one answer unless asked for more.
pub const DEFAULT_LIMIT: usize = 10_000;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match error.source.kind() {
            std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Reads the tables and joins them with `snapshot`'s names.
fn with_inventory<R>(
    view: &dyn Inspect,
    snapshot: Option<&Snapshot>,
    then: impl FnOnce(&Inventory<'_>, &Tables) -> Result<R, Error>,
) -> Result<R, Error> {
    let tables = view.tables()?;
    let counts = FlowCounts::read(view, &tables, now_ticks())?;
    let traffic = view.service_counters()?;
    then(&Inventory::new(&tables, &counts, &traffic, snapshot), &tables)
}

fn list<T: super::api::Item>(snapshot: Option<&Snapshot>, items: Vec<T>) -> List<T> {
    let source = if snapshot.is_some() {
        Origin::Agent
    } else {
        Origin::Maps
    };
    List {
        generation: snapshot.map(|s| s.generation),
        ..List::new(source, items)
    }
}

/// Every service that matches, without tasks.
///
/// # Errors
/// When the maps cannot be read; so for every function here.
pub fn services(view: &dyn Inspect, snapshot: Option<&Snapshot>, filter: &Filter) -> Result<List<Service>, Error> {
    let items = with_inventory(view, snapshot, |inventory, _| Ok(inventory.services()))?;
    let items = items
        .into_iter()
        .filter(|s| filter.matches(s))
        .map(|s| Service { tasks: Vec::new(), ..s });
    Ok(list(snapshot, items.collect()))
}

/// Every service with its traffic and number of backends; its flows are not counted, which would cost a walk
/// through the flow tables.
///
/// # Errors
/// When the maps cannot be read.
pub fn service_traffic(view: &dyn Inspect, snapshot: &Snapshot) -> Result<Vec<Service>, Error> {
    let tables = view.tables()?;
    let traffic = view.service_counters()?;
    Ok(Inventory::new(&tables, &FlowCounts::default(), &traffic, Some(snapshot)).services())
}

/// One service, with its tasks.
///
/// # Errors
/// Also when there is no such service, or more than one.
pub fn service(view: &dyn Inspect, snapshot: Option<&Snapshot>, name: &str) -> Result<List<Service>, Error> {
    let items = with_inventory(view, snapshot, |inventory, _| Ok(inventory.services()))?;
    Ok(list(snapshot, vec![find_service(items, name)?]))
}

/// Every backend that matches.
///
/// # Errors
/// When the maps cannot be read.
pub fn backends(view: &dyn Inspect, snapshot: Option<&Snapshot>, filter: &Filter) -> Result<List<Backend>, Error> {
    let mut items = with_inventory(view, snapshot, |inventory, _| Ok(inventory.backends()))?;
    items.retain(|b| filter.matches(b));
    Ok(list(snapshot, items))
}

/// At most `limit` flows that match, and how many match in all.
///
/// # Errors
/// When the maps cannot be read.
pub fn flows(
    view: &dyn Inspect,
    snapshot: Option<&Snapshot>,
    filter: &Filter,
    limit: usize,
) -> Result<List<Flow>, Error> {
    let (tables, traffic) = (view.tables()?, Default::default());
    let counts = FlowCounts::default();
    let inventory = Inventory::new(&tables, &counts, &traffic, snapshot);
    let names = inventory.flow_names();
    let now = now_ticks();
    let (mut items, mut total) = (Vec::new(), 0);
    view.for_each_flow(&mut |entry| {
        let Some(flow) = names.flow(&entry, now).filter(|flow| filter.matches(flow)) else {
            return;
        };
        total += 1;
        if items.len() < limit {
            items.push(flow);
        }
    })?;
    items.sort_by_key(|f| (f.client, f.frontend, f.protocol));
    Ok(List {
        total: Some(total),
        ..list(snapshot, items)
    })
}

/// The node at a glance: `status` as the agent knows it, with the maps' part filled in.
///
/// # Errors
/// When the maps cannot be read.
pub fn status(view: &dyn Inspect, snapshot: Option<&Snapshot>, mut status: Status) -> Result<List<Status>, Error> {
    status.pressed = view.pressed()?;
    status.maps = maps(view)?;
    status.traffic = traffic(view)?;
    Ok(list(snapshot, vec![status]))
}

/// Fill of every map.
///
/// # Errors
/// When the maps cannot be read.
pub fn maps(view: &dyn Inspect) -> Result<Vec<MapStatus>, Error> {
    let info = view.map_info()?.into_iter().map(|map| MapStatus {
        name: map.name,
        id: map.id,
        kind: map.kind,
        key_size: map.key_size,
        value_size: map.value_size,
        entries: map.entries,
        max_entries: map.max_entries,
        memory_bytes: map.memory,
    });
    Ok(info.collect())
}

/// Packets by reason, every reason once.
///
/// # Errors
/// When the maps cannot be read.
pub fn traffic(view: &dyn Inspect) -> Result<Vec<Traffic>, Error> {
    let counters = view.counters()?;
    let all = Reason::ALL.iter().map(|reason| {
        let counter = counters.get(&reason.code()).copied().unwrap_or_default();
        Traffic {
            reason: reason.name().into(),
            verdict: reason.kind().name().into(),
            packets: counter.packets,
            bytes: counter.bytes,
        }
    });
    Ok(all.collect())
}
