//! Bytes in, bytes out: whatever comes in.

use proptest::prelude::*;

use super::*;

fn question(name: &str, record_type: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wire_name(name).unwrap(), record_type));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(true);
        message.edns = Some(edns);
    }
    message.to_vec().unwrap()
}

fn parsed(bytes: &[u8], transport: Transport) -> Question {
    match parse(bytes, transport) {
        Parsed::Question(question) => *question,
        other => panic!("{other:?}"),
    }
}

fn rcode(bytes: &[u8]) -> ResponseCode {
    match parse(bytes, Transport::Udp) {
        Parsed::Error(reply) => {
            assert_eq!(Message::from_vec(&reply.bytes).unwrap().metadata.id, 0x1234);
            reply.rcode
        }
        other => panic!("{other:?}"),
    }
}

fn addresses(count: u32) -> Vec<IpAddr> {
    (0..count)
        .map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()))
        .collect()
}

#[test]
fn an_answer_repeats_the_question_and_carries_the_records() {
    let question = parsed(&question("WeB.front", RecordType::A, Some(4096)), Transport::Udp);
    assert_eq!(question.name().as_deref(), Some("web.front"));
    let reply = question.reply(&Content::Addresses(&addresses(2)), 5);
    let message = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(message.metadata.id, 0x1234);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert!(message.metadata.recursion_desired && !message.metadata.truncation);
    assert_eq!(message.queries[0].name().to_ascii(), "WeB.front.", "case is kept");
    assert_eq!(message.answers.len(), 2);
    assert!(
        message
            .answers
            .iter()
            .all(|record| record.ttl == 5 && record.name == *message.queries[0].name())
    );
    let edns = message.edns.unwrap();
    assert_eq!(
        (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
        (MAX_DATAGRAM, 0, true)
    );
}

#[test]
fn without_edns_in_the_question_there_is_none_in_the_answer() {
    let question = parsed(&question("web", RecordType::A, None), Transport::Udp);
    for content in [Content::Empty, Content::Error(ResponseCode::ServFail)] {
        assert!(
            Message::from_vec(&question.reply(&content, 5).bytes)
                .unwrap()
                .edns
                .is_none()
        );
    }
}

#[test]
fn errors_have_their_codes() {
    let good = question("web", RecordType::A, None);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    assert_eq!(rcode(&with(|b| b[2] |= 0x10)), ResponseCode::NotImp, "opcode STATUS");
    assert_eq!(rcode(&with(|b| b[2] |= 0x28)), ResponseCode::NotImp, "opcode UPDATE");
    assert_eq!(
        rcode(&with(|b| b[5] = 2)),
        ResponseCode::FormErr,
        "two questions announced, one there"
    );
    assert_eq!(rcode(&with(|b| b[5] = 0)), ResponseCode::FormErr, "no question");
    assert_eq!(rcode(&with(|b| b.truncate(15))), ResponseCode::FormErr, "cut");
    assert_eq!(
        rcode(&with(|b| b[12] = 0xc0)),
        ResponseCode::FormErr,
        "a pointer into itself"
    );
    assert_eq!(
        rcode(&with(|b| *b.last_mut().unwrap() = 3)),
        ResponseCode::Refused,
        "class CHAOS"
    );
    let mut message = Message::from_vec(&good).unwrap();
    message.add_query(message.queries[0].clone());
    assert_eq!(
        rcode(&message.to_vec().unwrap()),
        ResponseCode::FormErr,
        "two questions"
    );
    let mut message = Message::from_vec(&good).unwrap();
    let mut edns = Edns::new();
    edns.set_version(1);
    message.edns = Some(edns);
    let Parsed::Error(reply) = parse(&message.to_vec().unwrap(), Transport::Udp) else {
        panic!("EDNS version 1")
    };
    let answer = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(answer.metadata.response_code.low(), ResponseCode::BADVERS.low());
    assert_eq!(answer.edns.unwrap().rcode_high(), ResponseCode::BADVERS.high());
}

#[test]
fn answers_and_scraps_are_ignored() {
    let mut answer = question("web", RecordType::A, None);
    answer[2] |= 0x80;
    assert!(matches!(parse(&answer, Transport::Udp), Parsed::Ignore));
    assert!(matches!(parse(&answer[..11], Transport::Udp), Parsed::Ignore));
    assert!(matches!(parse(&[], Transport::Tcp), Parsed::Ignore));
}

#[test]
fn a_datagram_is_cut_to_what_the_client_takes_and_tcp_is_not() {
    let all = addresses(400);
    for (payload, limit) in [(None, 512), (Some(0), 512), (Some(900), 900), (Some(65_535), 1232)] {
        let question = parsed(&question("tasks.web", RecordType::A, payload), Transport::Udp);
        let reply = question.reply(&Content::Addresses(&all), 5);
        let message = Message::from_vec(&reply.bytes).unwrap();
        assert!(reply.truncated && message.metadata.truncation);
        assert!(
            reply.bytes.len() <= limit && reply.bytes.len() + 16 > limit,
            "{} of {limit}",
            reply.bytes.len()
        );
        assert_eq!(message.edns.is_some(), payload.is_some(), "EDNS stays");
        let fits: Vec<_> = message
            .answers
            .iter()
            .map(|record| record.data.ip_addr().unwrap())
            .collect();
        assert_eq!(fits, all[..fits.len()]);
    }
    let question = parsed(&question("tasks.web", RecordType::A, None), Transport::Tcp);
    let reply = question.reply(&Content::Addresses(&all), 5);
    assert_eq!(Message::from_vec(&reply.bytes).unwrap().answers.len(), 400);
    assert!(!reply.truncated);
}

#[test]
fn a_label_with_a_dot_or_a_control_byte_is_no_name_of_ours() {
    for label in [b"a.b".as_slice(), b"a\x01", b"a b", b"\xff"] {
        let name = Name::from_labels([label]).unwrap();
        assert_eq!(text(&name), None, "{label:?}");
    }
}

#[test]
fn only_the_question_goes_to_the_upstream() {
    let question = parsed(&question("Example.COM", RecordType::TXT, Some(4096)), Transport::Udp);
    let sent = Message::from_vec(&question.forward(77).unwrap()).unwrap();
    assert_eq!((sent.metadata.id, sent.metadata.recursion_desired), (77, true));
    assert_eq!(sent.queries[0].name().to_ascii(), "Example.COM.");
    assert_eq!(sent.edns.unwrap().max_payload(), MAX_DATAGRAM);
}

#[test]
fn an_upstreams_answer_must_fit_the_question() {
    let question = parsed(&question("example.com", RecordType::A, None), Transport::Udp);
    let answer = |id: u16, name: &str, rcode: ResponseCode| {
        let mut message = Message::response(id, OpCode::Query);
        message.metadata.response_code = rcode;
        message.add_query(Query::query(wire_name(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    };
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    assert_eq!(
        question.judge(77, &answer(77, "example.com", NoError)),
        Judgement::Answer(NoError)
    );
    assert_eq!(
        question.judge(77, &answer(77, "EXAMPLE.com", NXDomain)),
        Judgement::Answer(NXDomain)
    );
    assert_eq!(
        question.judge(77, &answer(77, "example.com", ServFail)),
        Judgement::Failed(ServFail)
    );
    assert_eq!(
        question.judge(77, &answer(78, "example.com", NoError)),
        Judgement::Foreign
    );
    assert_eq!(
        question.judge(77, &answer(77, "example.org", NoError)),
        Judgement::Foreign
    );
    assert_eq!(
        question.judge(77, &bare(77, OpCode::Query, Refused).bytes),
        Judgement::Failed(Refused)
    );
    assert_eq!(
        question.judge(77, &bare(77, OpCode::Query, NoError).bytes),
        Judgement::Foreign
    );
    assert_eq!(
        question.judge(77, &question.forward(77).unwrap()),
        Judgement::Foreign,
        "a question"
    );
    assert_eq!(question.judge(77, &[]), Judgement::Foreign);
}

#[test]
fn an_upstreams_answer_that_is_too_large_is_cut() {
    let question = parsed(&question("example.com", RecordType::A, None), Transport::Udp);
    let reply = question.relay(vec![0; 513], ResponseCode::NoError);
    let message = Message::from_vec(&reply.bytes).unwrap();
    assert!(reply.truncated && message.metadata.truncation && message.answers.is_empty());
    assert_eq!((message.metadata.id, message.queries.len()), (0x1234, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..600), tcp: bool) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        exercise(&bytes, transport);
    }

    #[test]
    fn no_damage_to_a_question_brings_it_down(
        at in 0usize..60,
        value: u8,
        cut in 0usize..60,
        tail in prop::collection::vec(any::<u8>(), 0..40),
        payload in prop::option::of(any::<u16>()),
    ) {
        let mut bytes = question("tasks.web.front", RecordType::A, payload);
        if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        exercise(&bytes, Transport::Udp);
        bytes.truncate(cut);
        bytes.extend(tail);
        exercise(&bytes, Transport::Udp);
    }
}

/// Whatever the bytes are, there is no panic, and what is answered is a well-formed answer that fits.
fn exercise(bytes: &[u8], transport: Transport) {
    let replies = match parse(bytes, transport) {
        Parsed::Ignore => vec![],
        Parsed::Error(reply) => vec![reply],
        Parsed::Question(question) => {
            question.judge(0, bytes);
            assert!(question.forward(1).is_some());
            let pointers = ["web.1.front".to_owned()];
            vec![
                question.reply(&Content::Addresses(&addresses(100)), 5),
                question.reply(&Content::Pointers(&pointers), 5),
                question.reply(&Content::Empty, 5),
                question.reply(&Content::Error(ResponseCode::ServFail), 0),
            ]
        }
    };
    for reply in replies {
        assert!(transport == Transport::Tcp || reply.bytes.len() <= usize::from(MAX_DATAGRAM));
        let message = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert_eq!(reply.bytes[..2], bytes[..2]);
    }
}
