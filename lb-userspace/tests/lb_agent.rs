//! `lb-agent config` as a person meets it: exit codes, what goes to which stream, and the words.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-agent"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{status}: {}", text(&stderr));
    text(&stdout)
}

/// What is written to standard error by a command that must fail with this exit code and print nothing else.
fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/examples")
        .join(name)
}

fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_default_is_a_good_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let default = succeeds(&mut agent(&["config", "default"]));
    let path = write(directory.path(), "agent.toml", &default);
    assert_eq!(
        succeeds(&mut agent(&["config", "check", "--config", &path])),
        format!("{path}: ok\n")
    );
}

#[test]
fn the_examples_are_good() {
    let cluster = format!("provider.path={}", example("cluster.toml").display());
    let agent_toml = example("agent.toml");
    let mut command = agent(&["config", "check", "--cluster", "--set", &cluster, "--config"]);
    let output = command.arg(agent_toml).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).ends_with("cluster.toml: ok, 3 nodes, 2 networks, 3 services, 6 backends\n"));
}

#[test]
fn a_wrong_configuration_fails_with_1_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "agent.toml", "[datapath]\nxpd = \"off\"\n");
    for arguments in [["config", "check"], ["config", "show"]] {
        let error = fails(agent(&arguments).args(["--config", &path]), 1);
        assert_eq!(
            error,
            format!(
                "error: {path}:2: datapath.xpd: unknown field `xpd`\n  2 | xpd = \"off\"\n    | ^^^\n    = help: \
                 did you mean `xdp`? known: interfaces, xdp, tunnel_port, hand_over, gateway_bridge, masquerade, flows, overflow, on_exit, \
                 timeouts\n"
            )
        );
    }
    let error = fails(&mut agent(&["run", "--config", &path]), 1);
    assert!(error.contains("unknown field `xpd`"), "{error}");
}

#[test]
fn a_wrong_cluster_file_fails_only_where_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = write(directory.path(), "cluster.toml", "[[service]]\nname = \"web\"\n");
    let path = write(
        directory.path(),
        "agent.toml",
        &format!("[provider]\npath = \"{cluster}\"\n"),
    );
    succeeds(&mut agent(&["config", "check", "--config", &path]));
    let error = fails(&mut agent(&["config", "check", "--cluster", "--config", &path]), 1);
    assert!(
        error.starts_with(&format!("error: {cluster}:1: service[0]: missing field `network`\n")),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_said_once() {
    let error = fails(
        &mut agent(&["config", "check", "--config", "/nonexistent/agent.toml"]),
        1,
    );
    assert_eq!(
        error,
        "error: cannot read /nonexistent/agent.toml: No such file or directory (os error 2)\n  \
         = help: `lb-agent config default` prints one to start from\n"
    );
}

#[test]
fn show_says_which_layer_won() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(
        directory.path(),
        "agent.toml",
        "[datapath]\nxdp = \"native\"\nflows = 2048\n",
    );
    let mut command = agent(&["config", "show", "--origin", "--set", "datapath.flows=8192"]);
    let shown = succeeds(
        command
            .env("LB_CONFIG", &path)
            .env("LB_DATAPATH__FLOWS", "4096")
            .env("LB_LOG__LEVEL", "debug"),
    );
    for line in [
        "xdp = \"native\"  # file, line 2",
        "flows = 8192  # --set",
        "level = \"debug\"  # environment LB_LOG__LEVEL",
        "tunnel_port = 4790  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}:\n{shown}");
    }
}

#[test]
fn wrong_usage_fails_with_2() {
    fails(&mut agent(&["config", "chekc"]), 2);
    fails(&mut agent(&[]), 2);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = agent(&["config", "default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn check_reads_the_secret_of_the_stream() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let secret = write(directory.path(), "secret", &"0123456789abcdef".repeat(4));
    let config = write(
        directory.path(),
        "agent.toml",
        &format!("[stream]\nsecret_file = \"{secret}\"\n"),
    );
    let allow = |mode| std::fs::set_permissions(&secret, PermissionsExt::from_mode(mode)).unwrap();
    allow(0o644);
    let error = fails(&mut agent(&["config", "check", "--config", &config]), 1);
    assert!(
        error.contains("stream.secret_file: ") && error.contains("can be read by others (mode 0644)"),
        "{error}"
    );
    allow(0o600);
    let report = succeeds(&mut agent(&["config", "check", "--config", &config]));
    assert_eq!(report, format!("{config}: ok\n"));
}
