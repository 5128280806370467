//! What the programs count, summed over CPUs.

use std::collections::BTreeMap;

use lb_common::abi::{COUNTERS, Counter, SERVICE_COUNTERS, ServiceCounter};

use super::{View, pod};
use crate::plan::store::StoreError;

impl View {
    /// Packets and bytes by reason code, summed over CPUs; codes that never occurred are left out.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn counters(&self) -> Result<BTreeMap<u8, Counter>, StoreError> {
        let mut all = BTreeMap::new();
        self.each_bytes(COUNTERS, |key, value| {
            let mut sum = Counter::default();
            for one in value.chunks_exact(size_of::<Counter>()).map(pod::<Counter>) {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
            all.insert(u8::try_from(pod::<u32>(key)).unwrap_or(u8::MAX), sum);
        })?;
        Ok(all)
    }

    /// Traffic by service id, summed over CPUs; services without any are left out.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn service_counters(&self) -> Result<BTreeMap<u32, ServiceCounter>, StoreError> {
        let mut all = BTreeMap::new();
        self.each_bytes(SERVICE_COUNTERS, |key, value| {
            let mut sum = ServiceCounter::default();
            for one in value
                .chunks_exact(size_of::<ServiceCounter>())
                .map(pod::<ServiceCounter>)
            {
                sum.flows += one.flows;
                sum.packets += one.packets;
                sum.bytes += one.bytes;
                sum.reply_packets += one.reply_packets;
                sum.reply_bytes += one.reply_bytes;
            }
            all.insert(pod(key), sum);
        })?;
        Ok(all)
    }
}
