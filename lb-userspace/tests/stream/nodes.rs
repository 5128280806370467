//! Managers, workers, and a path between them that can be listened to, held up and cut.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lb_userspace::config;
use lb_userspace::model::snapshot::{Node, Snapshot};
use lb_userspace::stream::{Client, ClientOptions, Identity, Report, Server, ServerOptions, Timing, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const TIMING: Timing = Timing {
    alive: Duration::from_millis(50),
    silence: Duration::from_secs(3),
    handshake: Duration::from_millis(1_000),
    backoff: [Duration::from_millis(10), Duration::from_millis(100)],
    retain: Duration::from_millis(500),
    stale: Duration::from_secs(10),
    settle: Duration::from_millis(500),
};
pub(crate) const SECRET: &str = "c0ffee00112233445566778899aabbccddeeff00112233445566778899aabbcc";
pub(crate) const OTHER: &str = "0ddba11fedcba98765432100123456789abcdef0123456789abcdef012345678";

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn write_secret(path: &Path, secrets: &str) {
    std::fs::write(path, secrets).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// The identity of a node with these secrets, one a line.
pub(crate) fn secret(secrets: &str) -> Arc<Identity> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    write_secret(&path, secrets);
    let config = config::Stream {
        secret_file: path,
        ..config::Stream::default()
    };
    // The file may go: then the keys in force stay.
    Identity::load(&config).unwrap()
}

pub(crate) fn snapshot(name: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: 500,
        nodes: vec![Node {
            name: name.into(),
            id: None,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }],
        ..Snapshot::default()
    })
}

pub(crate) fn report(name: &str) -> Report {
    Report {
        name: name.into(),
        addresses: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        ..Report::default()
    }
}

/// A manager; gone when dropped.
pub(crate) struct Manager {
    pub(crate) server: Server,
    pub(crate) views: watch::Sender<Option<View>>,
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Manager {
    pub(crate) fn start(node: &str, identity: Arc<Identity>, view: Option<View>) -> Self {
        let stop = CancellationToken::new();
        let options = ServerOptions {
            node: node.into(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            connections: 100,
            identity,
            reports_file: None,
            timing: TIMING,
        };
        let (views, receiver) = watch::channel(view);
        let server = Server::start(options, receiver, &stop).unwrap();
        Self {
            address: server.addresses()[0],
            server,
            views,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn publish(&self, name: &str) {
        self.views.send_replace(Some(view(name)));
    }

    /// Ends it, with all of its connections.
    pub(crate) async fn end(self) {
        let Self { server, _stop, .. } = self;
        drop(_stop);
        server.stopped().await;
    }
}

pub(crate) fn view(name: &str) -> View {
    View {
        snapshot: snapshot(name),
        index: None,
        read: Instant::now(),
    }
}

/// A worker; gone when dropped.
pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) managers: watch::Sender<Vec<SocketAddr>>,
    pub(crate) report: watch::Sender<Option<Report>>,
    pub(crate) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    stop: DropGuard,
}

impl Worker {
    pub(crate) fn start(node: &str, identity: Arc<Identity>, managers: &[SocketAddr]) -> Self {
        Self::with_file(node, identity, managers, None)
    }

    pub(crate) fn with_file(
        node: &str,
        identity: Arc<Identity>,
        managers: &[SocketAddr],
        state_file: Option<PathBuf>,
    ) -> Self {
        let stop = CancellationToken::new();
        let options = ClientOptions {
            node: node.into(),
            identity,
            state_file,
            snapshots: true,
            timing: TIMING,
        };
        let (managers, followed) = watch::channel(managers.to_vec());
        let (report, told) = watch::channel(Some(report(node)));
        let client = Client::start(options, followed, told, &stop);
        Self {
            snapshots: client.snapshots(),
            client,
            managers,
            report,
            stop: stop.drop_guard(),
        }
    }

    /// Name of the one node in the snapshot in force.
    pub(crate) fn has(&self) -> Option<String> {
        let snapshot = self.snapshots.borrow();
        snapshot.as_ref().map(|snapshot| snapshot.nodes[0].name.clone())
    }

    pub(crate) async fn gets(&self, name: &str) {
        until(name, || self.has().as_deref() == Some(name)).await;
    }

    pub(crate) fn error(&self) -> String {
        self.client.status().error.unwrap_or_default()
    }

    pub(crate) async fn end(self) {
        let Self { client, stop, .. } = self;
        drop(stop);
        client.stopped().await;
    }
}

/// A TCP path to an address, that keeps what passes.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) passed: Arc<Mutex<Vec<u8>>>,
    held: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, held) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let stop = CancellationToken::new();
        let (kept, halt, token) = (passed.clone(), held.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else {
                    continue;
                };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                for (from, to) in [(near_in, far_out), (far_in, near_out)] {
                    let carrying = carry(from, to, kept.clone(), halt.clone());
                    tokio::spawn(token.clone().run_until_cancelled_owned(carrying));
                }
            }
        }));
        Self {
            address,
            passed,
            held,
            _stop: stop.drop_guard(),
        }
    }

    /// Nothing passes any more, until it does again.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    passed: Arc<Mutex<Vec<u8>>>,
    held: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        while held.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        passed.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
