//! The datapath's life on the real kernel: load, attach, restart, remove, in a network namespace and on a BPF
//! file system of the test's own.

mod attach;
mod collect;
mod places;
mod sandbox;
mod tables;
