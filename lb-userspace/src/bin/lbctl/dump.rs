//! Decodes map entries into JSON, field by field, with the names of `lb_common::abi`.

use std::collections::BTreeMap;

use lb_common::abi::{self, Table};
use lb_common::address::Address;
use lb_common::verdict::Reason;
use lb_userspace::admin::api::{Code, Error, List, MapEntry, Origin};
use lb_userspace::datapath::view::View;
use serde_json::{Map, Value, json};

/// Something that becomes JSON.
trait Decode {
    fn decode(&self) -> Value;
}

impl Decode for Address {
    fn decode(&self) -> Value {
        json!(self.to_string())
    }
}

impl Decode for [u8; 6] {
    fn decode(&self) -> Value {
        json!(self.map(|b| format!("{b:02x}")).join(":"))
    }
}

impl Decode for [u8; 4] {
    fn decode(&self) -> Value {
        json!(std::net::Ipv4Addr::from(*self).to_string())
    }
}

macro_rules! numbers {
    ($($type:ty)*) => { $( impl Decode for $type {
        fn decode(&self) -> Value {
            json!(self)
        }
    } )* };
}
numbers!(u8 u16 u32 u64);

macro_rules! records {
    ($($type:ident { $($field:ident)* })*) => { $( impl Decode for abi::$type {
        fn decode(&self) -> Value {
            let mut fields = Map::new();
            $( fields.insert(stringify!($field).into(), self.$field.decode()); )*
            Value::Object(fields)
        }
    } )* };
}

records! {
    EndpointKey { network address port protocol family }
    Frontend { service flags }
    Service { identity generation count tcp_timeout udp_timeout flags algorithm }
    SlotKey { service generation index }
    Backend { address delivery port protocol network delivery_network node generation ifindex state mac flags }
    Node { tunnel_v4 tunnel_v6 flags }
    NodeAddress { node flags }
    VipKey { network address }
    Vip { frontends }
    SourceKey { bits service address }
    InterfaceKey { namespace ifindex }
    Interface { network flags mac }
    FlowKey4 { source source_port destination destination_port network_protocol }
    FlowKey6 { source source_port destination destination_port network_protocol }
    Flow { backend generation service origin last_seen timeout created source_port state flags }
    Reply { frontend frontend_port client client_port network kind bound }
    Pressure { full used }
    PathMtu { mtu since }
    Settings { tunnel_port tunnel_mtu flags tcp_syn tcp_established tcp_closing tcp_closed udp_new udp_established }
    Counter { packets bytes }
    ServiceCounter { flows packets bytes reply_packets reply_bytes }
}

/// Every entry of the map called `name`; of arrays, what is not zero.
pub(crate) fn dump(view: &View, name: &str) -> Result<List<MapEntry>, Error> {
    macro_rules! tables {
        ($($table:ident)*) => {
            match name {
                $( <abi::$table as Table>::NAME => read::<abi::$table>(view)?, )*
                abi::COUNTERS => counters(&view.counters()?),
                abi::SERVICE_COUNTERS => {
                    view.service_counters()?.iter().map(|(id, c)| entry(id, c)).collect()
                }
                _ => return Err(unknown(name)),
            }
        };
    }
    let items = tables!(SettingsTable Interfaces Frontends Services Slots Cursors Backends LocalBackends Nodes
        Addresses Vips Sources Flows4 Flows6 Replies4 Replies6 Overflow4 Overflow6 OverflowReplies4 OverflowReplies6
        PressureTable PathMtus Marks Ports);
    Ok(List::new(Origin::Maps, items))
}

pub(crate) fn unknown(name: &str) -> Error {
    let known: Vec<_> = names().collect();
    Error::new(Code::NotFound, format!("no map named {name:?}")).hint(format!("maps: {}", known.join(", ")))
}

/// Names that [`dump`] knows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    abi::TABLE_NAMES
        .iter()
        .copied()
        .chain([abi::COUNTERS, abi::SERVICE_COUNTERS])
}

fn read<T: Table>(view: &View) -> Result<Vec<MapEntry>, Error>
where
    T::Key: aya::Pod + Decode,
    T::Value: aya::Pod + Decode,
{
    let mut items = Vec::new();
    view.for_each::<T>(|key, value| items.push((key, entry(&key, &value))))?;
    items.sort_by_key(|(key, _)| *key);
    Ok(items.into_iter().map(|(_, entry)| entry).collect())
}

fn entry(key: &impl Decode, value: &impl Decode) -> MapEntry {
    MapEntry {
        key: key.decode(),
        value: value.decode(),
    }
}

/// Counters by the names of their reasons.
fn counters(all: &BTreeMap<u8, abi::Counter>) -> Vec<MapEntry> {
    let reason = |code: u8| Reason::ALL.iter().find(|r| r.code() == code);
    let named = all.iter().map(|(code, counter)| MapEntry {
        key: reason(*code).map_or_else(|| json!(code), |r| json!(r.name())),
        value: counter.decode(),
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_addresses_are_text() {
        let key = abi::FlowKey4 {
            source: [10, 0, 0, 1],
            source_port: 4000,
            ..Default::default()
        };
        let entry = entry(
            &key,
            &abi::Flow {
                backend: 7,
                ..Default::default()
            },
        );
        assert_eq!(entry.key["source"], "10.0.0.1");
        assert_eq!(entry.key["source_port"], 4000);
        assert_eq!(entry.value["backend"], 7);
    }

    #[test]
    fn every_table_has_a_decoder() {
        // The list in `dump` against the layout's own: a map that is added there must be added here.
        let source = include_str!("dump.rs");
        let list = source
            .split("tables!(Settings")
            .nth(1)
            .unwrap()
            .split(");")
            .next()
            .unwrap();
        assert_eq!(list.split_whitespace().count(), abi::TABLE_NAMES.len());
    }

    #[test]
    fn an_unknown_map_names_the_known_ones() {
        let error = unknown("flow");
        assert_eq!(error.code, Code::NotFound);
        assert!(error.hint.unwrap().contains("flows4"));
    }
}
