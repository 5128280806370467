//! One connection to another node's agent: snapshots there, reports back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::Shared;
use super::accept::Tls;
use crate::stream::frame::{self, Kind};
use crate::stream::message::{self, Hello, REPORT_MAX, Report};

impl Shared {
    /// Serves a peer that is known, until one side has had enough.
    pub(super) async fn serve(&self, stream: Tls, hello: Hello, peer: SocketAddr) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let Some(_connected) = self.enter(number, &hello.node) else {
            if let Some(more) = self.overflow.say(Instant::now()) {
                warn!(target: "lb::stream", %peer, node = hello.node, more,
                    "no room for another node: raise stream.connections");
            }
            return;
        };
        info!(target: "lb::stream", %peer, node = hello.node, agent = hello.version, "node connected");
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = self.receive(reader, number, &hello) => ended,
            ended = self.send(writer, hello.snapshots) => ended,
        };
        let why = ended.err().unwrap_or_default();
        info!(target: "lb::stream", %peer, node = hello.node, why, "node disconnected");
    }

    /// Takes a place among the connections.
    fn enter(&self, number: u64, node: &str) -> Option<Connected<'_>> {
        let mut connected = self.connected();
        if connected.len() >= self.connections {
            return None;
        }
        connected.insert(number, node.to_owned());
        Some(Connected { shared: self, number })
    }

    async fn receive(&self, mut reader: impl AsyncRead + Unpin, number: u64, hello: &Hello) -> Result<(), String> {
        loop {
            let frame = frame::read(&mut reader, REPORT_MAX)
                .await
                .map_err(|error| error.to_string())?;
            match frame.kind {
                Kind::Report => {
                    let report: Report = message::decode(&frame.content)?;
                    if report.node != hello.node {
                        return Err(format!("node {} reports for node {}", hello.node, report.node));
                    }
                    debug!(target: "lb::stream", ?report, "report");
                    self.reports.put(number, report);
                }
                Kind::Alive | Kind::Other(_) => {}
                Kind::Hello | Kind::Head | Kind::Snapshot => {
                    return Err(format!("a node does not send messages of kind {:?}", frame.kind));
                }
            }
        }
    }

    async fn send(&self, mut writer: impl AsyncWrite + Unpin, snapshots: bool) -> Result<(), String> {
        let mut published = self.published.clone();
        let mut ticks = interval(self.timing.alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut sent = 0;
        loop {
            // The newest one now: those that came while the last one was on its way are passed over.
            let newest = published.borrow_and_update().clone();
            let head = message::encode(&newest.head(Instant::now()));
            let mut result = frame::write(&mut writer, Kind::Head, &head).await;
            if let Some(offer) = newest.offer.as_ref()
                && result.is_ok()
                && snapshots
                && newest.generation() != sent
            {
                sent = newest.generation();
                result = frame::write(&mut writer, Kind::Snapshot, &offer.content).await;
            }
            result.map_err(|error| error.to_string())?;
            drop(newest);
            tokio::select! {
                changed = published.changed() => changed.map_err(|_| "the agent ends")?,
                _ = ticks.tick() => {}
            }
        }
    }
}

/// A place among the connections, until dropped.
struct Connected<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.shared.connected().remove(&self.number);
        self.shared.reports.end(self.number, Instant::now());
    }
}
