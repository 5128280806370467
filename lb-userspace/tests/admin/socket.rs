//! The socket: who may open it, what becomes of it, and that nothing but reading is answered.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use lb_common::testing::skip::skip;
use lb_userspace::admin::Socket;

use crate::agent::{Agent, agent, agent_with, state};

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
