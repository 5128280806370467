//! The TCP side of one listen address: length-prefixed messages, one after the other, closed when idle.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::Transport;
use super::server::{Reaction, Server};

/// Larger questions do not exist; who announces one is cut off.
const MAX_QUESTION: usize = 4096;

/// A message with its length in front, as TCP carries it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message[..length.into()]);
    frame
}

/// Accepts until `stop`; connections live in `tasks`.
pub(super) async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    idle: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(target: "lb::dns", %error, "accepting failed");
                // Out of file descriptors, most likely: wait for some to be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = server.connections.take(client.ip().to_canonical()) else {
            server.counters.connections_limited.fetch_add(1, Relaxed);
            continue;
        };
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = stop.cancelled() => {}
                ended = converse(stream, client, &server, idle) => if let Err(error) = ended {
                    tracing::debug!(target: "lb::dns", %client, %error, "connection ended");
                }
            }
        });
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, server: &Server, idle: Duration) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; MAX_QUESTION];
    loop {
        let Some(length) = timeout(idle, read_message(&mut stream, &mut buffer)).await?? else {
            return Ok(());
        };
        let pending = match server.react(client, &buffer[..length], Transport::Tcp) {
            Reaction::Ignore => return Ok(()),
            Reaction::Reply(pending) => pending,
            Reaction::Forward(forward) => server.forward(forward).await,
        };
        server.sent(&pending);
        timeout(idle, stream.write_all(&framed(pending.bytes()))).await??;
    }
}

/// The next message's length; none when the client is done.
async fn read_message(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(message) = buffer.get_mut(..length) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("question of {length} bytes"),
        ));
    };
    stream.read_exact(message).await?;
    Ok(Some(length))
}
