//! `deploy/`: configurations can be used, and the stack mounts what its configuration names.

use std::path::Path;

use lb_userspace::config::document::Document;
use lb_userspace::config::{Config, ProviderKind, load_from};
use serde_yaml_ng::Value;

const AGENT: &str = include_str!("../../deploy/swarm/agent.toml");
const STACK: &str = include_str!("../../deploy/swarm/stack.yml");
const UNIT: &str = include_str!("../../deploy/systemd/lb-agent.service");

fn config() -> Config {
    let loaded = load_from(Document::new("deploy/swarm/agent.toml", AGENT), [], &[]);
    loaded.unwrap_or_else(|error| panic!("{error}")).config
}

fn agent_service() -> Value {
    let stack: Value = serde_yaml_ng::from_str(STACK).unwrap();
    stack["services"]["agent"].clone()
}

#[test]
fn the_agent_of_the_stack_follows_the_swarm_and_talks_to_the_others() {
    let config = config();
    assert_eq!(config.provider.kind, ProviderKind::Docker);
    assert!(config.stream.enabled());
}

#[test]
fn what_the_configuration_names_is_mounted() {
    let (config, service) = (config(), agent_service());
    let volumes = service["volumes"].as_sequence().unwrap();
    let target = |volume: &Value| Path::new(volume["target"].as_str().unwrap()).to_owned();
    let namespaces = config.provider.exec_root.join("netns");
    for path in [
        &config.paths.bpffs,
        &config.paths.run,
        &config.provider.socket,
        &namespaces,
        &config.stream.state_file,
    ] {
        assert!(
            volumes.iter().any(|v| path.starts_with(target(v))),
            "{}",
            path.display()
        );
    }
    let bpffs = volumes
        .iter()
        .find(|v| config.paths.bpffs.starts_with(target(v)))
        .unwrap();
    assert_eq!(bpffs["source"], "/sys/fs/bpf");
    let secret = service["secrets"][0]["target"].as_str().unwrap();
    assert_eq!(config.stream.secret_file, Path::new("/run/secrets").join(secret));
    let propagation = volumes.iter().find(|v| target(v) == namespaces).unwrap();
    assert_eq!(propagation["bind"]["propagation"], "rslave");
}

#[test]
fn the_stack_starts_this_version_and_uses_nothing_that_stacks_ignore() {
    let service = agent_service();
    let image = format!("${{LB_IMAGE:-lb-agent:{}}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(service["image"].as_str(), Some(&*image));
    for ignored in [
        "privileged",
        "network_mode",
        "pid",
        "security_opt",
        "devices",
        "restart",
    ] {
        assert!(service[ignored].is_null(), "{ignored}");
    }
    // Debian's dockerd 20.10 refuses tasks that name them.
    let capabilities = service["cap_add"].as_sequence().unwrap();
    for unknown in ["BPF", "PERFMON"] {
        assert!(
            !capabilities.iter().any(|capability| capability == unknown),
            "{unknown}"
        );
    }
}

#[test]
fn the_unit_lets_the_agent_enter_network_namespaces() {
    for line in UNIT.lines().filter(|line| line.contains("Capabilit")) {
        assert!(line.contains("CAP_SYS_ADMIN"), "{line}");
    }
    assert!(UNIT.contains("\nRestrictNamespaces=net\n"));
    assert!(UNIT.contains("\nStateDirectory=lb\n"));
}
