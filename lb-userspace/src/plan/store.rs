//! Where plans are applied: one trait, over the kernel's maps (`datapath::store`) or over memory (tests).

use std::collections::BTreeMap;

use lb_common::abi::Table;

/// A map operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: cannot {operation}: {source}")]
pub struct StoreError {
    /// The map's name.
    pub map: &'static str,
    /// `read`, `write` or `delete`.
    pub operation: &'static str,
    /// What the kernel said.
    pub source: std::io::Error,
}

/// Read access to the tables.
pub trait ReadTables {
    /// Every entry. Of an array, every element that differs from the default value.
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default;

    /// One entry.
    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default;
}

/// Write access to the tables.
pub trait WriteTables: ReadTables {
    /// Creates or replaces one entry, atomically for hash tables.
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default;

    /// Removes one entry; of an array, writes the default value. An entry that is not there is no error.
    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default;

    /// Returns when no program that began before the call is still running, so that what it may have read of the
    /// tables can go. In the kernel that is a grace period of RCU; where nothing runs beside, there is nothing to wait for.
    fn settle(&mut self) {}
}
