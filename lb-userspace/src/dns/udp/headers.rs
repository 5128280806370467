//! [`Headers`]: what the kernel is told, and tells, about datagrams that are received or sent together.

use std::cell::RefCell;

use nix::sys::socket::{MultiHeaders, SockaddrIn, SockaddrIn6};

/// Datagrams at once. More wait in the socket, which costs nothing.
pub(super) const COUNT: usize = 32;

/// Headers of [`COUNT`] datagrams. What was received last says how long an address may be, so that each family has its own.
///
/// Whoever receives and whoever sends must not share one: what was sent last says where an address was that is gone.
/// Its pointers bind it to a thread, and a task is bound to none.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) v4: RefCell<MultiHeaders<SockaddrIn>>,
    pub(super) v6: RefCell<MultiHeaders<SockaddrIn6>>,
}

impl Headers {
    pub(super) fn new() -> Self {
        Self {
            v4: RefCell::new(MultiHeaders::preallocate(COUNT, None)),
            v6: RefCell::new(MultiHeaders::preallocate(COUNT, None)),
        }
    }
}
