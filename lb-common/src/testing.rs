//! In-memory packets and tables, and the fixtures that every executor runs.
//!
//! | module | holds |
//! |---|---|
//! | [`packet`], [`tables`] | [`crate::wire::Packet`] over bytes, [`crate::tables::Tables`] over maps |
//! | [`frame`] | frames from plain bytes, by the RFCs, without the code under test |
//! | [`world`], [`case`] | the small cluster in which every fixture plays, and who speaks in it |
//! | [`fixture`] | packet in, verdict, packet and tables out; the pure executor |
//! | [`mutate`], [`disorder`] | fixtures' frames, damaged; their tables, in disorder |
//! | [`mod@skip`] | what becomes of tests that cannot run on a machine |
//! | the others | the fixtures, by topic |

pub mod case;
pub mod disorder;
pub mod fixture;
pub mod frame;
pub mod mutate;
pub mod packet;
pub mod skip;
pub mod tables;
pub mod world;

mod answer;
mod drain;
mod errors;
mod filter;
mod fragments;
mod gateway;
mod hairpin;
mod host;
mod inside;
mod malformed;
mod marks;
mod onset;
mod overlay;
mod passed;
mod path_mtu;
mod pressure;
mod published;
mod refusal;
mod reply;
mod too_big;
mod tunnel;
mod vip;
mod vlan;

use std::vec::Vec;

use fixture::Fixture;

/// Every fixture.
pub fn fixtures() -> Vec<Fixture> {
    let topics: [fn() -> Vec<Fixture>; 23] = [
        answer::fixtures,
        drain::fixtures,
        errors::fixtures,
        filter::fixtures,
        fragments::fixtures,
        gateway::fixtures,
        hairpin::fixtures,
        host::fixtures,
        inside::fixtures,
        malformed::fixtures,
        marks::fixtures,
        onset::fixtures,
        overlay::fixtures,
        passed::fixtures,
        path_mtu::fixtures,
        pressure::fixtures,
        published::fixtures,
        refusal::fixtures,
        reply::fixtures,
        too_big::fixtures,
        tunnel::fixtures,
        vip::fixtures,
        vlan::fixtures,
    ];
    topics.iter().flat_map(|topic| topic()).collect()
}
