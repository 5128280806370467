//! Clients whose addresses other nodes have too: behind the gateway bridge, whose subnet is the same everywhere, and on the
//! loopback address. They are masked where their packets come in, so that flows, backends and other nodes know them by an
//! address of the masquerade range, and the mask is taken off where a reply is delivered. No table is needed for it: the host
//! part of the address stays, and that of the loopback address is 0, which no container has.

use super::Work;
use crate::abi::Settings;
use crate::address::Address;
use crate::tables::Tables;
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::wire::Packet;
use crate::wire::rewrite::{self, Translation};

/// 127.0.0.1 as it lies in memory.
const LOCALHOST: u32 = u32::from_ne_bytes([127, 0, 0, 1]);

/// The addresses that a masked client's packet carries on its own node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask {
    /// Not 0: the client is masked; the headers say how.
    pub(super) on: u32,
    source: Address,
    destination: Address,
    /// Room for the work of [`readdress`], whose callers have none on their stack.
    to: Translation,
}

impl Mask {
    /// The client's own address, if it is masked.
    #[inline(always)]
    pub(super) fn client(&self) -> &Address {
        &self.source
    }
}

/// The IPv4 address as a word, if it is one.
#[inline(always)]
fn word(address: &Address) -> Option<u32> {
    if address.is_v4() {
        Some(address.words()[3])
    } else {
        None
    }
}

/// Whether the address stands for somebody else.
#[inline(always)]
pub(super) fn covers<T: Tables>(tables: &T, address: &Address) -> bool {
    let (Some(address), Some(settings)) = (word(address), tables.settings()) else {
        return false;
    };
    settings.masquerade_mask != 0 && address & settings.masquerade_mask == settings.masquerade
}

/// The addresses as every other node knows them, if they differ. `host`: a process of the node itself has sent them.
#[inline(always)]
fn masked(settings: &Settings, source: u32, destination: u32, host: bool) -> Option<(u32, u32)> {
    if settings.masquerade_mask == 0 {
        return None;
    }
    if source == LOCALHOST {
        // The answer comes from the address that was asked: of a pair of loopback addresses it can be told.
        if !host || destination != LOCALHOST || settings.host == 0 {
            return None;
        }
        return Some((settings.masquerade, settings.host));
    }
    if settings.bridge_mask == 0 || source & settings.bridge_mask != settings.bridge {
        return None;
    }
    Some((settings.masquerade | source & !settings.bridge_mask, destination))
}

/// Masks the client of a tuple.
#[inline(always)]
pub(super) fn cover<T: Tables>(tables: &T, tuple: &mut Tuple, host: bool) {
    let (Some(settings), Some(source), Some(destination)) =
        (tables.settings(), word(&tuple.source), word(&tuple.destination))
    else {
        return;
    };
    if let Some((source, destination)) = masked(&settings, source, destination, host) {
        tuple.source = Address::v4_word(source);
        tuple.destination = Address::v4_word(destination);
    }
}

/// Masks the client in the headers alone; the packet stays as it is until it is known to be a service's.
#[inline(never)]
pub(super) fn put_on_tuple<T: Tables>(tables: &T, work: &mut Work, host: bool) {
    let tuple = &mut work.headers.tuple;
    let Some(settings) = tables.settings() else { return };
    let (Some(source), Some(destination)) = (word(&tuple.source), word(&tuple.destination)) else {
        return;
    };
    let Some((source, destination)) = masked(&settings, source, destination, host) else {
        return;
    };
    work.mask.on = 1;
    work.mask.source = tuple.source;
    work.mask.destination = tuple.destination;
    tuple.source = Address::v4_word(source);
    tuple.destination = Address::v4_word(destination);
}

/// The headers as the packet is, which was not changed.
#[inline(never)]
pub(super) fn forget(work: &mut Work) {
    if work.mask.on != 0 {
        work.headers.tuple.source = work.mask.source;
        work.headers.tuple.destination = work.mask.destination;
    }
}

/// Masks the client in the packet too.
#[inline(never)]
pub(super) fn put_on<P: Packet>(packet: &mut P, work: &mut Work) -> Option<()> {
    if work.mask.on == 0 {
        return Some(());
    }
    let (source, destination) = (work.headers.tuple.source, work.headers.tuple.destination);
    work.headers.tuple.source = work.mask.source;
    work.headers.tuple.destination = work.mask.destination;
    readdress(packet, work, source, destination)
}

/// The packet as the client has sent it.
#[inline(never)]
pub(super) fn take_off<P: Packet>(packet: &mut P, work: &mut Work) -> Option<()> {
    if work.mask.on == 0 {
        return Some(());
    }
    let (source, destination) = (work.mask.source, work.mask.destination);
    readdress(packet, work, source, destination)
}

/// The frontend and the client as the client itself knows them, given the mask. `None`: nobody is behind it.
#[inline(always)]
pub(super) fn behind<T: Tables>(tables: &T, frontend: &Address, mask: &Address) -> Option<(Address, Address)> {
    let settings = tables.settings()?;
    let host = mask.words()[3] & !settings.masquerade_mask;
    if host == 0 {
        Some((Address::v4_word(LOCALHOST), Address::v4_word(LOCALHOST)))
    } else if settings.bridge_mask != 0 && host & settings.bridge_mask == 0 {
        Some((*frontend, Address::v4_word(settings.bridge | host)))
    } else {
        None
    }
}

/// Addresses a reply to the client behind the mask. The reason says why it cannot be.
#[inline(never)]
pub(super) fn uncover<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Work) -> Option<Reason> {
    let tuple = &work.headers.tuple;
    let Some((source, destination)) = behind(tables, &tuple.source, &tuple.destination) else {
        return Some(Reason::DropNoRoute);
    };
    match readdress(packet, work, source, destination) {
        Some(()) => None,
        None => Some(Reason::DropRewrite),
    }
}

#[inline(always)]
fn readdress<P: Packet>(packet: &mut P, work: &mut Work, source: Address, destination: Address) -> Option<()> {
    let tuple = &work.headers.tuple;
    work.mask.to = Translation {
        source,
        destination,
        ..Translation::of(tuple)
    };
    rewrite::translate(packet, &mut work.headers, &work.mask.to)
}
