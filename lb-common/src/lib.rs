//! The words and the maths of the load balancer, for the kernel and for user space alike.
//!
//! Everything a packet meets is decided here, in pure code: no allocation, no logging, no clock,
//! no randomness and no I/O. Time and tables are passed in, so the same function runs as XDP and
//! tc programs (`lb-ebpf`), in tests, and in `lbctl`.
//!
//! | module | holds |
//! |---|---|
//! | [`abi`] | keys and values of every map, names, capacities, the layout version |
//! | [`verdict`] | every reason to forward, answer, pass or drop, with code, name and sentence |
//! | [`wire`] | headers, checksums, tunnel framing, the [`wire::Packet`] trait |
//! | [`tuple`] | who speaks to whom: the key of flows |
//! | [`tables`] | the [`tables::Tables`] trait |
//! | [`select`], [`flow`], [`track`] | which backend, which flow, how long it lives |
//! | [`route`], [`way`] | which routes are kept, and for how long; the same of ways to other nodes |
//! | [`pressure`] | what becomes of new flows when a table is full |
//! | [`collect`] | removal of what is dead |
//! | [`answer`] | RST, ICMP errors, echo, ARP and neighbour advertisements |
//! | [`pipeline`] | the packet path |
#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]
#![warn(missing_docs)]

#[cfg(any(test, feature = "testing"))]
extern crate std;

pub mod abi;
pub mod address;
pub mod answer;
pub mod collect;
pub mod flow;
pub mod pipeline;
pub mod pressure;
pub mod route;
pub mod select;
pub mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod track;
pub mod tuple;
pub mod verdict;
pub mod way;
pub mod wire;
