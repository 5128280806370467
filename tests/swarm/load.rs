//! [`Shop`]: a service that everybody asks while something happens to it, and [`Load`]: those who ask.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use lb_tests::client::Connection;
use lb_tests::swarm::{Balanced, Network, Service, Task};
use lb_tests::traffic::{Failure, Report, Stage, Style, Traffic};

/// Longer than this nobody waits for an answer. A client whose packet is lost sends it again after 1 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A service `web` on a network of its own and published, and a client inside that network on some nodes.
pub(super) struct Shop<'a> {
    // Before the network that they are on.
    pub(super) web: Service<'a>,
    clients: Vec<(Service<'a>, Task)>,
    pub(super) network: Network<'a>,
    swarm: &'a Balanced,
}

impl<'a> Shop<'a> {
    /// With `replicas` tasks of `web`, which all agents know; `options` as `docker service create` takes them.
    pub(super) fn open(swarm: &'a Balanced, replicas: usize, options: &[&str], clients: &[usize]) -> Self {
        let network = swarm.network("shop", &[]).unwrap();
        let clients: Vec<_> = clients
            .iter()
            .map(|node| {
                let place = format!("node.hostname=={}", swarm.node(*node).name());
                let options = ["--constraint", &place, "--network", network.name()];
                swarm.service("client", &options).unwrap()
            })
            .collect();
        let count = replicas.to_string();
        let mut all = vec!["--replicas", &count, "--publish", "80", "--network", network.name()];
        all.extend(options);
        let web = swarm.service("web", &all).unwrap();
        let clients = clients
            .into_iter()
            .map(|client| {
                let task = client.wait_running(1).unwrap().remove(0);
                (client, task)
            })
            .collect();
        swarm.wait_serving(&web, replicas).unwrap();
        Self {
            web,
            clients,
            network,
            swarm,
        }
    }

    /// Its port on a node.
    pub(super) fn at(&self, node: usize) -> SocketAddr {
        let port = self.web.published("tcp", 80).unwrap();
        SocketAddr::new(self.swarm.node(node).address(), port)
    }

    /// Its virtual address.
    pub(super) fn vip(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.web.vip(self.network.id()).unwrap()), 80)
    }

    /// The tasks of the clients inside.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Task> {
        self.clients.iter().map(|(_, task)| task)
    }

    /// Kept connections, at least one from every place to each of `tasks`, with the task's name.
    pub(super) fn hold(&self, nodes: &[usize], tasks: &[Task]) -> Vec<(String, Connection)> {
        let wanted: BTreeSet<_> = tasks.iter().map(|task| &task.name).collect();
        let open = |target| {
            let mut held = Vec::new();
            // In turn, but others ask too.
            for _ in 0..20 * tasks.len() {
                let mut connection = Connection::open(target).unwrap();
                held.push((connection.ask().unwrap().backend, connection));
                if held.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() == wanted {
                    return held;
                }
            }
            panic!("{target}: not all of {wanted:?} answer");
        };
        let mut all = Vec::new();
        for node in nodes {
            let target = self.at(*node);
            all.extend(self.swarm.client(0).netns().run(|| open(target)));
        }
        let vip = self.vip();
        for client in self.clients() {
            all.extend(client.within(self.swarm, || open(vip)).unwrap());
        }
        all
    }

    /// Waits until no agent of `nodes` sends anybody to `tasks` any more: a second after `since` at the latest.
    #[track_caller]
    pub(super) fn wait_forgotten(&self, nodes: &[usize], since: Instant, tasks: &BTreeSet<String>) {
        for node in nodes {
            while ready(self.swarm, *node, self.web.name()).is_none_or(|ready| !tasks.is_disjoint(&ready)) {
                let late = since.elapsed();
                assert!(
                    late < Duration::from_secs(1),
                    "node {node} sends to {tasks:?} after {late:?}"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Everybody asks: one outside at the port of each of `nodes`, one in each client's task at the virtual address;
    /// each over new connections and over one that is kept.
    pub(super) fn load(&self, nodes: &[usize]) -> Load {
        let outside = self.swarm.client(0).netns().open();
        let vip = self.vip();
        let mut load = Load::default();
        for node in nodes {
            load.add(
                &format!("at {}", self.swarm.node(*node).name()),
                &outside,
                self.at(*node),
            );
        }
        for task in self.clients() {
            let inside = task.open_namespace(self.swarm).unwrap();
            let node = self.swarm.node(task.node.unwrap()).name();
            load.add(&format!("inside on {node}"), &inside, vip);
        }
        load.flow();
        load
    }
}

/// Requests without a pause, from several places.
#[derive(Default)]
pub(super) struct Load(Vec<(String, Traffic)>);

impl Load {
    /// Two who ask `target` from one place, over new connections and over one that is kept.
    pub(super) fn add(&mut self, place: &str, namespace: &std::fs::File, target: SocketAddr) {
        for (style, how) in [(Style::NewConnection, "new"), (Style::KeepAlive, "kept")] {
            let traffic = Traffic::start_within(namespace, &[target], 1, style);
            self.0.push((format!("{place}, {how}"), traffic));
        }
    }

    /// Waits until all have asked some more.
    pub(super) fn flow(&self) {
        for (_, traffic) in &self.0 {
            traffic.flow(30);
        }
    }

    /// Ends it and says what became of it, by place and kind of connection.
    pub(super) fn stop(self) -> Vec<(String, Report)> {
        self.0
            .into_iter()
            .map(|(place, traffic)| (place, traffic.stop()))
            .collect()
    }

    /// Ends it: every request was answered, and soon.
    #[track_caller]
    pub(super) fn assert_lossless(self) {
        self.flow();
        let reports = self.stop();
        let lost = reports.iter().any(|(_, report)| report.failed() > 0);
        assert!(!lost && slowest(&reports) < PATIENCE, "{}", summary(&reports));
    }

    /// Ends it: what was lost was under way in a task while it died, and nobody waited for long. Everybody has one request
    /// under way at a time. As long as the dying task's port is open, its kernel takes connections, which end with it; from
    /// then on nothing is lost. Returns how many were.
    #[track_caller]
    pub(super) fn assert_lost_only_in(self, death: &Range<Instant>) -> usize {
        self.flow();
        let reports = self.stop();
        let under_way =
            |lost: &&Failure| lost.stage == Stage::Answer && lost.begun < death.end && death.start < lost.ended;
        let lost = || reports.iter().flat_map(|(_, report)| &report.failures);
        let more: Vec<_> = lost()
            .filter(|lost| !under_way(lost))
            .map(|lost| {
                format!(
                    "{:?} after its death: {lost}",
                    lost.begun.saturating_duration_since(death.end)
                )
            })
            .collect();
        let summary = summary(&reports);
        assert!(
            more.is_empty(),
            "{} lost without need: {more:#?}\n{summary}",
            more.len()
        );
        assert!(slowest(&reports) < PATIENCE, "{summary}");
        lost().count()
    }

    /// Ends it: whatever began after `since` was answered.
    #[track_caller]
    pub(super) fn assert_lossless_since(self, since: Instant) {
        self.flow();
        let reports = self.stop();
        let lost = reports.iter().flat_map(|(_, report)| &report.failures);
        let lost: Vec<_> = lost
            .filter(|lost| lost.begun > since)
            .map(|lost| format!("{:?} later: {lost}", lost.begun.duration_since(since)))
            .collect();
        assert!(lost.is_empty(), "{lost:#?}\n{}", summary(&reports));
    }
}

/// The longest that anybody waited, for an answer or in vain.
pub(super) fn slowest(reports: &[(String, Report)]) -> Duration {
    let waits = reports
        .iter()
        .map(|(_, report)| report.slowest.max(report.longest_failure()));
    waits.max().unwrap_or_default()
}

/// For people.
pub(super) fn summary(reports: &[(String, Report)]) -> String {
    let lines = reports.iter().map(|(place, report)| {
        let first: Vec<_> = report.failures.iter().take(5).collect();
        format!(
            "{place}: {} answered, slowest {:?}; {} made again; {} failed, longest {:?}: {first:?}",
            report.ok(),
            report.slowest,
            report.repeated,
            report.failed(),
            report.longest_failure(),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Tasks that take new flows according to the agent of a node. `None`: it has read what it has not put into force yet.
pub(super) fn ready(swarm: &Balanced, node: usize, service: &str) -> Option<BTreeSet<String>> {
    let list = swarm.admin(node, "/v1/backends").unwrap();
    // Asked last: what was listed above is in force, or something newer.
    let provider = swarm.admin(node, "/v1/status").unwrap()["items"][0]["provider"].clone();
    if provider["generation"] != provider["applied"] {
        return None;
    }
    let items = list["items"].as_array().unwrap().iter();
    let own = items.filter(|item| item["service"] == service && item["state"] == "ready");
    Some(
        own.filter_map(|item| item["task"].as_str().map(str::to_owned))
            .collect(),
    )
}
