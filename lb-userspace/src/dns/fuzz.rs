//! What holds whatever bytes clients and upstreams send: for the fuzz targets of `tests/fuzz`, which see no private parts.

use std::net::IpAddr;
use std::sync::LazyLock;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType, rdata};

use super::Zone;
use super::message::{Content, Judgement, MAX_DATAGRAM, Parsed, Question, Transport, parse, wire_name};

/// Id of questions and answers.
const ID: u16 = 0x1234;
/// Id under which a question was sent to an upstream.
const SENT: u16 = 0x4321;
const NAMES: [&str; 4] = ["web", "tasks.web.shop", "2.0.1.10.in-addr.arpa", "example.com"];
const TYPES: [RecordType; 4] = [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::HTTPS];

const CLUSTER: &str = r#"{"generation": 1, "nodes": [],
    "networks": [{"name": "shop", "id": 7, "subnets": ["10.1.0.0/24", "fd01::/64"], "encrypted": false}],
    "services": [{"name": "web", "network": "shop", "mode": "vip", "vips": ["10.1.0.2"], "aliases": [], "ports": [],
        "tcp_timeout": null, "udp_timeout": null,
        "backends": [{"name": "web.1", "node": "a", "addresses": ["10.1.0.3", "fd01::3"], "port": null, "state": "ready",
            "weight": 1}]}]}"#;

static ZONE: LazyLock<Zone> = LazyLock::new(|| Zone::compile(&serde_json::from_str(CLUSTER).expect("a snapshot")));

/// Bytes from a client: everything that may be said to them.
///
/// # Panics
/// If an answer is not one to this question, or longer than the client takes.
pub fn question(bytes: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        match parse(bytes, transport) {
            Parsed::Ignore => {}
            Parsed::Error(reply) => is_an_answer(bytes, &reply.bytes),
            Parsed::Question(question) => every_answer(bytes, &question),
        }
    }
}

fn every_answer(bytes: &[u8], question: &Question) {
    let client = IpAddr::from([10, 1, 0, 9]);
    if let Some(name) = question.name() {
        assert!(name.len() <= 255 && name.is_ascii(), "{name:?}");
        ZONE.lookup(client, &name, question.record_type());
    }
    let addresses: Vec<IpAddr> = (0..200u32)
        .map(|n| IpAddr::from((0x0a01_0000 + n).to_be_bytes()))
        .collect();
    let pointers: Vec<String> = (0..60).map(|n| format!("web.{n}.{}.shop", "x".repeat(60))).collect();
    let contents = [
        Content::Empty,
        Content::Error(ResponseCode::ServFail),
        Content::Addresses(&addresses),
        Content::Pointers(&pointers),
    ];
    let asked = Message::from_vec(bytes).expect("what was read as a question");
    for content in contents {
        let reply = question.reply(&content, 5);
        is_an_answer(bytes, &reply.bytes);
        let limit = match (question.transport(), &asked.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => 512,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(512, MAX_DATAGRAM)),
        };
        assert!(reply.bytes.len() <= limit, "{} bytes for {limit}", reply.bytes.len());
        let said = Message::from_vec(&reply.bytes).expect("an answer that can be read");
        assert_eq!(said.queries, asked.queries);
        assert_eq!(said.edns.is_some(), asked.edns.is_some());
        assert_eq!(said.metadata.truncation, reply.truncated);
    }
    let forwarded = question.forward(SENT).expect("a question that can be sent on");
    assert_eq!(
        question.judge(SENT, &forwarded),
        Judgement::Foreign,
        "a question is no answer"
    );
    assert!(matches!(parse(&forwarded, Transport::Udp), Parsed::Question(_)));
}

/// To be answered with an answer: the same id, and never another question, which two servers would send for ever.
fn is_an_answer(question: &[u8], answer: &[u8]) {
    assert!(answer.len() >= 12, "no header");
    assert_eq!(answer[..2], question[..2], "id");
    assert_eq!(answer[2] & 0x80, 0x80, "not an answer");
}

/// Bytes from an upstream to each of a few questions, under the id that was sent.
///
/// # Panics
/// If what is relayed is longer than the client takes, or not under its id.
pub fn answer(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for asked in questions() {
        let Parsed::Question(question) = parse(&asked, Transport::Udp) else {
            panic!("no question");
        };
        if let Some(id) = bytes.first_chunk_mut() {
            *id = SENT.to_be_bytes();
        }
        if let Judgement::Answer(rcode) = question.judge(SENT, &bytes) {
            let reply = question.relay(bytes.clone(), rcode);
            is_an_answer(&asked, &reply.bytes);
            assert!(reply.bytes.len() <= usize::from(MAX_DATAGRAM));
        }
    }
}

/// Well-formed questions.
pub fn questions() -> Vec<Vec<u8>> {
    let forms = NAMES
        .iter()
        .flat_map(|name| TYPES.map(|record_type| (name, record_type)));
    let bytes = forms
        .zip([None, Some(512), Some(4096)].into_iter().cycle())
        .map(|((name, record_type), payload)| {
            let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(query(name, record_type));
            message.edns = payload.map(|payload| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload).set_dnssec_ok(true);
                edns
            });
            message.to_vec().expect("a message")
        });
    bytes.collect()
}

/// An upstream's answers to some of them.
pub fn answers() -> Vec<Vec<u8>> {
    let forms = [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail];
    let bytes = forms.iter().zip([1, 0, 90]).map(|(rcode, count)| {
        let mut message = Message::response(SENT, OpCode::Query);
        message.metadata.response_code = *rcode;
        let query = query(NAMES[3], RecordType::A);
        let data = RData::A(rdata::A([192, 0, 2, 1].into()));
        let record = Record::from_rdata(query.name().clone(), 60, data);
        message.add_query(query);
        message.add_answers(std::iter::repeat_n(record, count));
        message.to_vec().expect("a message")
    });
    bytes.collect()
}

fn query(name: &str, record_type: RecordType) -> Query {
    Query::query(wire_name(name).expect("a name"), record_type)
}
