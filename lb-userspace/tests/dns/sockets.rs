//! Sockets and connections: whose they are, and how many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use lb_userspace::dns::{self, DnsError, DnsSettings, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::scene::{ONE, TWO, addresses, ask, ask_tcp, connect, framed, query, read_framed, start};

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
