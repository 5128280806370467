//! Events of the engine: hints that something has changed.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio_util::task::AbortOnDropHandle;

use super::{Engine, EngineError, encode};
use crate::provider::docker::api::node::Event;

/// No event is longer; what follows is lost, and an event is only a hint.
const LINE_MAX: usize = 1 << 20;

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    rest: Vec<u8>,
    /// What came with the last piece and is not yet handed out, last first.
    ready: Vec<Event>,
    _connection: AbortOnDropHandle<()>,
}

impl Engine {
    /// Events of these kinds (`container`, `network`, ...) and actions (`start`, `connect`, ...); of all actions if
    /// none is named. They may be lost without a word.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn events(&self, kinds: &[&str], actions: &[&str]) -> Result<Events, EngineError> {
        let mut filters = serde_json::Map::new();
        filters.insert("type".into(), kinds.into());
        if !actions.is_empty() {
            filters.insert("event".into(), actions.into());
        }
        let filters = serde_json::Value::Object(filters).to_string();
        let path = format!("/events?filters={}", encode(&filters));
        let answer = tokio::time::timeout(self.timeout, async {
            let versioned = format!("{}{path}", self.version().await?);
            self.request(&versioned).await
        });
        let answer = answer.await.unwrap_or_else(|_| Err(self.silent("/events")))?;
        Ok(Events {
            body: answer.response.into_body(),
            rest: Vec::new(),
            ready: Vec::new(),
            _connection: answer.connection,
        })
    }
}

impl Events {
    /// The next event; `None` when the stream has ended, for whatever reason. Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.take(&data);
            }
        }
    }

    fn take(&mut self, data: &[u8]) {
        self.rest.extend_from_slice(data);
        if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
            let lines: Vec<u8> = self.rest.drain(..=end).collect();
            let events = lines.split(|byte| *byte == b'\n');
            self.ready
                .extend(events.rev().filter_map(|line| serde_json::from_slice(line).ok()));
        }
        if self.rest.len() > LINE_MAX {
            self.rest.clear();
        }
    }
}
