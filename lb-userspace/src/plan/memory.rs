//! [`MemoryTables`]: tables in memory, for tests, dry runs and benches; they behave as the kernel's maps do.

use std::any::Any;
use std::collections::BTreeMap;

use lb_common::abi::Table;

use super::store::{ReadTables, StoreError, WriteTables};

/// Tables in memory.
#[derive(Default)]
pub struct MemoryTables {
    tables: BTreeMap<&'static str, Box<dyn Any>>,
}

impl MemoryTables {
    fn table<T: Table>(&self) -> Option<&BTreeMap<T::Key, T::Value>>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        self.tables.get(T::NAME).and_then(|table| table.downcast_ref())
    }

    fn table_mut<T: Table>(&mut self) -> &mut BTreeMap<T::Key, T::Value>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod,
    {
        let table = self
            .tables
            .entry(T::NAME)
            .or_insert_with(|| Box::new(BTreeMap::<T::Key, T::Value>::new()));
        table.downcast_mut().expect("a table's name stands for one type")
    }
}

impl ReadTables for MemoryTables {
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        Ok(self.table::<T>().cloned().unwrap_or_default())
    }

    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        let value = self.table::<T>().and_then(|table| table.get(key)).copied();
        Ok(if T::ARRAY {
            Some(value.unwrap_or_default())
        } else {
            value
        })
    }
}

impl WriteTables for MemoryTables {
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        if T::ARRAY && *value == T::Value::default() {
            return self.delete::<T>(key);
        }
        self.table_mut::<T>().insert(*key, *value);
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.table_mut::<T>().remove(key);
        Ok(())
    }
}
