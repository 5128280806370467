//! Loads, attaches and adopts the programs, and reads and writes the maps: the only user of aya.

pub mod view;
