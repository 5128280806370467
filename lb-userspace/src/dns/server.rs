//! From a client's bytes to the answer's: asks the zone, forwards what is not ours, refuses what is not allowed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use rand::seq::SliceRandom;

use super::counters::{DnsCounters, Source};
use super::message::{self, Content, Parsed, Question, Reply, Transport};
use super::quick::Plain;
use super::upstream::Upstreams;
use super::zone::{Answer, Zone};
use crate::net::limits::{Limit, Permit};

/// All that the listeners share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) zone: Arc<ArcSwap<Zone>>,
    pub(super) counters: Arc<DnsCounters>,
    pub(super) upstreams: Upstreams,
    /// Answers live this many seconds.
    pub(super) ttl: u32,
    /// Who may have names forwarded, beside the cluster's own nodes and workloads.
    pub(super) forward_for: Vec<IpNet>,
    /// Upstreams on other machines: a question from one of them is never forwarded back.
    pub(super) loops: Vec<IpAddr>,
    pub(super) forwards: Arc<Limit>,
    pub(super) connections: Arc<Limit>,
}

/// What to do with a client's bytes.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Nothing.
    Ignore,
    /// Send this.
    Reply(Pending),
    /// Ask the upstreams, then send.
    Forward(Forward),
}

/// An answer that is counted when it is sent.
#[derive(Debug)]
pub(super) struct Pending {
    reply: Reply,
    source: Source,
    record_type: Option<RecordType>,
    since: Instant,
}

/// A question that waits for an upstream.
#[derive(Debug)]
pub(super) struct Forward {
    question: Question,
    /// The name is ours, only the type is not: NXDOMAIN would be a lie.
    known: bool,
    since: Instant,
    _permit: Permit,
}

/// What the short way works in; kept, so that it allocates little.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    name: String,
    reply: Vec<u8>,
}

impl Server {
    /// The answer to a usual question for a name of ours, without I/O. `None`: it goes the long way ([`Server::react`]).
    pub(super) fn quick<'a>(&self, client: SocketAddr, bytes: &[u8], scratch: &'a mut Scratch) -> Option<&'a [u8]> {
        let since = Instant::now();
        let plain = Plain::read(bytes, &mut scratch.name)?;
        let zone = self.zone.load();
        let addresses = match zone.lookup(client.ip().to_canonical(), &scratch.name, plain.record_type) {
            Answer::Addresses(mut addresses) => {
                addresses.shuffle(&mut rand::rng());
                addresses
            }
            Answer::Empty => Vec::new(),
            Answer::Pointers(_) | Answer::OtherType | Answer::Unknown => return None,
        };
        if !plain.answer(&addresses, self.ttl, &mut scratch.reply) {
            return None;
        }
        self.counters.answered(
            Source::Local,
            Some(plain.record_type),
            ResponseCode::NoError,
            since.elapsed(),
        );
        Some(&scratch.reply)
    }

    /// Decides at once, without I/O.
    pub(super) fn react(&self, client: SocketAddr, bytes: &[u8], transport: Transport) -> Reaction {
        let since = Instant::now();
        let question = match message::parse(bytes, transport) {
            Parsed::Ignore => {
                self.counters.ignored.fetch_add(1, Relaxed);
                return Reaction::Ignore;
            }
            Parsed::Error(reply) => {
                return Reaction::Reply(Pending {
                    reply,
                    source: Source::Local,
                    record_type: None,
                    since,
                });
            }
            Parsed::Question(question) => question,
        };
        let record_type = question.record_type();
        let local = |content: &Content<'_>| {
            let reply = question.reply(content, self.ttl);
            Reaction::Reply(Pending {
                reply,
                source: Source::Local,
                record_type: Some(record_type),
                since,
            })
        };
        let address = client.ip().to_canonical();
        let zone = self.zone.load();
        let answer = match question.name() {
            Some(name) => zone.lookup(address, &name, record_type),
            None => Answer::Unknown,
        };
        let known = match answer {
            Answer::Addresses(mut addresses) => {
                addresses.shuffle(&mut rand::rng());
                return local(&Content::Addresses(&addresses));
            }
            Answer::Pointers(targets) => return local(&Content::Pointers(&targets)),
            Answer::Empty => return local(&Content::Empty),
            Answer::OtherType => true,
            Answer::Unknown => false,
        };
        if !self.forwards_for(&zone, address) {
            return local(&Content::Error(ResponseCode::Refused));
        }
        match self.forwards.take(address) {
            Some(permit) => Reaction::Forward(Forward {
                question: *question,
                known,
                since,
                _permit: permit,
            }),
            None => {
                self.counters.limited.fetch_add(1, Relaxed);
                local(&Content::Error(ResponseCode::Refused))
            }
        }
    }

    /// Asks the upstreams.
    pub(super) async fn forward(&self, forward: Forward) -> Pending {
        let Forward {
            question,
            known,
            since,
            _permit,
        } = forward;
        let (reply, source) = match self.upstreams.ask(&question, &self.counters).await {
            Some((_, ResponseCode::NXDomain)) if known => (question.reply(&Content::Empty, self.ttl), Source::Local),
            Some((reply, _)) => (reply, Source::Upstream),
            None if known => (question.reply(&Content::Empty, self.ttl), Source::Local),
            None => (
                question.reply(&Content::Error(ResponseCode::ServFail), 0),
                Source::Local,
            ),
        };
        Pending {
            reply,
            source,
            record_type: Some(question.record_type()),
            since,
        }
    }

    /// Counts an answer as it leaves.
    pub(super) fn sent(&self, pending: &Pending) {
        self.counters.answered(
            pending.source,
            pending.record_type,
            pending.reply.rcode,
            pending.since.elapsed(),
        );
        if pending.reply.truncated {
            self.counters.truncated.fetch_add(1, Relaxed);
        }
    }

    /// Not an open resolver: strangers get no forwarding, and neither do the upstreams themselves.
    fn forwards_for(&self, zone: &Zone, client: IpAddr) -> bool {
        !self.loops.contains(&client)
            && (self.forward_for.iter().any(|net| net.contains(&client)) || zone.serves(client))
    }
}

impl Pending {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.reply.bytes
    }
}
