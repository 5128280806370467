//! Routes that each CPU keeps for a moment: which, under what key, and for how long. To ask the kernel costs more than all the
//! rest that is done to a packet of a known flow.
//!
//! Only programs of the node's own namespace keep routes: interface indexes repeat elsewhere. What is known of interfaces is kept
//! with the namespace.

use crate::abi::{Interface, InterfaceKey, NETWORK_NODE, ticks};
use crate::address::Address;
use crate::tables::{NextHop, Route};

/// Ticks for which a route is kept: so late is a neighbour's new MAC, or another way, followed.
pub const FRESH: u32 = ticks(50);
/// Places of a CPU, `log2`.
pub const PLACES_SHIFT: u32 = 8;

/// Whether an interface takes frames from XDP: it is one of the node's own network, and neither bridged nor a workload's.
#[inline(always)]
pub const fn takes_frames(interface: &Interface) -> bool {
    interface.network == NETWORK_NODE && interface.flags == 0
}

/// What the kernel is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Source address, as words in the order of the network.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Interface that the packet is on, in the node's own namespace.
    pub incoming: u32,
}

impl Question {
    /// The way of a packet between two addresses that is on an interface of the node.
    #[inline(always)]
    pub const fn new(source: &Address, destination: &Address, incoming: u32) -> Self {
        Self {
            source: source.words(),
            destination: destination.words(),
            incoming,
        }
    }

    /// Where its answer is kept: each destination has one place, which it shares with others.
    #[inline(always)]
    pub const fn place(self) -> u32 {
        let d = self.destination;
        (d[0] ^ d[1] ^ d[2] ^ d[3]).wrapping_mul(0x9e37_79b1) >> (32 - PLACES_SHIFT)
    }
}

/// An answer of the kernel. Zeros: nothing is kept here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    source: [u32; 4],
    destination: [u32; 4],
    incoming: u32,
    /// Tick at which the kernel was asked.
    asked: u32,
    ifindex: u32,
    /// 1: the interface takes frames from XDP.
    takes_frames: u32,
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
}

impl Kept {
    /// Whether a route may be kept: one whose next hop is not resolved will be asked for again soon.
    #[inline(always)]
    pub const fn takes(route: &Route) -> bool {
        matches!(route.hop, NextHop::Resolved)
    }

    /// What is kept of a route that [`Kept::takes`].
    #[inline(always)]
    pub const fn new(question: Question, route: &Route) -> Self {
        Self {
            source: question.source,
            destination: question.destination,
            incoming: question.incoming,
            asked: route.asked,
            ifindex: route.ifindex,
            takes_frames: route.takes_frames as u32,
            source_mac: route.source,
            destination_mac: route.destination,
        }
    }

    /// Whether it still answers the question. No branch for each word: the verifier would follow all of them.
    #[inline(always)]
    pub const fn answers(&self, question: Question, now: u32) -> bool {
        let (s, d) = (self.source, self.destination);
        let (source, destination) = (question.source, question.destination);
        let differ = (s[3] ^ source[3]) | (d[3] ^ destination[3]) | (self.incoming ^ question.incoming);
        let more = (s[0] ^ source[0]) | (s[1] ^ source[1]) | (s[2] ^ source[2]);
        let rest = (d[0] ^ destination[0]) | (d[1] ^ destination[1]) | (d[2] ^ destination[2]);
        differ | more | rest == 0 && now.wrapping_sub(self.asked) <= FRESH
    }

    /// The route.
    #[inline(always)]
    pub const fn route(&self) -> Route {
        Route {
            hop: NextHop::Resolved,
            ifindex: self.ifindex,
            source: self.source_mac,
            destination: self.destination_mac,
            takes_frames: self.takes_frames != 0,
            asked: self.asked,
        }
    }
}

/// Where what is known of an interface is kept.
#[inline(always)]
pub const fn interface_place(key: &InterfaceKey) -> u32 {
    (key.ifindex ^ key.namespace as u32) & ((1 << PLACES_SHIFT) - 1)
}

/// What the agent has said of an interface. Zeros: nothing is kept here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptInterface {
    namespace: u64,
    interface: Interface,
    ifindex: u32,
    /// Tick at which it was looked up.
    asked: u32,
}

impl KeptInterface {
    /// As it was looked up at tick `now`.
    #[inline(always)]
    pub const fn new(interface: Interface, key: &InterfaceKey, now: u32) -> Self {
        Self {
            namespace: key.namespace,
            interface,
            ifindex: key.ifindex,
            asked: now,
        }
    }

    /// Whether this is that interface, as it was a moment ago.
    #[inline(always)]
    pub const fn is(&self, key: &InterfaceKey, now: u32) -> bool {
        (self.ifindex ^ key.ifindex) as u64 | (self.namespace ^ key.namespace) == 0
            && now.wrapping_sub(self.asked) <= FRESH
    }

    /// What was said.
    #[inline(always)]
    pub const fn interface(&self) -> &Interface {
        &self.interface
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ROUTE: Route = Route {
        hop: NextHop::Resolved,
        ifindex: 7,
        source: [1; 6],
        destination: [2; 6],
        takes_frames: true,
        asked: 1000,
    };

    fn question() -> Question {
        let (source, destination) = (Address::v4([192, 0, 2, 1]), Address::v4([198, 51, 100, 2]));
        Question::new(&source, &destination, 3)
    }

    #[test]
    fn it_answers_for_fifty_milliseconds_and_not_before_it_was_asked() {
        for asked in [1000, u32::MAX - 3] {
            let route = Route { asked, ..ROUTE };
            let kept = Kept::new(question(), &route);
            for later in 0..=FRESH {
                assert!(
                    kept.answers(question(), asked.wrapping_add(later)),
                    "{later} ticks later"
                );
            }
            assert!(!kept.answers(question(), asked.wrapping_add(FRESH + 1)));
            assert!(!kept.answers(question(), asked.wrapping_sub(1)));
            assert_eq!(kept.route(), route);
            let held_back = Route {
                takes_frames: false,
                ..route
            };
            assert_eq!(Kept::new(question(), &held_back).route(), held_back);
        }
        assert!(
            (45..=50).contains(&FRESH),
            "ticks are a little longer than milliseconds"
        );
    }

    #[test]
    fn it_answers_no_other_question() {
        let kept = Kept::new(question(), &ROUTE);
        for word in 0..4 {
            for bit in 0..32 {
                let (mut source, mut destination) = (question(), question());
                source.source[word] ^= 1 << bit;
                destination.destination[word] ^= 1 << bit;
                assert!(!kept.answers(source, 1000) && !kept.answers(destination, 1000));
            }
        }
        for bit in 0..32 {
            let incoming = question().incoming ^ 1 << bit;
            assert!(!kept.answers(Question { incoming, ..question() }, 1000));
        }
        // Two differences do not make up for each other.
        let mut swapped = question();
        (swapped.source, swapped.destination) = (swapped.destination, swapped.source);
        assert!(!kept.answers(swapped, 1000));
    }

    #[test]
    fn only_what_is_resolved_is_kept() {
        for hop in [NextHop::None, NextHop::Unresolved, NextHop::Local] {
            assert!(!Kept::takes(&Route { hop, ..ROUTE }));
        }
        assert!(Kept::takes(&ROUTE));
    }

    #[test]
    fn an_empty_place_answers_nobody() {
        let nothing = Route {
            ifindex: 0,
            source: [0; 6],
            destination: [0; 6],
            asked: 0,
            ..ROUTE
        };
        let zeros = Question {
            source: [0; 4],
            destination: [0; 4],
            incoming: 0,
        };
        // As the kernel makes it, a moment after it has started.
        let empty = Kept::new(zeros, &nothing);
        assert!(!empty.answers(question(), 1));
        assert!(
            !empty.answers(Question { incoming: 1, ..zeros }, 1),
            "no interface has the index 0"
        );
    }

    #[test]
    fn an_interface_is_kept_as_long_as_a_route() {
        let interface = Interface {
            network: 5,
            ..Interface::default()
        };
        let [key, other] = [7, 8].map(InterfaceKey::node);
        let kept = KeptInterface::new(interface, &key, 1000);
        assert!(kept.is(&key, 1000) && kept.is(&key, 1000 + FRESH));
        assert!(!kept.is(&other, 1000) && !kept.is(&key, 1001 + FRESH) && !kept.is(&key, 999));
        for bit in 0..64 {
            assert!(!kept.is(&InterfaceKey::new(1 << bit, 7), 1000), "of another namespace");
        }
        assert_eq!(*kept.interface(), interface);
        assert!(interface_place(&InterfaceKey::new(u64::MAX, u32::MAX)) < 1 << PLACES_SHIFT);
        assert_ne!(interface_place(&key), interface_place(&other));
    }

    #[test]
    fn destinations_of_one_network_have_places_of_their_own() {
        let place = |host| {
            let place = Question::new(&Address::ANY, &Address::v4([10, 0, 0, host]), 1).place();
            assert!(place < 1 << PLACES_SHIFT);
            place
        };
        let places: BTreeSet<u32> = (0..64).map(place).collect();
        assert!(places.len() > 48, "{} places for 64 neighbours", places.len());
    }
}
