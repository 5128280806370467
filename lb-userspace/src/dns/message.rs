//! Questions and answers as bytes: what a datagram asks, and the bytes of what is said to it. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Largest datagram that is sent and asked for: fits every path without fragments (DNS flag day 2020).
pub(super) const MAX_DATAGRAM: u16 = 1232;
/// Largest datagram that every client must take (RFC 1035).
pub(super) const MIN_DATAGRAM: u16 = 512;
/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;

/// How a question came, and its answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A well-formed question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    metadata: Metadata,
    query: Query,
    edns: Option<Edns>,
    transport: Transport,
}

/// What bytes from a client are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Not to be answered: no header, or an answer itself.
    Ignore,
    /// To be answered at once with an error.
    Error(Reply),
    /// A question.
    Question(Box<Question>),
}

/// An answer on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) rcode: ResponseCode,
    pub(super) truncated: bool,
}

/// What the server itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Addresses(&'a [IpAddr]),
    Pointers(&'a [String]),
    /// The name exists, without such a record.
    Empty,
    Error(ResponseCode),
}

/// Reads what a client sent.
pub(super) fn parse(bytes: &[u8], transport: Transport) -> Parsed {
    let Some(&[id_high, id_low, flags]) = bytes.get(..HEADER).and_then(|header| header.first_chunk()) else {
        return Parsed::Ignore;
    };
    if flags & 0x80 != 0 {
        return Parsed::Ignore;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    if op_code != OpCode::Query {
        return Parsed::Error(bare(id, op_code, ResponseCode::NotImp));
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return Parsed::Error(bare(id, op_code, ResponseCode::FormErr));
    };
    let [query] = message.queries.as_slice() else {
        return Parsed::Error(bare(id, op_code, ResponseCode::FormErr));
    };
    let question = Question {
        metadata: message.metadata,
        query: query.clone(),
        edns: message.edns,
        transport,
    };
    if question.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Parsed::Error(question.reply(&Content::Error(ResponseCode::BADVERS), 0));
    }
    if question.query.query_class() != DNSClass::IN {
        return Parsed::Error(question.reply(&Content::Error(ResponseCode::Refused), 0));
    }
    Parsed::Question(Box::new(question))
}

impl Question {
    /// What is asked for.
    pub(super) fn record_type(&self) -> RecordType {
        self.query.query_type()
    }

    pub(super) const fn transport(&self) -> Transport {
        self.transport
    }

    /// The name in text, if it can be one of ours.
    pub(super) fn name(&self) -> Option<String> {
        text(self.query.name())
    }

    /// Our own answer, cut to what the client takes. Records live `ttl` seconds.
    pub(super) fn reply(&self, content: &Content<'_>, ttl: u32) -> Reply {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.authoritative = !matches!(content, Content::Error(_));
        message.add_query(self.query.clone());
        message.edns = self.edns.as_ref().map(|asked| own_edns(asked.flags().dnssec_ok));
        let owner = self.query.name();
        let record = |data| Record::from_rdata(owner.clone(), ttl, data);
        match content {
            Content::Addresses(addresses) => {
                message.add_answers(addresses.iter().map(|address| {
                    record(match *address {
                        IpAddr::V4(address) => RData::A(A(address)),
                        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                    })
                }));
            }
            Content::Pointers(targets) => {
                let targets = targets.iter().filter_map(|target| wire_name(target));
                message.add_answers(targets.map(|target| record(RData::PTR(PTR(target)))));
            }
            Content::Empty => {}
            Content::Error(rcode) => message.metadata.response_code = *rcode,
        }
        self.encode(message)
    }

    /// The bytes to send to an upstream: this question alone, under another id.
    pub(super) fn forward(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.authentic_data = self.metadata.authentic_data;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.add_query(self.query.clone());
        // EDNS is between neighbours (RFC 6891 6.2.6): ours, not the client's, and no larger than it takes.
        message.edns = self.edns.as_ref().map(|asked| {
            let mut edns = own_edns(asked.flags().dnssec_ok);
            edns.set_max_payload(self.limit());
            edns
        });
        message.to_vec().ok()
    }

    /// What `bytes` from an upstream are to this question, which was sent under `id`.
    pub(super) fn judge(&self, id: u16, bytes: &[u8]) -> Judgement {
        let Some(&[id_high, id_low, flags, codes]) = bytes.get(..HEADER).and_then(|header| header.first_chunk()) else {
            return Judgement::Foreign;
        };
        if u16::from_be_bytes([id_high, id_low]) != id || flags & 0xf8 != 0x80 {
            return Judgement::Foreign;
        }
        let rcode = ResponseCode::from_low(codes & 0x0f);
        match u16::from_be_bytes([bytes[4], bytes[5]]) {
            // Some servers leave the question out of errors.
            0 if rcode != ResponseCode::NoError => return Judgement::Failed(rcode),
            1 => {}
            _ => return Judgement::Foreign,
        }
        match Query::read(&mut BinDecoder::new(bytes).clone(HEADER as u16)) {
            Ok(query) if query == self.query => {}
            _ => return Judgement::Foreign,
        }
        match rcode {
            ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::FormErr | ResponseCode::NotImp => {
                Judgement::Failed(rcode)
            }
            rcode => Judgement::Answer(rcode),
        }
    }

    /// An upstream's answer as the client gets it: under the client's own id, cut to what it takes.
    pub(super) fn relay(&self, mut bytes: Vec<u8>, rcode: ResponseCode) -> Reply {
        if bytes.len() > usize::from(self.limit()) {
            let mut message = Message::response(self.metadata.id, OpCode::Query);
            message.metadata = Metadata::response_from_request(&self.metadata);
            message.metadata.recursion_available = true;
            message.metadata.truncation = true;
            message.metadata.response_code = rcode;
            message.add_query(self.query.clone());
            message.edns = self.edns.as_ref().map(|asked| own_edns(asked.flags().dnssec_ok));
            return self.encode(message);
        }
        bytes[..2].copy_from_slice(&self.metadata.id.to_be_bytes());
        let truncated = bytes[2] & 0x02 != 0;
        Reply {
            bytes,
            rcode,
            truncated,
        }
    }

    /// Largest answer that the client takes.
    fn limit(&self) -> u16 {
        match (self.transport, &self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(MIN_DATAGRAM, MAX_DATAGRAM),
            (Transport::Udp, None) => MIN_DATAGRAM,
        }
    }

    /// As many of the records as fit: a client that cannot ask again by TCP still learns some.
    fn encode(&self, mut message: Message) -> Reply {
        let (rcode, limit) = (message.metadata.response_code, usize::from(self.limit()));
        let all = std::mem::take(&mut message.answers);
        let mut attempt = |count: usize| {
            message.answers = all[..count].to_vec();
            message.metadata.truncation |= count < all.len();
            message.to_vec().ok().filter(|bytes| bytes.len() <= limit || count == 0)
        };
        let bytes = attempt(all.len()).or_else(|| {
            let (mut fits, mut too_many) = (0, all.len());
            while too_many > fits + 1 {
                let middle = fits.midpoint(too_many);
                if attempt(middle).is_some() {
                    fits = middle;
                } else {
                    too_many = middle;
                }
            }
            attempt(fits)
        });
        match bytes {
            Some(bytes) => Reply {
                truncated: bytes[2] & 0x02 != 0,
                bytes,
                rcode,
            },
            None => bare(self.metadata.id, OpCode::Query, ResponseCode::ServFail),
        }
    }
}

/// What an upstream's bytes are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Not an answer to this question; whoever sent it, the true one may still come.
    Foreign,
    /// The upstream could not answer; another may.
    Failed(ResponseCode),
    /// The answer.
    Answer(ResponseCode),
}

/// The name of which `text` is the dotted form; none if it has no wire form.
pub(super) fn wire_name(text: &str) -> Option<Name> {
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Dotted lower-case form; none if a label has a dot or an unprintable byte, which no name of ours has.
fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if label.iter().any(|&byte| byte == b'.' || !byte.is_ascii_graphic()) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| byte.to_ascii_lowercase() as char));
    }
    Some(text)
}

fn own_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM).set_dnssec_ok(dnssec_ok);
    edns
}

/// A header alone: the question could not be read.
fn bare(id: u16, op_code: OpCode, rcode: ResponseCode) -> Reply {
    let message = Message::error_msg(id, op_code, rcode);
    // Without names there is nothing that could fail to encode; an empty reply is never sent.
    Reply {
        bytes: message.to_vec().unwrap_or_default(),
        rcode,
        truncated: false,
    }
}

#[cfg(test)]
mod tests;
