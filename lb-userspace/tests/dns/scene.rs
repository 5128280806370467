//! A server with two networks, and who asks it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lb_userspace::dns::{self, DnsCounters, DnsHandle, DnsSettings, Zone};
use lb_userspace::model::snapshot::{Backend, BackendState, EndpointMode, Network, Service, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A client in network `one`, whose subnet is 127.1.0.0/16.
pub(crate) const ONE: &str = "127.1.0.9";
/// A client in network `two`, whose subnet is 127.2.0.0/16.
pub(crate) const TWO: &str = "127.2.0.9";
/// A client in no network.
pub(crate) const OUTSIDE: &str = "127.9.0.9";
/// What the upstreams say.
pub(crate) const OUTER: [u8; 4] = [203, 0, 113, 7];

pub(crate) fn service(network: &str, name: &str, vip: Option<&str>, backends: u8, [a, b, c]: [u8; 3]) -> Service {
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

pub(crate) fn snapshot() -> Snapshot {
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

pub(crate) struct Running {
    pub(crate) handle: DnsHandle,
    pub(crate) zone: Arc<ArcSwap<Zone>>,
    pub(crate) counters: Arc<DnsCounters>,
    pub(crate) at: SocketAddr,
}

pub(crate) async fn start(change: impl FnOnce(&mut DnsSettings)) -> Running {
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

pub(crate) fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), record_type));
    message
}

pub(crate) async fn exchange_udp(from: &str, at: SocketAddr, message: &Message) -> Message {
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

pub(crate) async fn ask(from: &str, at: SocketAddr, name: &str, record_type: RecordType) -> Message {
    exchange_udp(from, at, &query(name, record_type)).await
}

pub(crate) async fn connect(from: &str, at: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    socket.connect(at).await.unwrap()
}

pub(crate) fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [(bytes.len() as u16).to_be_bytes().as_slice(), &bytes].concat()
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> Message {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(Duration::from_secs(5), read).await.expect("an answer")
}

pub(crate) async fn ask_tcp(from: &str, at: SocketAddr, name: &str, record_type: RecordType) -> Message {
    let mut stream = connect(from, at).await;
    stream.write_all(&framed(&query(name, record_type))).await.unwrap();
    read_framed(&mut stream).await
}

pub(crate) fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.ip_addr().unwrap().to_string())
        .collect()
}

pub(crate) fn rcode(message: &Message) -> ResponseCode {
    message.metadata.response_code
}
