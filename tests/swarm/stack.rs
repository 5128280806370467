//! The load balancer as it is installed on a Swarm: Docker loads the image that `cargo xtask dist` makes, and
//! `deploy/swarm/stack.yml` as it is starts an agent on every node.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use lb_tests::client::get;
use lb_tests::require;
use lb_tests::swarm::{Node, Swarm, libraries_of, wait_until};
use lb_tests::traffic::{Style, Traffic};
use serde_json::Value;

// Shared with xtask, which is a program and not a library.
#[path = "../../xtask/src/dist/image.rs"]
mod image;

const NAME: &str = concat!("lb-agent:", env!("CARGO_PKG_VERSION"));
/// The same under another name, as a newer version would have.
const NEXT: &str = "lb-agent:next";
const CONFIGURATION: &str = "../deploy/swarm/agent.toml";

fn workspace_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// As `cargo xtask dist` makes it, but of the programs that the tests were built with: these are not static, and so
/// bring their libraries along.
fn write_image(to: &Path) {
    let programs = ["lb-agent", "lbctl"].map(|name| require::binary(name).unwrap());
    let mut found: Vec<(String, PathBuf)> = programs
        .iter()
        .map(|program| {
            (
                format!("/usr/bin/{}", program.file_name().unwrap().display()),
                program.clone(),
            )
        })
        .collect();
    for library in programs.iter().flat_map(|program| libraries_of(program).unwrap()) {
        let place = library.to_str().unwrap().to_owned();
        if !found.iter().any(|(known, _)| *known == place) {
            found.push((place, library));
        }
    }
    found.push(("/etc/lb/agent.toml".into(), workspace_file(CONFIGURATION)));
    let contents: Vec<_> = found.iter().map(|(_, source)| fs::read(source).unwrap()).collect();
    let files: Vec<_> = found
        .iter()
        .zip(&contents)
        .map(|((path, _), content)| image::File {
            path,
            mode: 0o755,
            content,
        })
        .collect();
    let image = image::Image {
        name: NAME,
        architecture: if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
        version: env!("CARGO_PKG_VERSION"),
        entrypoint: &["/usr/bin/lb-agent"],
        command: &["run"],
        environment: &["PATH=/usr/bin", "LB_BPFFS=/bpf/lb"],
        directories: &["/bpf", "/run/lb"],
        files: &files,
    };
    // As a gzip stream, but without the time that it takes to make it small.
    let mut gzip = GzBuilder::new().write(File::create(to).unwrap(), Compression::none());
    image::write(&image, &mut gzip).unwrap();
    gzip.finish().unwrap();
}

/// What docs/operations.md asks of a node.
fn prepare(node: &Node, image: &Path) {
    // systemd makes them shared on a real host.
    node.output("mount", &["--make-shared", "/run"]).unwrap();
    node.output("mkdir", &["-p", "/run/lb"]).unwrap();
    let said = node.docker(&["load", "--input", image.to_str().unwrap()]).unwrap();
    assert!(said.contains(NAME), "{said}");
}

/// The agent's container on a node, once its health check has passed.
fn healthy_agent(node: &Node) -> Result<String, String> {
    let filter = [
        "ps",
        "--quiet",
        "--filter",
        "name=lb_agent",
        "--filter",
        "health=healthy",
    ];
    let id = node.docker(&filter).unwrap();
    if id.is_empty() {
        let seen = [
            "ps",
            "--all",
            "--filter",
            "name=lb_agent",
            "--format",
            "{{.Names}} {{.Status}}",
        ];
        return Err(format!("{}: {:?}", node.name(), node.docker(&seen).unwrap()));
    }
    Ok(id)
}

/// Another version of the agent, one node after the other, while clients ask: none of them notices.
fn upgrade(swarm: &Swarm, port: u16, agents: &[String]) {
    let nodes = swarm.nodes().iter();
    let targets: Vec<_> = nodes.map(|node| SocketAddr::new(node.address(), port)).collect();
    let client = swarm.client(0).netns();
    let traffic = [Style::NewConnection, Style::KeepAlive].map(|style| Traffic::start(client, &targets, 1, style));
    for node in swarm.nodes() {
        node.docker(&["tag", NAME, NEXT]).unwrap();
    }
    // The stack's own waits are for a cluster of unknown size.
    let update = "service update --detach --no-resolve-image --update-monitor 1s --update-delay 0s --image";
    let update: Vec<&str> = update.split_whitespace().chain([NEXT, "lb_agent"]).collect();
    swarm.manager().docker(&update).unwrap();
    for (node, before) in swarm.nodes().iter().zip(agents) {
        wait_until("another agent is healthy", || {
            Ok(healthy_agent(node).and_then(|id| {
                let image = node.docker(&["inspect", "--format", "{{.Config.Image}}", &id]);
                let image = image.map_err(|error| error.to_string())?;
                if id == *before || image != NEXT {
                    Err(image)
                } else {
                    Ok(())
                }
            }))
        })
        .unwrap();
    }
    traffic.iter().for_each(|traffic| traffic.flow(50));
    for report in traffic.map(Traffic::stop) {
        assert_eq!(report.failures, []);
        assert!(report.ok() > 100, "{report:?}");
    }
}

#[test]
fn the_stack_is_deployed_upgraded_under_traffic_and_removed() {
    if !require::swarm() {
        return;
    }
    let swarm = Swarm::builder().nodes(2).start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.tar.gz");
    write_image(&image);
    for node in swarm.nodes() {
        prepare(node, &image);
        let said = node
            .docker(&["run", "--rm", "--network", "none", NAME, "--version"])
            .unwrap();
        assert_eq!(said, format!("lb-agent {}", env!("CARGO_PKG_VERSION")));
    }

    let secret = directory.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef0123456789abcdef\n").unwrap();
    let manager = swarm.manager();
    manager
        .docker(&["secret", "create", "lb-stream", secret.to_str().unwrap()])
        .unwrap();
    let stack = workspace_file("../deploy/swarm/stack.yml");
    let deploy = ["stack", "deploy", "--resolve-image", "never", "--compose-file"];
    manager
        .docker(&[&deploy[..], &[stack.to_str().unwrap(), "lb"]].concat())
        .unwrap();

    let agents: Vec<String> = swarm
        .nodes()
        .iter()
        .map(|node| {
            wait_until("the agent is healthy", || Ok(healthy_agent(node))).unwrap_or_else(|error| {
                let tasks = manager.docker(&["service", "ps", "--no-trunc", "lb_agent"]).unwrap();
                let logs = manager.docker(&["service", "logs", "--raw", "lb_agent"]);
                panic!("{error:#}\n{tasks}\n{}", logs.unwrap_or_default());
            })
        })
        .collect();

    let web = swarm.service("web", &["--replicas", "1", "--publish", "80"]).unwrap();
    let [task] = &web.wait_running(1).unwrap()[..] else {
        panic!("one replica is one task")
    };
    let port = web.published("tcp", 80).unwrap();
    let answers = || {
        for node in swarm.nodes() {
            let target = SocketAddr::new(node.address(), port);
            let ask = || swarm.client(0).netns().run(|| get(target));
            let answer = wait_until(&format!("{target} answers"), || Ok(ask().map_err(|e| e.to_string()))).unwrap();
            // Neither the node that was asked nor an overlay.
            assert_eq!(
                (&answer.backend, answer.peer.ip()),
                (&task.name, swarm.client(0).address()),
                "by {}",
                node.name()
            );
        }
    };
    answers();

    for (node, agent) in swarm.nodes().iter().zip(&agents) {
        let text = node
            .docker(&["exec", agent, "lbctl", "doctor", "--output", "json"])
            .unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        for id in [
            "bpffs",
            "agent",
            "provider",
            "capabilities",
            "engine",
            "swarm",
            "namespaces",
            "stream",
        ] {
            let checks: Vec<_> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|check| check["id"] == id)
                .collect();
            assert!(
                !checks.is_empty() && checks.iter().all(|check| check["level"] == "PASS"),
                "{} {id}: {checks:#?}",
                node.name()
            );
        }
    }

    upgrade(&swarm, port, &agents);
    answers();

    manager.docker(&["stack", "rm", "lb"]).unwrap();
    for node in swarm.nodes() {
        wait_until("the agent's container is gone", || {
            let left = node.docker(&["ps", "--all", "--quiet", "--filter", "name=lb_agent"])?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .unwrap();
    }
    // Programs and tables are pinned on the node, not in the container.
    answers();

    // As docs/operations.md has it.
    let uninstall = "run --rm --network host --cap-drop ALL --cap-add NET_ADMIN --cap-add SYS_ADMIN \
                     --volume /sys/fs/bpf:/bpf --volume /run/lb:/run/lb \
                     --volume /run/docker/netns:/run/docker/netns:rslave";
    let uninstall: Vec<&str> = uninstall.split_whitespace().chain([NAME, "uninstall"]).collect();
    for node in swarm.nodes() {
        node.docker(&uninstall).unwrap();
        let pins = node.output("ls", &["/sys/fs/bpf"]).unwrap();
        // The kernel's own are always there.
        assert!(
            pins.lines().all(|name| name.ends_with(".debug")),
            "on {}: {pins}",
            node.name()
        );
    }
}
