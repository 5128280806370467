//! The admin API as an agent serves it, with what it says in memory; and how it is asked.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_userspace::admin::{self, Socket, State, api};
use lb_userspace::telemetry::metrics::{DnsCounts, DnsLatency, Eviction, Metrics, Outcome, Phase, Reading};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster;

pub(crate) struct Agent {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn status() -> api::Status {
    // Shown in hours and minutes, which do not change while the test runs.
    let earlier = SystemTime::now() - Duration::from_secs(90 * 60 + 10);
    api::Status {
        ready: true,
        agent: Some(api::AgentStatus {
            pid: 812,
            version: "0.1.0".into(),
            node: "n1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            started: earlier,
        }),
        provider: Some(api::ProviderStatus {
            kind: "file".into(),
            location: "cluster.toml".into(),
            connected: true,
            generation: 418,
            applied: 418,
            last_sync: Some(earlier),
            last_sync_ms: Some(1.5),
            ..Default::default()
        }),
        datapath: api::DatapathStatus {
            schema: 1,
            interfaces: vec![api::InterfaceStatus {
                name: "eth0".into(),
                namespace: String::new(),
                ifindex: 2,
                role: "node".into(),
                hooks: vec![api::HookStatus {
                    hook: "tc_ingress".into(),
                    mode: "tcx".into(),
                    why: None,
                }],
            }],
        },
        ..Default::default()
    }
}

pub(crate) fn state(plan_steps: u64) -> State {
    let dns = || DnsCounts {
        answers: vec![("local", "a", "noerror", 9)],
        latency: vec![DnsLatency {
            source: "local",
            buckets: vec![(0.001, 8), (f64::INFINITY, 1)],
            sum: 0.5,
            count: 9,
        }],
        exceptions: [0, 0, 1, 0, 0],
    };
    let metrics = Metrics::new(Some(Box::new(dns)));
    metrics.synced(Outcome::Ok);
    metrics.phase(Phase::Apply, Duration::from_millis(3));
    metrics.propagated(Duration::from_millis(20));
    metrics.read(Reading::Accepted);
    metrics.evicted(Eviction::Expired, 5);
    State {
        status: watch::channel(status()).1,
        snapshot: watch::channel(Arc::new(cluster::snapshot())).1,
        view: Arc::new(cluster::Memory::new()),
        plan: Arc::new(move || {
            let text = if plan_steps == 0 {
                String::new()
            } else {
                "~ service web\n".into()
            };
            Ok(api::Plan {
                steps: plan_steps,
                text,
                plan: serde_json::Value::Null,
            })
        }),
        dns: Arc::new(|question| {
            let found = question.name == "web" && question.network.as_deref() == Some("front");
            let records = if found {
                vec![api::DnsRecord {
                    name: "web.".into(),
                    kind: "A".into(),
                    ttl: 5,
                    data: "10.0.1.5".into(),
                }]
            } else {
                vec![]
            };
            Ok(api::DnsAnswer {
                name: question.name.clone(),
                network: question.network.clone(),
                source: "local".into(),
                rcode: if found { "NOERROR" } else { "NXDOMAIN" }.into(),
                records,
                why: vec!["service web has a VIP".into()],
            })
        }),
        metrics: Arc::new(metrics),
    }
}

pub(crate) fn agent_with(state: State, mode: u32) -> Agent {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cancel = CancellationToken::new();
    let path = directory.path().join("admin.sock");
    let metrics_address = runtime.block_on(async {
        let socket = Socket::bind(&path, mode, None).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(admin::serve(socket, state.clone(), cancel.clone()));
        tokio::spawn(admin::serve_metrics(listener, state, cancel.clone()));
        address
    });
    Agent {
        directory,
        metrics_address,
        cancel,
        runtime: Some(runtime),
    }
}

pub(crate) fn agent() -> Agent {
    agent_with(state(0), 0o600)
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command
        .env_clear()
        .env("LB_SOCKET", directory.join("admin.sock"))
        .env("LB_BPFFS", directory.join("none"));
    command
}

pub(crate) fn lbctl(agent: &Agent, arguments: &str) -> Output {
    command(agent.directory.path())
        .args(arguments.split(' '))
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn text(agent: &Agent, arguments: &str) -> String {
    stdout(&lbctl(agent, arguments))
}

/// Body of a plain HTTP/1.0 request, with its status line.
pub(crate) fn http(address: SocketAddr, path: &str) -> (String, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().into(), body.into())
}
