//! Managers that hold the secret and do not behave: what a client does with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, server};
use tokio_util::sync::CancellationToken;

use super::frame::{self, FrameError, Kind};
use super::message::{self, Head, Hello, REPORT_MAX};
use super::*;

/// A manager with the secret, and a mind of its own. What it says after the greetings is the test's.
struct Rogue {
    listener: TcpListener,
    identity: Arc<Identity>,
}

impl Rogue {
    async fn accept(&self, hello: &Hello) -> server::TlsStream<TcpStream> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(self.identity.sides().server);
        let mut stream = acceptor.accept(tcp).await.unwrap();
        frame::write(&mut stream, Kind::Hello, &message::encode(hello))
            .await
            .unwrap();
        assert_eq!(frame::read(&mut stream, 9_999).await.unwrap().kind, Kind::Hello);
        stream
    }
}

async fn ended(stream: &mut server::TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    let _ = tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("the client must hang up");
}

async fn complains(client: &Client, complaint: &str) {
    let start = Instant::now();
    loop {
        let error = client.status().error.unwrap_or_default();
        if error.contains(complaint) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "`{error}` is not `{complaint}`"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_manager_that_breaks_the_protocol_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let rogue = Rogue {
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        identity: identity.clone(),
    };
    let options = ClientOptions {
        node: "n1".into(),
        identity: identity.clone(),
        state_file: None,
        snapshots: true,
        timing: TIMING,
    };
    let managers = watch::channel(vec![rogue.listener.local_addr().unwrap()]).1;
    let client = Client::start(options, managers, watch::channel(Some(Report::default())).1, &stop);
    let mut snapshots = client.snapshots();

    let head = message::encode(&Head {
        epoch: 1,
        generation: 1,
        index: None,
        age_ms: 0,
    });
    let good = message::encode(&*view("good").snapshot);
    let hello = Hello::of("m1", true);
    let mut stream = rogue.accept(&hello).await;
    frame::write(&mut stream, Kind::Head, &head).await.unwrap();
    frame::write(&mut stream, Kind::Snapshot, &good).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), snapshots.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    snapshots.mark_unchanged();
    drop(stream);

    for (kind, content, complaint) in [
        (Kind::Snapshot, &good[..], "a snapshot came before any head"),
        (Kind::Head, b"{}", "makes no sense"),
        (Kind::Report, b"{}", "does not send messages of kind Report"),
    ] {
        let mut stream = rogue.accept(&hello).await;
        frame::write(&mut stream, kind, content).await.unwrap();
        ended(&mut stream).await;
        complains(&client, complaint).await;
    }
    let mut stream = rogue.accept(&hello).await;
    frame::write(&mut stream, Kind::Head, &head).await.unwrap();
    frame::write(&mut stream, Kind::Snapshot, &good[..good.len() / 2])
        .await
        .unwrap();
    ended(&mut stream).await;
    let mut stream = rogue.accept(&hello).await;
    stream.write_all(&[0xff, 0xff, 0xff, 0xff, 3]).await.unwrap();
    stream.flush().await.unwrap();
    ended(&mut stream).await;
    let error = client.status().error.unwrap();
    assert!(
        error.contains("a message of 4294967295 bytes; 67108864 are allowed"),
        "{error}"
    );
    let future = Hello { protocol: 7, ..hello };
    let mut stream = rogue.accept(&future).await;
    ended(&mut stream).await;
    complains(&client, "speaks protocol 7").await;

    assert!(!snapshots.has_changed().unwrap());
    assert_eq!(snapshots.borrow().as_ref().unwrap().nodes[0].name, "good");
    assert!(matches!(client.status().source, Source::Manager { node, .. } if node == "m1"));
}

#[tokio::test]
async fn a_manager_that_says_nothing_any_more_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, stop) = (identity(directory.path()), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let rogue = Rogue {
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        identity: identity.clone(),
    };
    let options = ClientOptions {
        node: "n1".into(),
        identity: identity.clone(),
        state_file: None,
        snapshots: true,
        timing: TIMING,
    };
    let managers = watch::channel(vec![rogue.listener.local_addr().unwrap()]).1;
    let _client = Client::start(options, managers, watch::channel(Some(Report::default())).1, &stop);
    let mut stream = rogue.accept(&Hello::of("m1", true)).await;
    let first = frame::read(&mut stream, REPORT_MAX).await.unwrap();
    assert_eq!(first.kind, Kind::Report, "the report comes first");
    let start = Instant::now();
    let end = loop {
        match frame::read(&mut stream, REPORT_MAX).await {
            Ok(frame) => assert_eq!(frame.kind, Kind::Alive),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, FrameError::Closed), "{end}");
    let took = start.elapsed();
    assert!(took > TIMING.silence / 2 && took < 4 * TIMING.silence, "{took:?}");
    // And it is tried again.
    rogue.accept(&Hello::of("m1", true)).await;
}
