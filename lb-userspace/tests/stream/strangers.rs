//! Whoever does not hold the secret gets nothing, and costs little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_userspace::stream::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::nodes::{Manager, OTHER, SECRET, TIMING, Wire, Worker, secret, until, view, write_secret};

/// Both ends for a while, and that nothing has come through.
async fn nothing_passes(server: Arc<Identity>, client: Arc<Identity>) -> String {
    let manager = Manager::start("m1", server, Some(view("a")));
    let worker = Worker::start("w1", client, &[manager.address]);
    until("a refusal", || worker.error().contains("no manager is connected: the ")).await;
    tokio::time::sleep(5 * TIMING.backoff[1]).await;
    assert_eq!(worker.has(), None);
    let status = manager.server.status();
    assert_eq!((status.nodes.len(), status.reports), (0, 0));
    worker.error()
}

#[tokio::test]
async fn another_secret_is_refused_by_both_ends() {
    let error = nothing_passes(secret(SECRET), secret(OTHER)).await;
    assert!(error.contains("did not prove to be one of ours"), "{error}");
    // Each end for itself: one that would accept the other is refused by it.
    let lenient = format!("{OTHER}\n{SECRET}");
    let error = nothing_passes(secret(SECRET), secret(&lenient)).await;
    assert!(error.contains("the manager refuses this node"), "{error}");
    let error = nothing_passes(secret(&lenient), secret(SECRET)).await;
    assert!(error.contains("did not prove to be one of ours"), "{error}");
}

#[tokio::test]
async fn a_secret_can_be_changed_under_running_agents() {
    let directory = tempfile::tempdir().unwrap();
    let identity = |name: &str| {
        let path = directory.path().join(name);
        write_secret(&path, SECRET);
        let config = lb_userspace::config::Stream {
            secret_file: path.clone(),
            ..Default::default()
        };
        (path, Identity::load(&config).unwrap())
    };
    let ((at_manager, one), (at_worker, two)) = (identity("manager"), identity("worker"));
    let manager = Manager::start("m1", one, Some(view("a")));
    let address = manager.address;
    // A worker that begins anew stands for one whose connection breaks.
    let reconnects = async |name: &str| {
        let worker = Worker::start("w1", two.clone(), &[address]);
        manager.publish(name);
        worker.gets(name).await;
    };
    reconnects("b").await;
    for (step, secrets) in [format!("{SECRET}\n{OTHER}"), format!("{OTHER}\n{SECRET}"), OTHER.into()]
        .iter()
        .enumerate()
    {
        write_secret(&at_manager, secrets);
        reconnects(&format!("manager {step}")).await;
        write_secret(&at_worker, secrets);
        reconnects(&format!("worker {step}")).await;
    }
    // What cannot be used changes nothing.
    write_secret(&at_manager, "short");
    std::fs::remove_file(&at_worker).unwrap();
    reconnects("still").await;
}

#[tokio::test]
async fn nothing_is_legible_on_the_wire() {
    let manager = Manager::start("m1-in-clear", secret(SECRET), Some(view("service-in-clear")));
    let wire = Wire::to(manager.address).await;
    let worker = Worker::start("w1-in-clear", secret(SECRET), &[wire.address]);
    worker.gets("service-in-clear").await;
    let reports = manager.server.reports();
    until("the report", || reports.borrow().contains_key("w1-in-clear")).await;
    let passed = wire.passed.lock().unwrap();
    assert!(passed.len() > 500);
    assert!(!passed.windows(8).any(|window| window == b"in-clear"));
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>, bool);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.1
    }
}

#[tokio::test]
async fn whoever_shows_no_key_is_told_nothing() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    for raw in [true, false] {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(schemes, raw)))
            .with_no_client_auth();
        let tcp = TcpStream::connect(manager.address).await.unwrap();
        let name = ServerName::IpAddress(manager.address.ip().into());
        let mut told = Vec::new();
        let talk = async {
            let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            tls.write_all(&[0, 0, 0, 2, 1, b'{', b'}']).await?;
            tls.read_to_end(&mut told).await
        };
        let end = tokio::time::timeout(Duration::from_secs(10), talk).await.unwrap();
        assert!(end.is_err(), "refused: {end:?}");
        assert!(told.is_empty());
    }
    assert!(manager.server.reports().borrow().is_empty());
}

/// Sends bytes and waits for the end.
async fn end_of(manager: &Manager, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut tcp = TcpStream::connect(manager.address).await.unwrap();
    // The other end may have had enough before all of it is written.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer))
        .await
        .expect("the connection must end");
    assert!(answer.len() < 100, "no more than an alert: {answer:?}");
    start.elapsed()
}

#[tokio::test]
async fn garbage_and_silence_end_soon_and_disturb_nobody() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let worker = Worker::start("w1", secret(SECRET), &[manager.address]);
    worker.gets("a").await;
    let garbage: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 4096], &garbage] {
        let took = end_of(&manager, bytes).await;
        assert!(took < TIMING.handshake, "{took:?}");
    }
    // The beginning of a handshake, and nothing.
    for bytes in [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[]] {
        let took = end_of(&manager, bytes).await;
        assert!(took < 3 * TIMING.handshake, "{took:?}");
    }
    manager.publish("b");
    worker.gets("b").await;
    assert_eq!(manager.server.status().nodes, ["w1"]);
}

#[tokio::test]
async fn a_flood_of_connections_delays_and_does_not_shut_out() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(TcpStream::connect(manager.address).await.unwrap());
    }
    let worker = Worker::start("w1", secret(SECRET), &[manager.address]);
    worker.gets("a").await;
    manager.publish("b");
    worker.gets("b").await;
    assert_eq!(flood.len(), 200);
}
