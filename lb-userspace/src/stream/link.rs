//! The connection of a client to one manager, made anew as often as it breaks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::frame::{self, Kind};
use super::message::{self, Head, Hello, REPORT_MAX, Report, SMALL_MAX, SNAPSHOT_MAX};
use super::patience::Patient;
use super::{Identity, Timing};
use crate::model::snapshot::Snapshot;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// It stands; the manager is this node.
    Up(String),
    /// What the manager has.
    Head(Head),
    /// Its snapshot, of this head.
    Snapshot(Head, Arc<Snapshot>),
    /// It is gone, or could not be made.
    Down(String),
}

/// What the links of a client have in common.
pub(super) struct Common {
    pub(super) node: String,
    pub(super) identity: Arc<Identity>,
    pub(super) timing: Timing,
    pub(super) snapshots: bool,
    pub(super) report: watch::Receiver<Option<Report>>,
    /// With the time at which it happened. Few fit in: a link waits for its events to be heard.
    pub(super) events: mpsc::Sender<(SocketAddr, Event, Instant)>,
}

/// Keeps a connection to one manager until `stop`.
pub(super) async fn run(common: Arc<Common>, address: SocketAddr, stop: CancellationToken) {
    let mut pause = common.timing.backoff[0];
    let mut said = String::new();
    loop {
        let (mut established, start) = (false, Instant::now());
        let attempt = common.connection(address, &mut established);
        let Some(error) = stop.run_until_cancelled(attempt).await else {
            return;
        };
        if established {
            said.clear();
        }
        // One that breaks at once is no success.
        if established && start.elapsed() > common.timing.backoff[1] {
            pause = common.timing.backoff[0];
        }
        // The same failure at every attempt is said once.
        if error != said {
            warn!(target: "lb::stream", manager = %address, %error, "no connection to this manager; trying again");
            said.clone_from(&error);
        }
        let rest = stop
            .run_until_cancelled(async {
                common.tell(address, Event::Down(error)).await;
                tokio::time::sleep(jittered(pause)).await;
            })
            .await;
        if rest.is_none() {
            return;
        }
        pause = (2 * pause).min(common.timing.backoff[1]);
    }
}

/// Between half of a pause and all of it: nodes that lost a manager together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

type Tls = Patient<TlsStream<TcpStream>>;

impl Common {
    async fn tell(&self, address: SocketAddr, event: Event) {
        // Nobody listens at the very end only.
        let _ = self.events.send((address, event, Instant::now())).await;
    }

    /// One connection, from its beginning to its end: why it ended.
    async fn connection(&self, address: SocketAddr, established: &mut bool) -> String {
        let (stream, hello) = match timeout(self.timing.handshake, self.greet(address)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return error,
            Err(_) => {
                return format!("no answer within {}", humantime::format_duration(self.timing.handshake));
            }
        };
        *established = true;
        info!(target: "lb::stream", manager = %address, node = hello.node, agent = hello.version, "connected");
        self.tell(address, Event::Up(hello.node)).await;
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = self.receive(reader, address) => ended,
            ended = self.send(writer) => ended,
        };
        ended.err().unwrap_or_default()
    }

    async fn greet(&self, address: SocketAddr) -> Result<(Tls, Hello), String> {
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(self.identity.sides().client)
            .connect(name, tcp)
            .await
            .map_err(|error| format!("the peer did not prove to be one of ours: {error}"))?;
        let mut stream = Patient::new(tls, self.timing.silence);
        let first = frame::read(&mut stream, SMALL_MAX).await.map_err(|error| match error {
            // With TLS 1.3 the client learns only now what the server thinks of it.
            frame::FrameError::Io(error) if error.kind() == io::ErrorKind::InvalidData => format!(
                "the manager refuses this node ({error}): do both have the same secret, or certificates of one authority?"
            ),
            error => error.to_string(),
        })?;
        if first.kind != Kind::Hello {
            return Err("the peer does not begin with a greeting".into());
        }
        let hello: Hello = message::decode(&first.content)?;
        // Answered before it is judged: the manager's log then names the versions too.
        let own = message::encode(&Hello::of(&self.node, self.snapshots));
        frame::write(&mut stream, Kind::Hello, &own)
            .await
            .map_err(|error| error.to_string())?;
        hello.check()?;
        Ok((stream, hello))
    }

    async fn receive(&self, mut reader: impl AsyncRead + Unpin, address: SocketAddr) -> Result<(), String> {
        let mut last = None;
        loop {
            let frame = frame::read(&mut reader, SNAPSHOT_MAX)
                .await
                .map_err(|error| error.to_string())?;
            match frame.kind {
                Kind::Head => {
                    let head: Head = message::decode(&frame.content)?;
                    last = Some(head);
                    self.tell(address, Event::Head(head)).await;
                }
                Kind::Snapshot => {
                    let head = last.ok_or("a snapshot came before any head")?;
                    // Some hundred milliseconds of work, for a large cluster.
                    let snapshot = tokio::task::spawn_blocking(move || message::decode(&frame.content))
                        .await
                        .map_err(|error| error.to_string())??;
                    debug!(target: "lb::stream", manager = %address, generation = head.generation, "snapshot");
                    self.tell(address, Event::Snapshot(head, Arc::new(snapshot))).await;
                }
                Kind::Alive | Kind::Other(_) => {}
                Kind::Hello | Kind::Report => {
                    return Err(format!("a manager does not send messages of kind {:?}", frame.kind));
                }
            }
        }
    }

    async fn send(&self, mut writer: impl AsyncWrite + Unpin) -> Result<(), String> {
        let mut report = self.report.clone();
        report.mark_changed();
        let mut ticks = interval(self.timing.alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            let due = tokio::select! {
                biased;
                changed = report.changed(), if open => {
                    open = changed.is_ok();
                    open
                }
                _ = ticks.tick() => false,
            };
            let newest = if due { report.borrow_and_update().clone() } else { None };
            let sent = if let Some(mut newest) = newest {
                newest.node.clone_from(&self.node);
                let content = message::encode(&newest);
                if content.len() > REPORT_MAX {
                    let (size, limit) = (content.len() >> 10, REPORT_MAX >> 10);
                    warn!(target: "lb::stream", "this node's report has {size} KiB, and {limit} can be sent: not sent");
                    continue;
                }
                frame::write(&mut writer, Kind::Report, &content).await
            } else {
                frame::write(&mut writer, Kind::Alive, &[]).await
            };
            sent.map_err(|error| error.to_string())?;
        }
    }
}
