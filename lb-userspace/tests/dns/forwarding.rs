//! Other names, which upstreams know.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, RecordType};
use lb_userspace::dns::counters::Source;
use tokio::net::UdpSocket;

use crate::scene::{ONE, OUTSIDE, addresses, ask, ask_tcp, rcode, start};
use crate::upstream::{bytes, outer, outer_with, upstream};

#[tokio::test]
async fn unknown_names_are_forwarded_over_the_questions_transport() {
    let (at, seen) = upstream(|question| bytes(&outer(question))).await;
    let dns = start(|settings| settings.upstreams = vec![at]).await;
    assert_eq!(
        addresses(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ["203.0.113.7"]
    );
    assert_eq!(
        addresses(&ask_tcp(ONE, dns.at, "example.com", RecordType::A).await),
        ["203.0.113.7"]
    );
    assert_eq!(
        seen.lock().unwrap().iter().map(|seen| seen.tcp).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(dns.counters.count(Source::Upstream, "noerror"), 2);
    assert_eq!(dns.handle.forwarding(), 0);
}

#[tokio::test]
async fn a_truncated_upstream_answer_is_passed_on() {
    let (at, _) = upstream(|question| {
        let mut message = outer(question);
        message.metadata.truncation = true;
        bytes(&message)
    })
    .await;
    let dns = start(|settings| settings.upstreams = vec![at]).await;
    assert!(ask(ONE, dns.at, "example.com", RecordType::A).await.metadata.truncation);
}

#[tokio::test]
async fn nxdomain_is_the_upstreams_word() {
    let (at, _) = upstream(|question| bytes(&outer_with(question, ResponseCode::NXDomain))).await;
    let dns = start(|settings| settings.upstreams = vec![at]).await;
    assert_eq!(
        rcode(&ask(ONE, dns.at, "nope.example", RecordType::A).await),
        ResponseCode::NXDomain
    );
    // A name of ours exists, whatever the outside world knows of it.
    assert_eq!(
        rcode(&ask(ONE, dns.at, "web", RecordType::TXT).await),
        ResponseCode::NoError
    );
    assert_eq!(
        rcode(&ask(ONE, dns.at, "web", RecordType::HTTPS).await),
        ResponseCode::NoError
    );
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_fails() {
    let (good, seen) = upstream(|question| bytes(&outer(question))).await;
    let (silent, silent_seen) = upstream(|_| Vec::new()).await;
    let (failing, _) = upstream(|question| bytes(&outer_with(question, ResponseCode::ServFail))).await;
    let (refusing, _) = upstream(|question| bytes(&outer_with(question, ResponseCode::Refused))).await;
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dns = start(|settings| settings.upstreams = vec![closed, silent, failing, refusing, good]).await;
    assert_eq!(
        addresses(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ["203.0.113.7"]
    );
    assert_eq!(
        addresses(&ask_tcp(ONE, dns.at, "example.com", RecordType::A).await),
        ["203.0.113.7"]
    );
    assert_eq!((silent_seen.lock().unwrap().len(), seen.lock().unwrap().len()), (2, 2));
    assert_eq!(dns.counters.upstream_failures.load(Relaxed), 8);
}

#[tokio::test]
async fn servfail_when_no_upstream_answers_or_there_is_none() {
    let (silent, _) = upstream(|_| Vec::new()).await;
    let dns = start(|settings| settings.upstreams = vec![silent]).await;
    assert_eq!(
        rcode(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ResponseCode::ServFail
    );
    assert_eq!(
        rcode(&ask(ONE, dns.at, "web", RecordType::TXT).await),
        ResponseCode::NoError
    );
    let dns = start(|_| {}).await;
    assert_eq!(
        rcode(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ResponseCode::ServFail
    );
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let (at, _) = upstream(|question| {
        let forged = |change: &dyn Fn(&mut Message)| {
            let mut message = outer(question);
            message.answers[0].data = RData::A(A([6, 6, 6, 6].into()));
            change(&mut message);
            message.to_vec().unwrap()
        };
        vec![
            forged(&|message| message.metadata.id ^= 1),
            forged(&|message| {
                message.queries[0].set_name(Name::from_ascii("evil.example.").unwrap());
            }),
            forged(&|message| message.metadata.message_type = MessageType::Query),
            vec![0; 5],
            outer(question).to_vec().unwrap(),
        ]
    })
    .await;
    let dns = start(|settings| settings.upstreams = vec![at]).await;
    assert_eq!(
        addresses(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ["203.0.113.7"]
    );
}

#[tokio::test]
async fn every_forwarded_question_has_a_fresh_port_and_id() {
    let (at, seen) = upstream(|question| bytes(&outer(question))).await;
    let dns = start(|settings| settings.upstreams = vec![at]).await;
    for _ in 0..64 {
        ask(ONE, dns.at, "example.com", RecordType::A).await;
    }
    let seen = seen.lock().unwrap().clone();
    let ports: HashSet<_> = seen.iter().map(|seen| seen.from.port()).collect();
    let ids: HashSet<_> = seen.iter().map(|seen| seen.id).collect();
    assert_eq!(seen.len(), 64);
    // Of 64 draws from some 28,000 ports and 65,536 ids a few may coincide by chance; in sequence none would be far.
    assert!(
        ports.len() > 56 && ids.len() > 56,
        "{} ports, {} ids",
        ports.len(),
        ids.len()
    );
    let spread = |values: &HashSet<u16>| values.iter().max().unwrap() - values.iter().min().unwrap();
    assert!(spread(&ports) > 5_000 && spread(&ids) > 20_000, "{ports:?} {ids:?}");
}

#[tokio::test]
async fn strangers_get_names_but_no_forwarding() {
    let (at, seen) = upstream(|question| bytes(&outer(question))).await;
    let dns = start(|settings| {
        settings.upstreams = vec![at];
        settings.forward_for = Vec::new();
    })
    .await;
    assert_eq!(
        rcode(&ask(OUTSIDE, dns.at, "example.com", RecordType::A).await),
        ResponseCode::Refused
    );
    assert_eq!(
        addresses(&ask(OUTSIDE, dns.at, "web.one", RecordType::A).await),
        ["127.1.0.100"]
    );
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(
        rcode(&ask(ONE, dns.at, "example.com", RecordType::A).await),
        ResponseCode::NoError
    );
}

#[tokio::test]
async fn one_client_cannot_have_everything_forwarded() {
    let (silent, _) = upstream(|_| Vec::new()).await;
    let dns = start(|settings| {
        settings.upstreams = vec![silent];
        settings.upstream_timeout = Duration::from_secs(3);
        settings.max_forwards = 4;
    })
    .await;
    let first = tokio::spawn(async move { ask(ONE, dns.at, "slow.example", RecordType::A).await });
    while dns.handle.forwarding() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        rcode(&ask(ONE, dns.at, "other.example", RecordType::A).await),
        ResponseCode::Refused
    );
    assert_eq!(
        addresses(&ask(ONE, dns.at, "web", RecordType::A).await),
        ["127.1.0.100"],
        "own names go on"
    );
    assert_eq!(dns.counters.limited.load(Relaxed), 1);
    assert_eq!(rcode(&first.await.unwrap()), ResponseCode::ServFail);
    assert_eq!(dns.handle.forwarding(), 0);
}
