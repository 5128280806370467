//! The admin API over a real Unix socket, asked by the real `lbctl`, over tables in memory.

mod agent;
mod asked;
mod cluster;
mod metrics;
mod socket;
