//! The short way of the questions that most clients ask, for an address of a name of ours, over UDP: read and answered
//! in place, without a message in between. Pure.
//!
//! It only says what `message` says, byte for byte, or nothing: then the question goes the long way.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use super::message::{HEADER, MAX_DATAGRAM, MIN_DATAGRAM};

/// Type, class, TTL and length of a record behind its name.
const FIXED: usize = 10;
const OPT: u8 = 41;
const DNSSEC_OK: u8 = 0x80;
/// A name that stands right behind the header, written once more.
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];

/// One question for an address, with nothing unusual about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    header: &'a [u8],
    /// Name, type and class, as they were sent.
    question: &'a [u8],
    pub(super) record_type: RecordType,
    /// Largest answer that the client takes.
    limit: usize,
    /// It understands EDNS; whether it wants DNSSEC.
    edns: Option<bool>,
}

impl<'a> Plain<'a> {
    /// Reads a question; its name goes into `name`, in lower case, without the final dot.
    pub(super) fn read(bytes: &'a [u8], name: &mut String) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        // A query (QR and opcode 0) with one question and at most one record, in the additional section.
        let [0, 1, 0, 0, 0, 0, 0, additional @ (0 | 1)] = header[4..] else {
            return None;
        };
        if header[2] & 0xf8 != 0 {
            return None;
        }
        let length = read_name(body, name)?;
        let (question, rest) = body.split_at_checked(length + 4)?;
        let record_type = match question[length..] {
            [0, 1, 0, 1] => RecordType::A,
            [0, 28, 0, 1] => RecordType::AAAA,
            _ => return None,
        };
        let (edns, limit) = match (additional, rest) {
            (0, []) => (None, MIN_DATAGRAM),
            // The root's name, type, payload, extended code, version, flags, and no option.
            (1, &[0, 0, OPT, high, low, 0, 0, flags, 0, 0, 0]) if flags & !DNSSEC_OK == 0 => {
                let payload = u16::from_be_bytes([high, low]);
                (Some(flags & DNSSEC_OK != 0), payload.clamp(MIN_DATAGRAM, MAX_DATAGRAM))
            }
            _ => return None,
        };
        Some(Self {
            header,
            question,
            record_type,
            limit: limit.into(),
            edns,
        })
    }

    /// Writes the answer. False: it does not fit into what the client takes.
    #[must_use]
    pub(super) fn answer(&self, addresses: &[IpAddr], ttl: u32, reply: &mut Vec<u8>) -> bool {
        let (kind, size) = match self.record_type {
            RecordType::A => (1, 4),
            _ => (28, 16),
        };
        let opt = if self.edns.is_some() { 1 + FIXED } else { 0 };
        let records = addresses.len() * (SAME_NAME.len() + FIXED + size);
        if HEADER + self.question.len() + records + opt > self.limit {
            return false;
        }
        reply.clear();
        reply.extend_from_slice(&self.header[..2]);
        // An authoritative response that can be had with recursion; what the client said about RD and CD.
        reply.extend([0x84 | self.header[2] & 1, 0x80 | self.header[3] & 0x10]);
        reply.extend([0, 1]);
        reply.extend((addresses.len() as u16).to_be_bytes());
        reply.extend([0, 0, 0, u8::from(opt > 0)]);
        reply.extend_from_slice(self.question);
        for address in addresses {
            reply.extend(SAME_NAME);
            reply.extend([0, kind, 0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend([0, size as u8]);
            match address {
                IpAddr::V4(address) => reply.extend(address.octets()),
                IpAddr::V6(address) => reply.extend(address.octets()),
            }
        }
        if let Some(dnssec_ok) = self.edns {
            let [high, low] = MAX_DATAGRAM.to_be_bytes();
            let flags = if dnssec_ok { DNSSEC_OK } else { 0 };
            reply.extend([0, 0, OPT, high, low, 0, 0, flags, 0, 0, 0]);
        }
        true
    }
}

/// The length in bytes of the name at the beginning; `None`: it is compressed, cut off, too long, the root, or has bytes that
/// no name of ours has.
fn read_name(bytes: &[u8], name: &mut String) -> Option<usize> {
    name.clear();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (!name.is_empty() && at <= 255).then_some(at);
        }
        if length > 63 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for &byte in bytes.get(at..at + length)? {
            if byte == b'.' || !byte.is_ascii_graphic() {
                return None;
            }
            name.push(byte.to_ascii_lowercase().into());
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::{Content, Parsed, Transport, parse};
    use super::*;

    /// What the long way says.
    fn long_way(bytes: &[u8], addresses: &[IpAddr]) -> Option<(String, Vec<u8>)> {
        let Parsed::Question(question) = parse(bytes, Transport::Udp) else {
            return None;
        };
        let content = match addresses {
            [] => Content::Empty,
            _ => Content::Addresses(addresses),
        };
        Some((question.name()?, question.reply(&content, 5).bytes))
    }

    fn check(bytes: &[u8], count: u8) -> Result<bool, TestCaseError> {
        let (mut name, mut reply) = (String::new(), vec![7; 3]);
        let Some(plain) = Plain::read(bytes, &mut name) else {
            return Ok(false);
        };
        let address = |n: u8| match plain.record_type {
            RecordType::A => IpAddr::from([10, 0, 0, n]),
            _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]),
        };
        let addresses: Vec<_> = (0..count).map(address).collect();
        let long = long_way(bytes, &addresses);
        if !plain.answer(&addresses, 5, &mut reply) {
            // Only what does not fit.
            prop_assert!(long.is_none_or(|(_, reply)| reply[2] & 0x02 != 0));
            return Ok(false);
        }
        prop_assert!(reply.len() <= plain.limit);
        prop_assert_eq!(Some((name, reply)), long);
        Ok(true)
    }

    fn question(labels: &[String], kind: u8, flags: [u8; 2], edns: Option<(u16, bool)>) -> Vec<u8> {
        let mut bytes = vec![
            0x12,
            0x34,
            flags[0],
            flags[1],
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(edns.is_some()),
        ];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, kind, 0, 1]);
        if let Some((payload, dnssec_ok)) = edns {
            let [high, low] = payload.to_be_bytes();
            bytes.extend([0, 0, OPT, high, low, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }

    #[test]
    fn usual_questions_go_the_short_way() {
        let labels = ["Web".to_owned(), "shop".to_owned()];
        for (kind, edns) in [
            (1, None),
            (28, None),
            (1, Some((1232, false))),
            (28, Some((4096, true))),
        ] {
            assert!(check(&question(&labels, kind, [1, 0], edns), 3).unwrap());
        }
        let mut name = String::new();
        assert!(Plain::read(&question(&labels, 1, [1, 0], None), &mut name).is_some());
        assert_eq!(name, "web.shop");
    }

    #[test]
    fn unusual_ones_do_not() {
        let labels = ["web".to_owned()];
        let mut name = String::new();
        let good = question(&labels, 1, [1, 0], None);
        // A pointer to itself, to the header, forwards; a name without an end; types and classes of others; a rest.
        for (at, bytes) in [
            (12, &[0xc0, 12][..]),
            (12, &[0xc0, 0]),
            (13, &[0xc0, 14]),
            (12, &[63]),
            (12, &[0x40]),
            (18, &[16]),
            (20, &[3]),
            (2, &[0x80]),
            (2, &[0x28]),
            (5, &[2]),
            (7, &[1]),
            (11, &[2]),
        ] {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Plain::read(&bad, &mut name), None, "{at} {bytes:?}");
        }
        assert_eq!(Plain::read(&[&good[..], &[0]].concat(), &mut name), None);
        assert_eq!(Plain::read(&question(&[], 1, [1, 0], None), &mut name), None);
        for cut in 0..good.len() {
            assert_eq!(Plain::read(&good[..cut], &mut name), None);
        }
    }

    proptest! {
        #[test]
        fn the_short_way_says_what_the_long_way_says(
            labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,63}", 1..6), kind in prop::sample::select(vec![1u8, 28]),
            flags in (0u8..8, any::<u8>()), edns in prop::option::of((any::<u16>(), any::<bool>())), count in 0u8..60,
        ) {
            check(&question(&labels, kind, [flags.0, flags.1], edns), count)?;
        }

        #[test]
        fn whatever_comes(
            bytes in proptest::collection::vec(any::<u8>(), 0..80), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            check(&bytes, 1)?;
            let mut usual = question(&["web".to_owned(), "shop".to_owned()], 1, [1, 0], Some((1232, false)));
            for (at, byte) in damage {
                let at = at.index(usual.len());
                usual[at] = byte;
            }
            check(&usual, 1)?;
        }
    }
}
