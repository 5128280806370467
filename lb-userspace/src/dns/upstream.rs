//! Forwarding: the configured upstreams in order, each with its own time, over the transport of the question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::counters::DnsCounters;
use super::message::{Judgement, Question, Reply, Transport};

/// Least time between two log lines about upstreams that do not answer.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The servers that unknown names go to.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<SocketAddr>,
    try_timeout: Duration,
    started: Instant,
    /// Milliseconds since `started` before which nothing is logged.
    quiet_until: AtomicI64,
}

/// Why one upstream brought no answer.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("no answer in time")]
    Timeout,
    #[error("answered {0}")]
    Failed(ResponseCode),
    #[error("sent something else than the answer")]
    Foreign,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Upstreams {
    pub(super) fn new(servers: Vec<SocketAddr>, try_timeout: Duration) -> Self {
        Self {
            servers,
            try_timeout,
            started: Instant::now(),
            quiet_until: AtomicI64::new(0),
        }
    }

    /// The first usable answer; none if no upstream gave one.
    pub(super) async fn ask(&self, question: &Question, counters: &DnsCounters) -> Option<(Reply, ResponseCode)> {
        for &server in &self.servers {
            // Everything fresh for each try: port (the kernel's, random), id, and a socket that hears this peer only.
            let id = rand::random();
            let bytes = question.forward(id)?;
            let answer = async {
                match question.transport() {
                    Transport::Udp => ask_udp(server, question, id, &bytes).await,
                    Transport::Tcp => ask_tcp(server, question, id, &bytes).await,
                }
            };
            match timeout(self.try_timeout, answer)
                .await
                .unwrap_or(Err(TryError::Timeout))
            {
                Ok((bytes, rcode)) => return Some((question.relay(bytes, rcode), rcode)),
                Err(error) => {
                    counters.upstream_failures.fetch_add(1, Relaxed);
                    self.complain(server, &error);
                }
            }
        }
        None
    }

    /// Logs, but not for every question.
    fn complain(&self, server: SocketAddr, error: &TryError) {
        let now = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let until = self.quiet_until.load(Relaxed);
        let next = now.saturating_add(COMPLAINT_INTERVAL.as_millis() as i64);
        if now >= until && self.quiet_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok() {
            tracing::warn!(target: "lb::dns", upstream = %server, %error, "upstream gives no answer");
        }
    }
}

async fn ask_udp(
    server: SocketAddr,
    question: &Question,
    id: u16,
    bytes: &[u8],
) -> Result<(Vec<u8>, ResponseCode), TryError> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match question.judge(id, &buffer[..length]) {
            // Perhaps forged: the true answer may still come.
            Judgement::Foreign => {}
            Judgement::Failed(rcode) => return Err(TryError::Failed(rcode)),
            Judgement::Answer(rcode) => {
                buffer.truncate(length);
                return Ok((buffer, rcode));
            }
        }
    }
}

async fn ask_tcp(
    server: SocketAddr,
    question: &Question,
    id: u16,
    bytes: &[u8],
) -> Result<(Vec<u8>, ResponseCode), TryError> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&super::tcp::framed(bytes)).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    match question.judge(id, &answer) {
        Judgement::Foreign => Err(TryError::Foreign),
        Judgement::Failed(rcode) => Err(TryError::Failed(rcode)),
        Judgement::Answer(rcode) => Ok((answer, rcode)),
    }
}
