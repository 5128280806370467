//! Packets turned into their own answers. Each is one function of its own in the object: most packets do not come here.

pub mod arp;
pub mod echo;
pub mod neighbour;
pub mod reset;
pub mod unreachable;

use crate::verdict::{Kind, Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::{Packet, rewrite};

/// Answers a packet that is refused, as its reason says: RST, ICMP error, or silence.
#[inline(never)]
pub fn refuse<P: Packet>(packet: &mut P, h: &mut Headers, reason: Reason) -> Verdict {
    // A fragment's error could not quote ports in every family.
    if P::FRAGMENTS || reason.kind() != Kind::Answer {
        return Verdict::drop(reason);
    }
    if rewrite::untag(packet, h).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    match reason {
        Reason::UnreachableNoBackend | Reason::UnreachableNoPort => {
            unreachable::answer(packet, h, unreachable::Error::Port, reason)
        }
        _ => reset::answer(packet, h, reason),
    }
}

/// Answers a packet that does not fit a path of `mtu` bytes.
#[inline(never)]
pub fn too_big<P: Packet>(packet: &mut P, h: &mut Headers, mtu: u16) -> Verdict {
    match rewrite::untag(packet, h) {
        Some(()) => unreachable::answer(packet, h, unreachable::Error::TooBig(mtu), Reason::AnswerTooBig),
        None => Verdict::drop(Reason::DropRewrite),
    }
}
