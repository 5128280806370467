//! Layers, checks and printing of the configuration.

use std::time::Duration;

use super::document::Document;
use super::*;

fn load_text(text: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, ConfigError> {
    let environment = environment
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    load_from(Document::new("agent.toml", text), environment, &sets)
}

fn error_of(text: &str) -> String {
    load_text(text, &[], &[])
        .expect_err("the configuration is wrong")
        .to_string()
}

#[test]
fn default_file_reads_back_as_the_default() {
    let read: Config = Document::new("default", &default_file()).parse().unwrap();
    assert_eq!(read, Config::default());
}

#[test]
fn default_file_explains_every_setting() {
    insta::assert_snapshot!(default_file());
}

#[test]
fn default_file_forgets_no_setting() {
    fn fields(table: &toml::Table, out: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => fields(inner, out),
                _ => out.push(key.clone()),
            }
        }
    }
    let mut names = Vec::new();
    fields(&toml::Table::try_from(Config::default()).unwrap(), &mut names);
    let printed = default_file();
    for name in names.iter().filter(|name| *name != "workload") {
        assert!(
            printed.lines().any(|line| line.starts_with(&format!("{name} = "))),
            "{name} is not printed"
        );
    }
}

#[test]
fn an_empty_file_is_the_default_with_names_filled_in() {
    let config = load_text("", &[], &[]).unwrap().config;
    assert!(!config.node.name.is_empty());
    assert_eq!(config.admin.socket.to_str(), Some("/run/lb/admin.sock"));
    assert_eq!(config.datapath, Datapath::default());
}

#[test]
fn later_layers_win() {
    let file = "[datapath]\nxdp = \"native\"\ntunnel_port = 1\nflows = 2048\n";
    let environment = [
        ("LB_DATAPATH__TUNNEL_PORT", "2"),
        ("LB_DATAPATH__FLOWS", "4096"),
        ("LB_EBPF_OBJECT", "x.o"),
    ];
    let loaded = load_text(file, &environment, &["datapath.flows=8192"]).unwrap();
    let datapath = &loaded.config.datapath;
    assert_eq!(
        (datapath.xdp, datapath.tunnel_port, datapath.flows),
        (XdpMode::Native, 2, 8192)
    );
    assert_eq!(loaded.origins["datapath.xdp"], Origin::File(2));
    assert_eq!(
        loaded.origins["datapath.tunnel_port"],
        Origin::Environment("LB_DATAPATH__TUNNEL_PORT".into())
    );
    assert_eq!(loaded.origins["datapath.flows"], Origin::CommandLine);
}

#[test]
fn lists_durations_and_modes_from_outside_the_file() {
    let sets = [
        "datapath.interfaces=eth0,en*",
        "dns.listen=[\"10.0.0.1:53\", \"[fd00::1]:53\"]",
        "dns.upstreams=9.9.9.9",
        "dns.ttl=1m",
        "admin.mode=0600",
        "metrics.listen=",
        "provider.path=/srv/cluster.toml",
    ];
    let config = load_text("", &[], &sets).unwrap().config;
    assert_eq!(
        config
            .datapath
            .interfaces
            .iter()
            .map(InterfaceGlob::as_str)
            .collect::<Vec<_>>(),
        ["eth0", "en*"]
    );
    assert_eq!(
        config.dns.listen,
        ["10.0.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]
    );
    assert_eq!(config.dns.upstreams, ["9.9.9.9:53".parse().unwrap()]);
    assert_eq!(config.dns.ttl, Duration::from_secs(60));
    assert_eq!(config.admin.mode, FileMode(0o600));
    assert_eq!(config.metrics.listen, []);
    assert_eq!(config.provider.path.to_str(), Some("/srv/cluster.toml"));
}

#[test]
fn metrics_listen_takes_one_address_as_a_string() {
    let config = load_text("[metrics]\nlisten = \"0.0.0.0:9000\"\n", &[], &[])
        .unwrap()
        .config;
    assert_eq!(config.metrics.listen, ["0.0.0.0:9000".parse().unwrap()]);
    let config = load_text("[metrics]\nlisten = \"\"\n", &[], &[]).unwrap().config;
    assert_eq!(config.metrics.listen, []);
}

#[test]
fn the_first_matching_workload_decides_the_network() {
    let file = "[[workload]]\ninterface = \"veth-web*\"\nnetwork = \"shop\"\n\
                [[workload]]\ninterface = \"veth-*\"\nnetwork = \"back\"\n";
    let config = load_text(file, &[], &[]).unwrap().config;
    assert_eq!(config.workload_network("veth-web1"), Some("shop"));
    assert_eq!(config.workload_network("veth-db1"), Some("back"));
    assert_eq!(config.workload_network("eth0"), None);
}

#[test]
fn show_reads_back_as_the_same_configuration() {
    let file = "[datapath.timeouts]\nudp_new = \"7s\"\n[[workload]]\ninterface = \"veth?\"\nnetwork = \"shop\"\n";
    let loaded = load_text(file, &[("LB_NODE__NAME", "node-1")], &[]).unwrap();
    for with_origins in [false, true] {
        let again = load_text(&effective(&loaded, with_origins), &[], &[]).unwrap();
        assert_eq!(again.config, loaded.config);
    }
    insta::assert_snapshot!(effective(&loaded, true));
}

#[test]
fn faults_name_file_line_and_field() {
    let wrong = [
        "[datapath]\nxpd = \"off\"\n",
        "[datapth]\nxdp = \"off\"\n",
        "[datapath]\nxdp = \"genric\"\n",
        "[datapath]\ntunnel_port = 70000\n",
        "[datapath]\nmasquerade = \"198.18.0.0\"\n",
        "[datapath]\ninterfaces = \"eth0\"\n",
        "[datapath]\ninterfaces = [\"eth0\", \"en[\"]\n",
        "[datapath.timeouts]\ntcp_syn = 30\n",
        "[datapath.timeouts]\ntcp_syn = \"30 parsecs\"\n",
        "[datapath.timeouts\n",
        "[datapath]\nxdp = \"off\"\nxdp = \"auto\"\n",
        "[dns]\nenabled = \"yes\"\n",
        "[dns]\nlisten = [\"10.0.0.1\"]\n",
        "[dns]\nupstreams = [\"ns.example\"]\n",
        "[admin]\nmode = \"0999\"\n",
        "[[workload]]\ninterface = \"veth*\"\n",
        "[provider]\npoll = \"5s\"\nsocket = \"docker.sock\"\n",
        "[provider]\nkind = \"consul\"\n",
    ];
    let text: Vec<String> = wrong.iter().map(|text| error_of(text)).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

#[test]
fn checks_report_everything_at_once() {
    let file = "[paths]\nrun = \"run\"\n[datapath]\ntunnel_port = 0\nflows = 1\nmasquerade = \"127.0.0.0/16\"\n[datapath.timeouts]\ntcp_closed = \"0s\"\n\
                [dns]\nenabled = true\nlisten = [\"10.0.0.1:53\"]\nupstreams = [\"10.0.0.1\"]\nttl = \"500ms\"\n[log]\nlevel = \"lb=loud\"\n";
    insta::assert_snapshot!(error_of(file));
}

#[test]
fn the_stream_takes_a_secret_or_certificates() {
    let secret = load_text("[stream]\nsecret_file = \"/etc/lb/secret\"\n", &[], &[]).unwrap();
    let stream = &secret.config.stream;
    assert!(stream.enabled());
    assert_eq!((stream.port(), stream.connections), (Some(4790), 1024));
    assert_eq!(stream.state_file.to_str(), Some("/run/lb/snapshot"));
    let off = load_text("[paths]\nrun = \"/run/other\"\n", &[], &[])
        .unwrap()
        .config
        .stream;
    assert!(!off.enabled());
    assert_eq!(off.state_file.to_str(), Some("/run/other/snapshot"));

    let wrong = [
        "[stream]\nsecret_file = \"secret\"\nca = \"/ca.crt\"\n",
        "[stream]\ncertificate = \"/node.crt\"\nca = \"/ca.crt\"\n",
        "[stream]\nlisten = [\"0.0.0.0:4790\", \"[::]:0\"]\nconnections = 0\n",
    ];
    let text: Vec<String> = wrong.iter().map(|text| error_of(text)).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

#[test]
fn faults_outside_the_file_name_their_source() {
    let one = load_text("", &[("LB_LOG__LEVLE", "debug")], &["dns.enabled=1", "datapath=1"])
        .unwrap_err()
        .to_string();
    let two = load_text("", &[("LB_DATAPATH__FLOWS", "1")], &[])
        .unwrap_err()
        .to_string();
    let three = load_text("", &[], &["datapath.xdp"]).unwrap_err().to_string();
    insta::assert_snapshot!([one, two, three].join("\n\n"));
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let error = load(std::path::Path::new("/nonexistent/agent.toml"), &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nonexistent/agent.toml: No such file"),
        "{error}"
    );
    assert!(error.to_string().contains("lb-agent config default"), "{error}");
}

#[test]
fn bytes_that_are_no_text_have_a_line() {
    let fault = Document::from_bytes("agent.toml", b"[log]\nlevel = \"\xff\"\n").unwrap_err();
    assert_eq!(fault.summary(), "agent.toml:2: not UTF-8 text");
}
