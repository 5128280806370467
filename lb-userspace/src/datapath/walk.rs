//! A walk over a map, a batch at a time.

use std::io;
use std::os::fd::BorrowedFd;

use super::sys::{self, Read};

/// Position in a map. Elements written or removed during the walk may be seen or not.
pub(super) struct Walk<'a> {
    map: BorrowedFd<'a>,
    key_size: usize,
    value_size: usize,
    count: usize,
    cursor: Vec<u8>,
    first: bool,
    finished: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A walk over a map with these sizes, in batches of `count` elements.
    pub(super) fn new(map: BorrowedFd<'a>, key_size: usize, value_size: usize, count: usize) -> Self {
        Self {
            map,
            key_size,
            value_size,
            count,
            cursor: vec![0; key_size.max(4)],
            first: true,
            finished: false,
            keys: vec![0; key_size * count],
            values: vec![0; value_size * count],
        }
    }

    /// The next batch as (keys, values), whole elements behind each other; `None` at the end.
    pub(super) fn next_batch(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        while !self.finished {
            let read = sys::lookup_batch(
                self.map,
                self.first,
                &mut self.cursor,
                &mut self.keys,
                &mut self.values,
                self.count as u32,
            )?;
            let count = match read {
                Read::More(count) => count,
                Read::Last(count) => {
                    self.finished = true;
                    count
                }
                Read::TooSmall => {
                    self.count *= 2;
                    self.keys.resize(self.key_size * self.count, 0);
                    self.values.resize(self.value_size * self.count, 0);
                    continue;
                }
                Read::Unsupported => {
                    let why = "this kernel cannot read maps in batches (5.6 and later can)";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, why));
                }
            };
            self.first = false;
            if count > 0 {
                let (keys, values) = (count * self.key_size, count * self.value_size);
                return Ok(Some((&self.keys[..keys], &self.values[..values])));
            }
        }
        Ok(None)
    }
}
