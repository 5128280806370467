//! What varies: who speaks, where the backend is, and what a client sends.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{TCP, UDP};
use lb_common::testing::frame::Frame;
use lb_common::testing::world::{Case, Place};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (any::<bool>(), prop::sample::select(vec![TCP, UDP])).prop_map(|(v6, protocol)| Case { v6, protocol })
}

pub(crate) fn place() -> impl Strategy<Value = Place> {
    prop::sample::select(vec![
        Place::Here,
        Place::Switched,
        Place::Unseen,
        Place::Client,
        Place::Node2,
        Place::Node3,
        Place::Node4,
    ])
}

/// Options of a SYN: an MSS behind some NOPs, padded to words.
fn options(nops: usize, mss: u16) -> Vec<u8> {
    let mut out = vec![1; nops];
    out.extend([2, 4]);
    out.extend(mss.to_be_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// What varies in a client's packet.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) port: u16,
    pub(crate) ttl: u8,
    pub(crate) nops: usize,
    pub(crate) mss: u16,
    pub(crate) numbers: (u32, u32),
    pub(crate) payload: Vec<u8>,
    pub(crate) summed: bool,
}

pub(crate) fn sent() -> impl Strategy<Value = Sent> {
    (
        1u16..,
        2u8..,
        0usize..8,
        any::<u16>(),
        any::<(u32, u32)>(),
        vec(any::<u8>(), 0..1200),
        any::<bool>(),
    )
        .prop_map(|(port, ttl, nops, mss, numbers, payload, summed)| Sent {
            port,
            ttl,
            nops,
            mss,
            numbers,
            payload,
            summed,
        })
}

impl Sent {
    /// The first packet from `client`, at the port that varies.
    pub(crate) fn frame(&self, case: Case, client: IpAddr, to: SocketAddr) -> Frame {
        let frame = case
            .first((client, self.port).into(), to)
            .ttl(self.ttl)
            .payload(&self.payload);
        if case.tcp() {
            let frame = frame.tcp_options(&options(self.nops, self.mss));
            return frame.numbers(self.numbers.0, self.numbers.1);
        }
        if self.summed || case.v6 {
            frame
        } else {
            frame.unsummed()
        }
    }
}
