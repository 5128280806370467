//! The words and the maths of the load balancer, for the kernel and for user space alike.
//!
//! Everything a packet meets is decided here, in pure code: no allocation, no logging, no clock,
//! no randomness and no I/O. Time and tables are passed in, so the same function runs as XDP and
//! tc programs (`lb-ebpf`), in tests, and in `lbctl`.
//!
//! | module | holds |
//! |---|---|
//! | [`abi`] | keys and values of every map, names, capacities, the layout version |
//! | [`verdict`] | every reason to pass or drop, with code, name and sentence |
//! | [`wire`] | headers, checksums, the [`wire::Packet`] trait |
#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]
#![warn(missing_docs)]

pub mod abi;
pub mod address;
pub mod verdict;
pub mod wire;
