//! The admin API over a real Unix socket, asked by the real `lbctl`, over tables in memory.

mod cluster;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_userspace::admin::{self, Socket, State, api};
use lb_userspace::telemetry::metrics::{DnsCounts, DnsLatency, Eviction, Metrics, Outcome, Phase, Reading};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

struct Agent {
    directory: tempfile::TempDir,
    metrics_address: std::net::SocketAddr,
    cancel: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
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

fn state(plan_steps: u64) -> State {
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

fn agent_with(state: State, mode: u32) -> Agent {
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

fn agent() -> Agent {
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

fn lbctl(agent: &Agent, arguments: &str) -> Output {
    command(agent.directory.path())
        .args(arguments.split(' '))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn text(agent: &Agent, arguments: &str) -> String {
    stdout(&lbctl(agent, arguments))
}

/// Body of a plain HTTP/1.0 request, with its status line.
fn http(address: std::net::SocketAddr, path: &str) -> (String, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().into(), body.into())
}

#[test]
fn services_are_named_and_joined_with_their_flows() {
    let agent = agent();
    insta::assert_snapshot!("service_ls", text(&agent, "service ls"));
    insta::assert_snapshot!("service_ps", text(&agent, "service ps web"));
    insta::assert_snapshot!("service_inspect", text(&agent, "service inspect front/web"));
    insta::assert_snapshot!(
        "service_inspect_json",
        text(&agent, "service inspect front/web -o json")
    );
    insta::assert_snapshot!("backend_ls", text(&agent, "backend ls -o wide"));
}

#[test]
fn connections_leave_out_the_expired_and_show_what_became_of_the_backend() {
    let agent = agent();
    // Ages move while the test runs.
    let line = |line: &str| {
        let keep = |(i, cell)| if (5..7).contains(&i) { "?" } else { cell };
        line.split_whitespace()
            .enumerate()
            .map(keep)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let redact = |text: &str| text.lines().skip(1).map(line).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!("conn_ls", redact(&text(&agent, "conn ls -o wide")));
    assert_eq!(text(&agent, "conn count"), "3\n");
    assert_eq!(text(&agent, "conn count -f backend=10.0.1.21:8080"), "2\n");
    assert_eq!(text(&agent, "conn count -f origin=n2"), "1\n");
    assert_eq!(text(&agent, "conn count -f service=web -f client=198.51.100.9"), "3\n");
    let none = lbctl(&agent, "conn count --fail-empty -f service=api");
    assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(1), "0\n"));
    let cut = lbctl(&agent, "conn ls --limit 1 -q");
    assert_eq!(String::from_utf8_lossy(&cut.stdout).lines().count(), 1);
    assert_eq!(
        String::from_utf8_lossy(&cut.stderr),
        "note: 1 of 3 connections; --limit 0 shows all\n"
    );
}

#[test]
fn names_may_be_shortened_unless_ambiguous() {
    let agent = agent();
    assert_eq!(text(&agent, "service inspect web-a -q"), "back/web-admin\n");
    assert_eq!(text(&agent, "service inspect 3 -q"), "front/web\n");
    let ambiguous = lbctl(&agent, "service inspect api");
    assert_eq!(ambiguous.status.code(), Some(5));
    assert_eq!(
        String::from_utf8_lossy(&ambiguous.stderr),
        "error: \"api\" is more than one service\n  hint: one of: back/api, front/api\n"
    );
    assert_eq!(text(&agent, "service inspect back/api -q"), "back/api\n");
    let missing = lbctl(&agent, "service inspect wbe -o json");
    assert_eq!(missing.status.code(), Some(5));
    let error: api::ErrorBody = serde_json::from_slice(&missing.stderr).unwrap();
    assert_eq!(error.error.code, api::Code::NotFound);
    assert_eq!(
        error.error.hint.unwrap(),
        "did you mean \"web\"? list with `lbctl service ls`"
    );
}

#[test]
fn lists_filter_and_print_names() {
    let agent = agent();
    assert_eq!(
        text(&agent, "service ls -q -f network=back"),
        "back/api\nback/db\nback/web-admin\n"
    );
    assert_eq!(text(&agent, "service ls -o name -f mode=dnsrr"), "back/db\n");
    assert_eq!(text(&agent, "backend ls -q -f state=draining"), "web.2\n");
    assert_eq!(text(&agent, "service ls --no-headers -f name=db").lines().count(), 1);
    let bad = lbctl(&agent, "service ls -f colour=red");
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("hint: fields: id, mode, name"));
    let yaml = text(&agent, "service ls -o yaml -f name=db");
    assert!(
        yaml.starts_with("api_version: v1\nkind: ServiceList\nsource: agent\ngeneration: 418\n"),
        "{yaml}"
    );
}

#[test]
fn status_shows_the_node() {
    let agent = agent();
    insta::assert_snapshot!("status", text(&agent, "status"));
    assert_eq!(lbctl(&agent, "status -q").status.code(), Some(0));
    let list: api::List<api::Status> = serde_json::from_str(&text(&agent, "status -o json")).unwrap();
    assert_eq!((list.kind.as_str(), list.items[0].ready), ("Status", true));
    assert_eq!(list.items[0].traffic.len(), lb_common::verdict::Reason::ALL.len());
}

#[test]
fn plan_and_names_answer_with_exit_codes() {
    let same = agent();
    assert_eq!(text(&same, "plan"), "Nothing to do: the maps hold the desired state.\n");
    let differs = agent_with(state(2), 0o600);
    let plan = lbctl(&differs, "plan");
    assert_eq!(
        (plan.status.code(), stdout(&plan).as_str()),
        (Some(1), "~ service web\n")
    );
    let known = lbctl(&same, "dns query web --from front");
    assert_eq!(known.status.code(), Some(0));
    insta::assert_snapshot!("dns_query", stdout(&known));
    assert_eq!(lbctl(&same, "dns query nope --from front").status.code(), Some(1));
    assert_eq!(lbctl(&same, "dns query web --client nonsense").status.code(), Some(2));
}

#[test]
fn a_socket_that_may_not_be_opened_is_exit_code_4() {
    if !nix::unistd::geteuid().is_root() {
        skip("changing the user needs root");
        return;
    }
    let agent = agent_with(state(0), 0o600);
    // The test's directory and the binary must be reachable for the other user.
    std::fs::set_permissions(agent.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = agent.directory.path().join("lbctl");
    // By another process: a descriptor that writes it here could be inherited by what another test starts just then, and
    // the kernel runs no file that is open for writing.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_lbctl"))
        .arg(&binary)
        .status()
        .unwrap();
    assert!(copied.success());
    let output = Command::new(binary)
        .args(["service", "ls", "--socket"])
        .arg(agent.directory.path().join("admin.sock"))
        .arg("--bpffs")
        .arg(agent.directory.path().join("none"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: run as root, or join the group"));
}

#[test]
fn tcp_serves_metrics_and_health_only() {
    let agent = agent();
    assert_eq!(
        http(agent.metrics_address, "/livez"),
        ("HTTP/1.0 200 OK".into(), "ok\n".into())
    );
    assert_eq!(http(agent.metrics_address, "/readyz").0, "HTTP/1.0 200 OK");
    assert_eq!(http(agent.metrics_address, "/v1/status").0, "HTTP/1.0 404 Not Found");
    let (head, page) = http(agent.metrics_address, "/metrics");
    assert_eq!(head, "HTTP/1.0 200 OK");
    for family in lb_userspace::telemetry::metrics::FAMILIES {
        assert!(
            page.contains(&format!("# TYPE {} ", family.name)),
            "{} is missing",
            family.name
        );
    }
    for reason in lb_common::verdict::Reason::ALL {
        assert!(
            page.contains(&format!("reason=\"{}\"", reason.name())),
            "{} is missing",
            reason.name()
        );
    }
    let stable = page
        .lines()
        .filter(|l| !l.contains("process_") && !l.contains("last_success"));
    insta::assert_snapshot!("metrics", stable.collect::<Vec<_>>().join("\n"));
}

#[test]
fn not_ready_before_the_first_synchronisation() {
    let mut early = state(0);
    early.status = watch::channel(api::Status::default()).1;
    let agent = agent_with(early, 0o600);
    assert_eq!(
        http(agent.metrics_address, "/readyz").0,
        "HTTP/1.0 503 Service Unavailable"
    );
    assert_eq!(http(agent.metrics_address, "/livez").0, "HTTP/1.0 200 OK");
    assert_eq!(lbctl(&agent, "status -q").status.code(), Some(1));
}

#[test]
fn the_socket_has_its_mode_replaces_a_dead_one_and_spares_a_live_one() {
    let agent = agent_with(state(0), 0o660);
    let path = agent.directory.path().join("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let second = runtime.block_on(Socket::bind(&path, 0o660, None)).unwrap_err();
    assert!(second.to_string().ends_with("another agent is listening"), "{second}");

    let dead = agent.directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    runtime.block_on(Socket::bind(&dead, 0o600, None)).unwrap();
    let file = agent.directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = runtime.block_on(Socket::bind(&file, 0o600, None)).unwrap_err();
    assert!(error.to_string().ends_with("exists and is no socket"));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let group = runtime.block_on(Socket::bind(
        &agent.directory.path().join("g"),
        0o600,
        Some("no-such-group"),
    ));
    assert_eq!(
        group.unwrap_err().to_string(),
        "no group \"no-such-group\" for the admin socket"
    );
}

#[test]
fn stopping_removes_the_socket() {
    let mut agent = agent();
    let path = agent.directory.path().join("admin.sock");
    assert!(path.exists());
    agent.cancel.cancel();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while path.exists() {
        assert!(std::time::Instant::now() < deadline, "the socket is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(agent.runtime.take());
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("LB_TEST_STRICT").is_none(),
        "strict mode, but would skip: {why}"
    );
    println!("SKIP: {why}");
}

/// The first line of the answer to a request on the agent's socket.
fn request(agent: &Agent, method: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let socket = agent.directory.path().join("admin.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn nothing_but_reading_is_answered() {
    let agent = agent();
    let paths = [
        "status",
        "services",
        "services/web",
        "backends",
        "flows",
        "plan",
        "dns?name=web",
    ];
    let paths = paths.map(|path| format!("/v1/{path}"));
    for path in paths.iter().map(String::as_str).chain(["/livez", "/metrics"]) {
        assert!(request(&agent, "GET", path).contains(" 200 "), "GET {path}");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = request(&agent, method, path);
            assert!(answer.contains(" 405 "), "{method} {path}: {answer}");
        }
    }
}
