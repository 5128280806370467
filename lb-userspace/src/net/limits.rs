//! Upper bounds on what clients can make the server hold, in all and for each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is held; at most `total` in all and `share` for one client.
#[derive(Debug)]
pub(crate) struct Limit {
    total: usize,
    share: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

impl Limit {
    pub(crate) fn new(total: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            share,
            held: Mutex::default(),
        })
    }

    /// One more for `client`, until the permit is dropped; none if it would be too many.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.clients.get(&client).copied().unwrap_or(0);
        if held.total >= self.total || mine >= self.share {
            return None;
        }
        held.total += 1;
        held.clients.insert(client, mine + 1);
        Some(Permit {
            limit: self.clone(),
            client,
        })
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// The most files that this process may have open, from the text of `/proc/self/limits`; none if it does not say.
pub(crate) fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    client: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.limit.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if let Some(mine) = held.clients.get_mut(&self.client) {
            *mine -= 1;
            if *mine == 0 {
                held.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_the_others_share() {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let limit = Limit::new(3, 2);
        let first = limit.take(a).unwrap();
        let _second = limit.take(a).unwrap();
        assert!(limit.take(a).is_none());
        let _third = limit.take(b).unwrap();
        assert!(limit.take(b).is_none(), "the total is reached");
        drop(first);
        assert!(limit.take(b).is_some());
        assert_eq!(limit.held(), 2);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let text = "Max core file size        0        unlimited   bytes\nMax open files            1024     524288      files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited  unlimited  files"),
            None
        );
        assert!(open_files(&std::fs::read_to_string("/proc/self/limits").unwrap()).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_hold_nothing() {
        let limit = Limit::new(10, 10);
        drop(limit.take(IpAddr::from([10, 0, 0, 1])));
        assert!(limit.held.lock().unwrap().clients.is_empty());
    }
}
