//! Names of services.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::RecordType;
use lb_userspace::dns::Zone;
use lb_userspace::dns::counters::Source;

use crate::scene::{ONE, OUTSIDE, TWO, addresses, ask, ask_tcp, exchange_udp, query, rcode, snapshot, start};

#[tokio::test]
async fn each_network_has_its_own_names_by_udp_and_tcp() {
    let dns = start(|_| {}).await;
    for (from, name, record_type, expected) in [
        (ONE, "web", RecordType::A, vec!["127.1.0.100"]),
        (TWO, "WEB", RecordType::A, vec!["127.2.0.100"]),
        (OUTSIDE, "web.two", RecordType::A, vec!["127.2.0.100"]),
        (ONE, "web.2", RecordType::A, vec!["127.1.1.2"]),
        (ONE, "web", RecordType::AAAA, vec![]),
        (ONE, "web", RecordType::MX, vec![]),
    ] {
        for answer in [
            ask(from, dns.at, name, record_type).await,
            ask_tcp(from, dns.at, name, record_type).await,
        ] {
            assert_eq!(
                (rcode(&answer), addresses(&answer)),
                (ResponseCode::NoError, expected.iter().map(|a| a.to_string()).collect()),
                "{from} {name}"
            );
            assert!(answer.answers.iter().all(|record| record.ttl == 5));
        }
    }
    let pointer = ask(ONE, dns.at, "2.1.1.127.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(pointer.answers[0].data.to_string(), "web.2.one.");
    assert_eq!(
        rcode(&ask(TWO, dns.at, "web.one", RecordType::A).await),
        ResponseCode::ServFail,
        "not visible, not forwarded"
    );
    assert_eq!(dns.counters.count(Source::Local, "noerror"), 13);
    assert_eq!(dns.counters.count(Source::Local, "servfail"), 1);
    assert_eq!(dns.counters.latency(Source::Local).count, 14);
}

#[tokio::test]
async fn a_new_zone_answers_at_once() {
    let dns = start(|_| {}).await;
    let mut snapshot = snapshot();
    snapshot.services[0].vips = vec!["127.1.0.200".parse().unwrap()];
    dns.zone.store(Arc::new(Zone::compile(&snapshot)));
    assert_eq!(
        addresses(&ask(ONE, dns.at, "web", RecordType::A).await),
        ["127.1.0.200"]
    );
}

#[tokio::test]
async fn addresses_are_shuffled() {
    let dns = start(|_| {}).await;
    let mut first = HashSet::new();
    for _ in 0..200 {
        let answer = addresses(&ask(ONE, dns.at, "rr", RecordType::A).await);
        assert_eq!(answer.iter().collect::<HashSet<_>>().len(), 4);
        first.insert(answer[0].clone());
    }
    // 200 fair draws miss one of four with a probability of 4 * 0.75^200.
    assert_eq!(first.len(), 4);
}

#[tokio::test]
async fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    let dns = start(|_| {}).await;
    let short = ask(ONE, dns.at, "many", RecordType::A).await;
    assert!(short.metadata.truncation && short.answers.len() < 31 && !short.answers.is_empty());
    let mut large = query("many", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.edns = Some(edns);
    let large = exchange_udp(ONE, dns.at, &large).await;
    assert!(large.metadata.truncation && large.answers.len() > short.answers.len());
    let whole = ask_tcp(ONE, dns.at, "many", RecordType::A).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).iter().collect::<HashSet<_>>().len(), 120);
    assert_eq!(dns.counters.truncated.load(Relaxed), 2);
}
