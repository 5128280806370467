//! [`Engine`]: a client of the Engine API over its Unix socket.
//!
//! Why no client library: bollard 0.21, the usual one, knows a task without its addresses (`NetworksAttachments`),
//! refuses a whole list for one word that it does not know, and hands out no bytes to compare. What is needed of it,
//! a few `GET`s with hyper, is this file.
//!
//! A connection is made for each call. So an engine that was restarted needs no special care, and nothing is left
//! behind when a call is given up.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::api::node::{Container, ContainerDetail, EngineVersion, GossipedNetwork};
use super::api::{self, ApiError, Info, Listed, Network, Object};

mod events;
mod version;

pub use events::Events;

/// No answer may be longer: ten times what a Swarm of ten thousand tasks lists.
const LENGTH_MAX: usize = 512 << 20;

/// Why the engine gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody listens at the socket, or we may not speak to it.
    #[error("cannot reach the engine at {socket}: {error}; {}", unreachable_hint(error))]
    Unreachable {
        /// The socket.
        socket: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It accepted the call and does not answer.
    #[error("the engine at {socket} does not answer GET {path} within {}", humantime::format_duration(*.after))]
    Silent {
        /// The socket.
        socket: String,
        /// What was asked for.
        path: String,
        /// The patience that we had.
        after: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("the engine at {socket} broke off its answer to GET {path}: {message}")]
    Broken {
        /// The socket.
        socket: String,
        /// What was asked for.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// It answered that it cannot.
    #[error("the engine refuses GET {path}: {message} (status {status})")]
    Refused {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// It answered something else than documented.
    #[error(transparent)]
    Answer(#[from] ApiError),
    /// It speaks no API that we speak.
    #[error("{0}")]
    Version(String),
}

fn unreachable_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "the agent must run as root or in the group docker",
        std::io::ErrorKind::NotFound => "is provider.socket right, and is dockerd started?",
        _ => "is dockerd running?",
    }
}

impl EngineError {
    /// Whether the engine says that it is no manager of a working Swarm, or has no leader to ask.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Whether what was asked for is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// The engine behind one socket.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    timeout: Duration,
    /// What the engine and we both speak, as `/v1.44`; asked for again after each failure, for the engine may be
    /// another one by then.
    version: Mutex<Option<String>>,
}

/// An answer, and the connection from which its body still comes.
struct Answer {
    response: Response<Incoming>,
    connection: AbortOnDropHandle<()>,
}

impl Engine {
    /// For the engine that listens at `socket`; nothing is sent yet. No call takes longer than `timeout`.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            socket: socket.into(),
            timeout,
            version: Mutex::new(None),
        }
    }

    /// Where the engine listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the engine says about itself.
    ///
    /// # Errors
    /// See [`EngineError`]; so for all other calls.
    pub async fn info(&self) -> Result<Info, EngineError> {
        self.object("/info").await
    }

    /// A list as it was sent, for [`api::list`]. Managers alone list services, tasks and nodes.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn list_bytes<T: Listed>(&self) -> Result<Bytes, EngineError> {
        self.get(T::PATH).await
    }

    /// Networks that the engine knows: on a worker those of containers on its node, on a manager all of the Swarm.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn networks(&self) -> Result<Vec<Network>, EngineError> {
        Ok(api::list(&self.list_bytes::<Network>().await?)?)
    }

    /// Running containers.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        Ok(api::list(&self.list_bytes::<Container>().await?)?)
    }

    /// One container in full; `None` if it is not there (any more).
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn container(&self, id: &str) -> Result<Option<ContainerDetail>, EngineError> {
        present(self.object(&format!("/containers/{}/json", encode(id))).await)
    }

    /// One network in full; `None` if it is not there.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn network(&self, id: &str) -> Result<Option<Network>, EngineError> {
        present(self.object(&format!("/networks/{}", encode(id))).await)
    }

    /// One network, and what the nodes tell each other about it; `None` if it is not there. Each call makes the
    /// engine log errors about its own endpoints: not to be done often.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn gossip(&self, id: &str) -> Result<Option<GossipedNetwork>, EngineError> {
        present(self.object(&format!("/networks/{}?verbose=true", encode(id))).await)
    }

    async fn object<T: Object>(&self, path: &str) -> Result<T, EngineError> {
        Ok(api::object(&self.get(path).await?)?)
    }

    /// `GET` of a path of the API, with the version before it.
    async fn get(&self, path: &str) -> Result<Bytes, EngineError> {
        let result = tokio::time::timeout(self.timeout, async {
            let versioned = format!("{}{path}", self.version().await?);
            self.fetch(&versioned).await
        });
        let result = result.await.unwrap_or_else(|_| Err(self.silent(path)));
        // 503 and 404 are said by an engine that is well.
        if result.as_ref().is_err_and(|e| !e.is_unavailable() && !e.is_missing()) {
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    /// What the engine and we both speak, as the beginning of a path: `/v1.44`.
    ///
    /// # Errors
    /// There is none, or see [`EngineError`].
    pub async fn version(&self) -> Result<String, EngineError> {
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let engine: EngineVersion = api::object(&self.fetch(EngineVersion::PATH).await?)?;
        let chosen = version::choose(&engine).map_err(EngineError::Version)?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen.clone());
        Ok(chosen)
    }

    async fn fetch(&self, path: &str) -> Result<Bytes, EngineError> {
        let answer = self.request(path).await?;
        let body = Limited::new(answer.response.into_body(), LENGTH_MAX).collect().await;
        drop(answer.connection);
        Ok(body.map_err(|error| self.broken(path, &*error))?.to_bytes())
    }

    /// Sends a request and awaits the head of the answer.
    async fn request(&self, path: &str) -> Result<Answer, EngineError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| EngineError::Unreachable {
            socket: self.socket.display().to_string(),
            error,
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(path, &error))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // What breaks is seen by who reads the answer.
            let _ = connection.await;
        }));
        let request = Request::get(path)
            .header(header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(path, &error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(path, &error))?;
        if response.status() == StatusCode::OK {
            return Ok(Answer { response, connection });
        }
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), 64 << 10).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(EngineError::Refused {
            path: path.to_owned(),
            status,
            message: api::message(&body),
        })
    }

    fn silent(&self, path: &str) -> EngineError {
        EngineError::Silent {
            socket: self.socket.display().to_string(),
            path: path.to_owned(),
            after: self.timeout,
        }
    }

    fn broken(&self, path: &str, error: &(dyn std::error::Error + 'static)) -> EngineError {
        let mut message = error.to_string();
        if let Some(source) = error.source() {
            message.push_str(&format!(": {source}"));
        }
        EngineError::Broken {
            socket: self.socket.display().to_string(),
            path: path.to_owned(),
            message,
        }
    }
}

fn present<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Percent-encodes all but letters, digits and `-._~`.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
