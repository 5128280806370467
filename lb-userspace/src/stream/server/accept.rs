//! Lets in who proves to be an agent of this cluster, and nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::Shared;
use crate::net::limits::Limit;
use crate::stream::frame::{self, Kind};
use crate::stream::message::{self, Hello, SMALL_MAX};
use crate::stream::patience::Patient;

/// After an accept failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Tls = Patient<tokio_rustls::server::TlsStream<TcpStream>>;

pub(super) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    handshakes: Arc<Limit>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(more) = shared.overflow.say(Instant::now()) {
                    warn!(target: "lb::stream", %error, more, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(permit) = handshakes.take(peer.ip().to_canonical()) else {
            if let Some(more) = shared.overflow.say(Instant::now()) {
                warn!(target: "lb::stream", %peer, more, "too many connections that do not say who they are");
            }
            continue;
        };
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            let known = stop.run_until_cancelled(shared.greet(tcp)).await;
            drop(permit);
            match known {
                None => {}
                Some(Ok((stream, hello))) => {
                    stop.run_until_cancelled(shared.serve(stream, hello, peer)).await;
                }
                Some(Err(error)) => {
                    if let Some(more) = shared.refusals.say(Instant::now()) {
                        warn!(target: "lb::stream", %peer, %error, more, "connection refused");
                    }
                }
            }
        });
    }
}

impl Shared {
    /// Finds out who is there, in limited time.
    async fn greet(&self, tcp: TcpStream) -> Result<(Tls, Hello), String> {
        let greeting = async {
            tcp.set_nodelay(true).map_err(|error| error.to_string())?;
            let tls = TlsAcceptor::from(self.identity.sides().server)
                .accept(tcp)
                .await
                .map_err(|error| format!("the peer did not prove to be one of ours: {error}"))?;
            let mut stream = Patient::new(tls, self.timing.silence);
            let own = message::encode(&Hello::of(&self.node, true));
            frame::write(&mut stream, Kind::Hello, &own)
                .await
                .map_err(|error| error.to_string())?;
            let first = frame::read(&mut stream, SMALL_MAX)
                .await
                .map_err(|error| error.to_string())?;
            if first.kind != Kind::Hello {
                return Err("the peer does not begin with a greeting".into());
            }
            let hello: Hello = message::decode(&first.content)?;
            hello.check()?;
            Ok((stream, hello))
        };
        match timeout(self.timing.handshake, greeting).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "the peer did not say who it is within {}",
                humantime::format_duration(self.timing.handshake)
            )),
        }
    }
}
