//! A stand-in for dockerd's HTTP: scripted answers on a Unix socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::recorded::answer;

/// What becomes of a call.
#[derive(Clone)]
pub(super) enum Answer {
    Is(Bytes),
    Refused(u16, &'static str),
    Hangs,
}

/// A running stand-in.
pub(super) struct Fake {
    pub(super) socket: PathBuf,
    script: Arc<Script>,
    server: Option<JoinHandle<()>>,
    _directory: TempDir,
}

struct Script {
    answers: Mutex<BTreeMap<String, Answer>>,
    calls: Mutex<Vec<String>>,
    events: broadcast::Sender<&'static str>,
    /// Streams of events end when it is dropped and made anew.
    end: Mutex<broadcast::Sender<()>>,
}

const NO_MANAGER: Answer = Answer::Refused(503, "This node is not a swarm manager.");

impl Fake {
    /// With what the engine of a worker answered.
    pub(super) fn worker() -> Self {
        let mut answers = BTreeMap::new();
        let mut set = |path: &str, bytes: &'static [u8]| {
            answers.insert(path.to_owned(), Answer::Is(Bytes::from_static(bytes)));
        };
        set("/version", answer!("version"));
        set("/info", answer!("worker-info"));
        set("/networks", answer!("worker-networks"));
        set("/containers/json", answer!("worker-containers"));
        set("/networks/docker_gwbridge", answer!("worker-network-docker_gwbridge"));
        for (id, bytes) in [
            ("rrwiwfqv5ag959ohkulmw4f2o", answer!("worker-network-shop")),
            ("5uj89667v48nww0v9pttmee7h", answer!("worker-network-blog")),
            ("6997tq6jx06tkjn2w8gezth1w", answer!("worker-network-ingress")),
            ("g4bsqr23077ky4bmd2qkhpvc5", answer!("worker-network-first_inside")),
        ] {
            set(&format!("/networks/{id}"), bytes);
        }
        for bytes in [
            answer!("worker-container-web"),
            answer!("worker-container-api"),
            answer!("worker-container-metrics"),
            answer!("worker-container-plain"),
            answer!("worker-container-probed"),
            answer!("worker-container-first_front"),
        ] {
            let container: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            set(
                &format!("/containers/{}/json", container["Id"].as_str().unwrap()),
                bytes,
            );
        }
        for path in ["/services", "/tasks", "/nodes"] {
            answers.insert(path.to_owned(), NO_MANAGER);
        }
        let directory = tempfile::tempdir().unwrap();
        let mut fake = Self {
            socket: directory.path().join("docker.sock"),
            script: Arc::new(Script {
                answers: Mutex::new(answers),
                calls: Mutex::default(),
                events: broadcast::channel(16).0,
                end: Mutex::new(broadcast::channel(1).0),
            }),
            server: None,
            _directory: directory,
        };
        fake.start();
        fake
    }

    /// With what the engine of a manager answered.
    pub(super) fn manager() -> Self {
        let fake = Self::worker();
        fake.promote();
        fake
    }

    pub(super) fn promote(&self) {
        self.set("/info", answer!("manager-info"));
        self.set("/networks", answer!("manager-networks"));
        self.set("/services", answer!("services"));
        self.set("/tasks", answer!("tasks"));
        self.set("/nodes", answer!("nodes"));
    }

    pub(super) fn demote(&self) {
        self.set("/info", answer!("worker-info"));
        for path in ["/services", "/tasks", "/nodes"] {
            self.answer(path, NO_MANAGER);
        }
    }

    pub(super) fn start(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&self.script));
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    /// The socket's file stays, as it does after a crash.
    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
        self.end_events();
    }

    pub(super) fn set(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.answer(path, Answer::Is(Bytes::copy_from_slice(bytes.as_ref())));
    }

    pub(super) fn answer(&self, path: &str, answer: Answer) {
        self.script.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(super) fn event(&self, line: &'static str) {
        let _ = self.script.events.send(line);
    }

    pub(super) fn end_events(&self) {
        *self.script.end.lock().unwrap() = broadcast::channel(1).0;
    }

    /// Paths that were asked for since the last call.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.calls.lock().unwrap())
    }
}

async fn serve(State(script): State<Arc<Script>>, request: Request) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix("/v1.41").unwrap_or(path).to_owned();
    script.calls.lock().unwrap().push(path.clone());
    if path == "/events" {
        let events = script.events.subscribe();
        let end = script.end.lock().unwrap().subscribe();
        let body = futures::stream::unfold((events, end), |(mut events, mut end)| async {
            let line = tokio::select! {
                line = events.recv() => line.ok()?,
                _ = end.recv() => return None,
            };
            Some((Ok::<_, std::io::Error>(Bytes::from(line)), (events, end)))
        });
        return Response::new(Body::from_stream(body));
    }
    let answer = script.answers.lock().unwrap().get(&path).cloned();
    match answer {
        Some(Answer::Is(bytes)) => Response::new(Body::from(bytes)),
        Some(Answer::Refused(status, message)) => refusal(status, message),
        Some(Answer::Hangs) => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            refusal(500, "late")
        }
        None => refusal(404, "page not found"),
    }
}

fn refusal(status: u16, message: &str) -> Response {
    let body = serde_json::json!({ "message": message }).to_string();
    Response::builder().status(status).body(Body::from(body)).unwrap()
}
