//! The DNS server over real sockets on loopback: clients in several networks, upstreams that behave and misbehave.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lb_userspace::dns::counters::Source;
use lb_userspace::dns::{self, DnsCounters, DnsError, DnsHandle, DnsSettings, Zone};
use lb_userspace::model::snapshot::{Backend, BackendState, EndpointMode, Network, Service, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A client in network `one`, whose subnet is 127.1.0.0/16.
const ONE: &str = "127.1.0.9";
/// A client in network `two`, whose subnet is 127.2.0.0/16.
const TWO: &str = "127.2.0.9";
/// A client in no network.
const OUTSIDE: &str = "127.9.0.9";
/// What the upstreams say.
const OUTER: [u8; 4] = [203, 0, 113, 7];

fn service(network: &str, name: &str, vip: Option<&str>, backends: u8, [a, b, c]: [u8; 3]) -> Service {
    Service {
        name: name.into(),
        network: network.into(),
        mode: if vip.is_some() {
            EndpointMode::Vip
        } else {
            EndpointMode::Dnsrr
        },
        vips: vip.iter().map(|vip| vip.parse().unwrap()).collect(),
        aliases: Vec::new(),
        ports: Vec::new(),
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: (1..=backends)
            .map(|n| Backend {
                name: format!("{name}.{n}"),
                node: "n".into(),
                addresses: vec![IpAddr::from([a, b, c, n])],
                port: None,
                state: BackendState::Ready,
                weight: 1,
                pending: false,
                aliases: Vec::new(),
            })
            .collect(),
    }
}

fn snapshot() -> Snapshot {
    let network = |name: &str, id, subnet: &str| Network {
        name: name.into(),
        id,
        subnets: vec![subnet.parse().unwrap()],
        encrypted: false,
        overlay: false,
        ingress: false,
    };
    Snapshot {
        generation: 1,
        nodes: Vec::new(),
        networks: vec![network("one", 1, "127.1.0.0/16"), network("two", 2, "127.2.0.0/16")],
        services: vec![
            service("one", "web", Some("127.1.0.100"), 2, [127, 1, 1]),
            service("one", "rr", None, 4, [127, 1, 2]),
            service("one", "many", None, 120, [127, 1, 3]),
            service("two", "web", Some("127.2.0.100"), 1, [127, 2, 1]),
        ]
        .into(),
    }
}

struct Running {
    handle: DnsHandle,
    zone: Arc<ArcSwap<Zone>>,
    counters: Arc<DnsCounters>,
    at: SocketAddr,
}

async fn start(change: impl FnOnce(&mut DnsSettings)) -> Running {
    let mut settings = DnsSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstream_timeout: Duration::from_millis(300),
        ..DnsSettings::default()
    };
    change(&mut settings);
    let zone = Arc::new(ArcSwap::from_pointee(Zone::compile(&snapshot())));
    let counters = Arc::new(DnsCounters::default());
    let handle = dns::start(settings, zone.clone(), counters.clone(), CancellationToken::new())
        .await
        .unwrap();
    let at = handle.addresses()[0];
    Running {
        handle,
        zone,
        counters,
        at,
    }
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), record_type));
    message
}

async fn exchange_udp(from: &str, at: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer))
        .await
        .expect("an answer")
        .unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

async fn ask(from: &str, at: SocketAddr, name: &str, record_type: RecordType) -> Message {
    exchange_udp(from, at, &query(name, record_type)).await
}

async fn connect(from: &str, at: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    socket.connect(at).await.unwrap()
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [(bytes.len() as u16).to_be_bytes().as_slice(), &bytes].concat()
}

async fn read_framed(stream: &mut TcpStream) -> Message {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(Duration::from_secs(5), read).await.expect("an answer")
}

async fn ask_tcp(from: &str, at: SocketAddr, name: &str, record_type: RecordType) -> Message {
    let mut stream = connect(from, at).await;
    stream.write_all(&framed(&query(name, record_type))).await.unwrap();
    read_framed(&mut stream).await
}

fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.ip_addr().unwrap().to_string())
        .collect()
}

fn rcode(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// What an upstream saw of one question.
#[derive(Clone, Debug)]
struct Seen {
    tcp: bool,
    from: SocketAddr,
    id: u16,
}

/// An upstream whose answers are what `answer` makes of each question; ends with the test's runtime.
async fn upstream(
    answer: impl Fn(&Message) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Seen>>>) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let (at, answer, seen) = (
        udp.local_addr().unwrap(),
        Arc::new(answer),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (answer_udp, seen_udp) = (answer.clone(), seen.clone());
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            seen_udp.lock().unwrap().push(Seen {
                tcp: false,
                from,
                id: question.metadata.id,
            });
            for bytes in answer_udp(&question) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    let seen_tcp = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, from)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; length.into()];
            stream.read_exact(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer).unwrap();
            seen_tcp.lock().unwrap().push(Seen {
                tcp: true,
                from,
                id: question.metadata.id,
            });
            for bytes in answer(&question) {
                stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    (at, seen)
}

fn outer(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_query(question.queries[0].clone());
    message.add_answer(Record::from_rdata(
        question.queries[0].name().clone(),
        60,
        RData::A(A(OUTER.into())),
    ));
    message
}

fn outer_with(question: &Message, rcode: ResponseCode) -> Message {
    let mut message = outer(question);
    message.metadata.response_code = rcode;
    message.answers.clear();
    message
}

fn bytes(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}

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

#[tokio::test]
async fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let dns = start(|settings| settings.listen = vec!["0.0.0.0:0".parse().unwrap()]).await;
    // A connected client hears nothing from any other address.
    for asked in ["127.0.0.1", "127.0.0.5"] {
        let at = SocketAddr::new(asked.parse().unwrap(), dns.at.port());
        assert_eq!(
            addresses(&ask(ONE, at, "web", RecordType::A).await),
            ["127.1.0.100"],
            "{asked}"
        );
        assert_eq!(
            addresses(&ask_tcp(ONE, at, "web", RecordType::A).await),
            ["127.1.0.100"],
            "{asked}"
        );
    }
}

#[tokio::test]
async fn ipv6_is_served_beside_ipv4_on_one_port() {
    let dns = start(|settings| settings.listen = vec!["[::]:0".parse().unwrap()]).await;
    let port = dns.at.port();
    let v4 = start(|settings| settings.listen = vec![SocketAddr::new([0, 0, 0, 0].into(), port)]).await;
    let at = SocketAddr::new("::1".parse().unwrap(), port);
    assert_eq!(
        addresses(&ask("::1", at, "web.one", RecordType::A).await),
        ["127.1.0.100"]
    );
    assert_eq!(
        addresses(&ask(ONE, SocketAddr::new([127, 0, 0, 1].into(), port), "web", RecordType::A).await),
        ["127.1.0.100"]
    );
    assert_eq!((dns.counters.total(), v4.counters.total()), (1, 1));
}

#[tokio::test]
async fn several_questions_on_one_connection_are_answered_in_order() {
    let dns = start(|_| {}).await;
    let (first, second) = (query("web", RecordType::A), query("web.1", RecordType::A));
    let mut stream = connect(ONE, dns.at).await;
    stream
        .write_all(&[framed(&first), framed(&second)].concat())
        .await
        .unwrap();
    for question in [first, second] {
        assert_eq!(read_framed(&mut stream).await.metadata.id, question.metadata.id);
    }
}

#[tokio::test]
async fn idle_and_surplus_connections_are_closed() {
    let dns = start(|settings| {
        settings.tcp_idle = Duration::from_millis(200);
        settings.max_connections = 8;
    })
    .await;
    let mut idle = connect(ONE, dns.at).await;
    idle.write_all(&[0]).await.unwrap();
    let mut second = connect(ONE, dns.at).await;
    while dns.handle.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Two are this client's share; another client still gets in.
    let mut third = connect(ONE, dns.at).await;
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(dns.counters.connections_limited.load(Relaxed), 1);
    assert_eq!(
        addresses(&ask_tcp(TWO, dns.at, "web", RecordType::A).await),
        ["127.2.0.100"]
    );
    for stream in [&mut idle, &mut second] {
        let end = timeout(Duration::from_secs(5), stream.read(&mut [0; 1]))
            .await
            .expect("closed when idle");
        assert_eq!(end.unwrap_or(0), 0);
    }
    while dns.handle.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rubbish_is_survived() {
    let dns = start(|_| {}).await;
    let socket = UdpSocket::bind((ONE, 0)).await.unwrap();
    for length in 0..300usize {
        let rubbish: Vec<u8> = (0..length).map(|_| rand::random()).collect();
        socket.send_to(&rubbish, dns.at).await.unwrap();
        let mut stream = connect(ONE, dns.at).await;
        let _ = stream.write_all(&rubbish).await;
    }
    assert_eq!(
        addresses(&ask(ONE, dns.at, "web", RecordType::A).await),
        ["127.1.0.100"]
    );
    assert_eq!(
        addresses(&ask_tcp(TWO, dns.at, "web", RecordType::A).await),
        ["127.2.0.100"]
    );
}

#[tokio::test]
async fn shutdown_closes_every_socket() {
    let dns = start(|_| {}).await;
    let mut stream = connect(ONE, dns.at).await;
    dns.handle.shutdown().await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let again = start(|settings| settings.listen = vec![dns.at]).await;
    assert_eq!(
        addresses(&ask(ONE, again.at, "web", RecordType::A).await),
        ["127.1.0.100"]
    );
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named_with_the_mend() {
    let dns = start(|_| {}).await;
    let try_start = async |listen: SocketAddr, upstreams: Vec<SocketAddr>| {
        let settings = DnsSettings {
            listen: vec![listen],
            upstreams,
            ..DnsSettings::default()
        };
        let zone = Arc::new(ArcSwap::from_pointee(Zone::default()));
        dns::start(settings, zone, Arc::default(), CancellationToken::new())
            .await
            .map(|_| ())
    };
    let taken = try_start(dns.at, Vec::new()).await.unwrap_err().to_string();
    assert!(
        taken.contains(&dns.at.to_string()) && taken.contains("ss -lntup"),
        "{taken}"
    );
    let foreign = try_start("203.0.113.1:5353".parse().unwrap(), Vec::new())
        .await
        .unwrap_err()
        .to_string();
    assert!(foreign.contains("no interface here has this address"), "{foreign}");
    for (listen, upstream) in [
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("0.0.0.0:5353", "127.0.0.53:5353"),
        ("[::]:5353", "[::1]:5353"),
        ("127.0.0.1:5353", "0.0.0.0:5353"),
    ] {
        let error = try_start(listen.parse().unwrap(), vec![upstream.parse().unwrap()])
            .await
            .unwrap_err();
        assert!(matches!(error, DnsError::Loop(_)), "{listen} {upstream}: {error}");
    }
}
