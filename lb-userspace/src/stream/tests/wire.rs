//! Nodes that do not behave, with and without the secret: what a manager does with them, byte by byte.
//! Managers that do not: `rogue.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Kind};
use super::message::{self, Hello, REPORT_MAX, SNAPSHOT_MAX};
use super::*;
use crate::config::Stream;
use crate::model::snapshot::Node;

#[path = "rogue.rs"]
mod rogue;

const TIMING: Timing = Timing {
    alive: Duration::from_millis(50),
    silence: Duration::from_millis(800),
    handshake: Duration::from_millis(1_500),
    backoff: [Duration::from_millis(10), Duration::from_millis(50)],
    retain: Duration::from_millis(300),
    stale: Duration::from_secs(10),
    settle: Duration::from_millis(500),
};

fn identity(directory: &Path) -> Arc<Identity> {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("secret");
    std::fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let config = Stream {
        secret_file: path,
        ..Stream::default()
    };
    Identity::load(&config).unwrap()
}

fn view(name: &str) -> View {
    let snapshot = Snapshot {
        generation: 1,
        nodes: vec![Node {
            name: name.into(),
            id: None,
            addresses: vec![],
        }],
        ..Snapshot::default()
    };
    View {
        snapshot: Arc::new(snapshot),
        index: None,
        read: Instant::now(),
    }
}

fn manager(identity: &Arc<Identity>, stop: &CancellationToken, connections: usize) -> Server {
    let options = ServerOptions {
        node: "m1".into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        connections,
        identity: identity.clone(),
        reports_file: None,
        timing: TIMING,
    };
    // The source is gone at once: what it said stays on offer.
    Server::start(options, watch::channel(Some(view("a"))).1, stop).unwrap()
}

async fn connect(identity: &Identity, server: &Server) -> client::TlsStream<TcpStream> {
    let address = server.addresses()[0];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let connector = TlsConnector::from(identity.sides().client);
    connector.connect(name, tcp).await.unwrap()
}

/// Reads frames until there are none, or for so long that none will come to an end.
async fn until_closed(stream: &mut client::TlsStream<TcpStream>) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    let reading = async {
        while let Ok(frame) = frame::read(stream, SNAPSHOT_MAX).await {
            kinds.push(frame.kind);
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), reading).await {
        Ok(()) => Ok(kinds),
        Err(_) => Err(format!("still open after {kinds:?}")),
    }
}

async fn say(stream: &mut client::TlsStream<TcpStream>, kind: Kind, content: &[u8]) {
    frame::write(stream, kind, content).await.unwrap();
}

/// The public key is no secret: a manager shows it to whoever connects. It takes the private one to be believed.
#[tokio::test]
async fn the_right_public_key_with_another_private_one_is_refused_by_both_ends() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (identity, stop) = (identity(ours.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let right = secret::read(&ours.path().join("secret")).unwrap();
    let path = theirs.path().join("secret");
    std::fs::copy(ours.path().join("secret"), &path).unwrap();
    std::fs::write(&path, "another secret, of 32 bytes or more").unwrap();
    let impostor = secret::Keys {
        own: secret::read(&path).unwrap().own,
        accepted: right.accepted,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let impostor = identity::of_secret(impostor, provider).unwrap();

    let server = manager(&identity, &stop, 10);
    let address = server.addresses()[0];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let mut stream = TlsConnector::from(impostor.client).connect(name, tcp).await.unwrap();
    let error = frame::read(&mut stream, SNAPSHOT_MAX).await.unwrap_err().to_string();
    assert!(error.contains("received fatal alert"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(impostor.server);
    let serving = async { acceptor.accept(listener.accept().await.unwrap().0).await.err() };
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let connector = TlsConnector::from(identity.sides().client);
    let (refused, connected) = tokio::join!(serving, connector.connect(name, tcp));
    assert!(refused.is_some());
    let error = connected.err().unwrap().to_string();
    assert!(error.contains("BadSignature"), "{error}");
}

#[tokio::test]
async fn whoever_does_not_begin_with_a_greeting_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let server = manager(&identity, &stop, 10);

    let future = Hello {
        protocol: 2,
        ..Hello::of("n", true)
    };
    let nameless = Hello::of("", true);
    for (kind, content) in [
        (Kind::Report, message::encode(&Report::default())),
        (Kind::Alive, vec![]),
        (Kind::Hello, b"{".to_vec()),
        (Kind::Hello, vec![b' '; 8 << 10]),
        (Kind::Hello, message::encode(&future)),
        (Kind::Hello, message::encode(&nameless)),
    ] {
        let mut stream = connect(&identity, &server).await;
        say(&mut stream, kind, &content).await;
        assert_eq!(
            until_closed(&mut stream).await.unwrap(),
            [Kind::Hello],
            "{kind:?} {content:?}"
        );
    }
    let mut silent = connect(&identity, &server).await;
    let start = Instant::now();
    assert_eq!(until_closed(&mut silent).await.unwrap(), [Kind::Hello]);
    assert!(start.elapsed() < 2 * TIMING.handshake);
}

#[tokio::test]
async fn a_node_that_breaks_the_protocol_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let server = manager(&identity, &stop, 10);
    let huge = u32::try_from(REPORT_MAX + 1).unwrap().to_be_bytes();
    let stranger = Report {
        node: "other".into(),
        ..Report::default()
    };
    for (kind, content) in [
        (Kind::Report, b"garbage".to_vec()),
        (Kind::Report, message::encode(&stranger)),
        (Kind::Report, vec![b' '; REPORT_MAX + 1]),
        (Kind::Snapshot, b"{}".to_vec()),
        (Kind::Hello, message::encode(&Hello::of("n1", true))),
    ] {
        let mut stream = connect(&identity, &server).await;
        say(&mut stream, Kind::Hello, &message::encode(&Hello::of("n1", true))).await;
        // It may be cut off before all of it is written.
        let _ = frame::write(&mut stream, kind, &content).await;
        let kinds = until_closed(&mut stream).await.unwrap();
        assert_eq!(kinds[0], Kind::Hello);
    }
    // The announcement alone is enough: nobody waits for the rest.
    let mut stream = connect(&identity, &server).await;
    say(&mut stream, Kind::Hello, &message::encode(&Hello::of("n1", true))).await;
    use tokio::io::AsyncWriteExt;
    stream.write_all(&huge).await.unwrap();
    stream.write_all(&[4]).await.unwrap();
    stream.flush().await.unwrap();
    let start = Instant::now();
    until_closed(&mut stream).await.unwrap();
    assert!(start.elapsed() < TIMING.silence, "{:?}", start.elapsed());
    assert!(server.reports().borrow().is_empty());

    // What a newer agent may send is no breach.
    let mut stream = connect(&identity, &server).await;
    say(
        &mut stream,
        Kind::Hello,
        br#"{"protocol":1,"version":"9","node":"n2","more":[1]}"#,
    )
    .await;
    say(&mut stream, Kind::Other(200), b"?").await;
    say(&mut stream, Kind::Report, br#"{"node":"n2","more":{"x":1}}"#).await;
    let mut reports = server.reports();
    tokio::time::timeout(
        Duration::from_secs(10),
        reports.wait_for(|reports| reports.contains_key("n2")),
    )
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn a_node_that_says_nothing_any_more_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let server = manager(&identity, &stop, 10);
    let mut stream = connect(&identity, &server).await;
    say(&mut stream, Kind::Hello, &message::encode(&Hello::of("n1", true))).await;
    let start = Instant::now();
    let kinds = until_closed(&mut stream).await.unwrap();
    let took = start.elapsed();
    assert!(took > TIMING.silence / 2 && took < 4 * TIMING.silence, "{took:?}");
    // Signs of life may come before the snapshot is ready to be sent.
    assert_eq!(kinds[..2], [Kind::Hello, Kind::Head]);
    let count = |wanted: Kind| kinds.iter().filter(|kind| **kind == wanted).count();
    assert_eq!(count(Kind::Snapshot), 1, "{kinds:?}");
    assert!(count(Kind::Head) == kinds.len() - 2 && kinds.len() > 5, "{kinds:?}");
}

#[tokio::test]
async fn connections_are_bounded_and_their_places_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let server = manager(&identity, &stop, 2);
    let mut streams = Vec::new();
    for node in ["n1", "n2"] {
        let mut stream = connect(&identity, &server).await;
        say(&mut stream, Kind::Hello, &message::encode(&Hello::of(node, false))).await;
        assert_eq!(frame::read(&mut stream, 9_999).await.unwrap().kind, Kind::Hello);
        let head = frame::read(&mut stream, 9_999).await.unwrap();
        assert_eq!(head.kind, Kind::Head);
        streams.push(stream);
    }
    let mut third = connect(&identity, &server).await;
    say(&mut third, Kind::Hello, &message::encode(&Hello::of("n3", true))).await;
    assert_eq!(until_closed(&mut third).await.unwrap(), [Kind::Hello]);
    assert_eq!(server.status().nodes, ["n1", "n2"]);
    drop(streams);
    let start = Instant::now();
    while !server.status().nodes.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn whoever_only_reports_is_sent_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let server = manager(&identity, &stop, 2);
    let mut stream = connect(&identity, &server).await;
    say(&mut stream, Kind::Hello, &message::encode(&Hello::of("m2", false))).await;
    let kinds = until_closed(&mut stream).await.unwrap();
    assert!(!kinds.contains(&Kind::Snapshot) && kinds.len() > 3, "{kinds:?}");
}
