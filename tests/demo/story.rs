//! What the demo does, step by step, and what it makes of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::RecordType;
use lb_tests::cluster::{Cluster, Deployed, Family, Spec};
use lb_tests::traffic::{Style, Traffic};
use lb_tests::{dns, lbctl, require};

use crate::checks::{Checks, ask};
use crate::table;

/// The story of one cluster.
pub(crate) struct Story<'a> {
    cluster: &'a Cluster,
    web: Option<Deployed<'a>>,
    pub(crate) checks: Checks,
}

impl<'a> Story<'a> {
    /// About a cluster without services.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            web: None,
            checks: Checks::default(),
        }
    }

    /// All of it.
    pub(crate) fn tell(&mut self) -> Result<()> {
        // node3 runs no backend.
        let web = self
            .cluster
            .deploy(Spec::tcp().named("web").alias("www").published().on(&[0, 0, 1]))?;
        let api = self.cluster.deploy(Spec::tcp().named("api").dnsrr().on(&[1, 2]))?;
        self.published(&web);
        self.vip(&web);
        self.names(&web, &api)?;
        self.changes(&web)?;
        self.lbctl()?;
        self.metrics()?;
        drop(api);
        self.web = Some(web);
        Ok(())
    }

    fn published(&mut self, web: &Deployed<'_>) {
        println!("A published port is answered on every node, also on one that runs no backend; each backend gets its");
        println!("exact share and sees the client's own address.\n");
        let backends = web.backends();
        let client = self.cluster.client(0);
        let mut rows = Vec::new();
        for family in Family::BOTH {
            for (node, target) in web.on_every_node(family).into_iter().enumerate() {
                let tally = ask(client.netns(), target);
                let name = self.cluster.node(node).name();
                let here = backends
                    .iter()
                    .filter(|backend| web.workload(backend).node() == node)
                    .count();
                let ok = self
                    .checks
                    .check_even(&format!("published port on {name}"), &tally, &backends);
                let seen = self
                    .checks
                    .check_seen(&format!("published port on {name}"), &tally, client.address(family));
                let mut row = vec![name.to_owned(), here.to_string(), target.to_string()];
                row.extend(self.checks.row(&tally, &backends));
                row.extend([seen, ok]);
                rows.push(row);
            }
        }
        let mut headers = vec!["NODE", "BACKENDS HERE", "ADDRESS", "REQUESTS", "FAILED"];
        headers.extend(backends.iter().map(String::as_str));
        headers.extend(["CLIENT SEEN BY THE BACKENDS", "EVEN"]);
        table::print(&headers, &rows);
    }

    fn vip(&mut self, web: &Deployed<'_>) {
        println!("Inside the network, the service has an address of its own; another network does not reach it.\n");
        let backends = web.backends();
        let mut rows = Vec::new();
        for family in Family::BOTH {
            for node in 0..self.cluster.nodes().len() {
                let client = self.cluster.workload(node, "shop");
                let itself = backends
                    .iter()
                    .any(|backend| web.workload(backend).name() == client.name());
                let tally = ask(client.netns(), web.vip(family));
                let what = format!("VIP from {}", client.name());
                let ok = self.checks.check_even(&what, &tally, &backends);
                let seen = if itself {
                    "itself a backend".into()
                } else {
                    self.checks.check_seen(&what, &tally, client.address(family))
                };
                let mut row = vec![client.name().to_owned(), web.vip(family).to_string()];
                row.extend(self.checks.row(&tally, &backends));
                row.extend([seen, ok]);
                rows.push(row);
            }
        }
        let mut headers = vec!["CLIENT", "VIP", "REQUESTS", "FAILED"];
        headers.extend(backends.iter().map(String::as_str));
        headers.extend(["CLIENT SEEN BY THE BACKENDS", "EVEN"]);
        table::print(&headers, &rows);
        let stranger = self.cluster.workload(0, "blog");
        let vip = web.vip(Family::V4);
        let reached = stranger
            .netns()
            .run(|| std::net::TcpStream::connect_timeout(&vip, Duration::from_millis(500)));
        self.checks.check(reached.is_err(), || {
            format!("{} of network blog reaches {vip} of network shop", stranger.name())
        });
        match reached {
            Ok(_) => println!("  {} (network blog) reaches {vip}: WRONG\n", stranger.name()),
            Err(error) => println!(
                "  {} (network blog) to {vip}: {error}: as it should be\n",
                stranger.name()
            ),
        }
    }

    fn names(&mut self, web: &Deployed<'_>, api: &Deployed<'_>) -> Result<()> {
        println!("The agents answer names: `web` has a VIP, `api` is resolved to its backends (dnsrr).\n");
        let client = self.cluster.workload(2, "shop");
        let server = self.cluster.node(2).dns(Family::V4);
        let tasks = |service: &Deployed<'_>, family: Family| -> Vec<String> {
            let mut all: Vec<_> = service
                .backends()
                .iter()
                .map(|task| service.workload(task).address(family).to_string())
                .collect();
            all.sort();
            all
        };
        let vip = |family| vec![web.vip(family).ip().to_string()];
        let questions = [
            ("web", Family::V4, vip(Family::V4)),
            ("web", Family::V6, vip(Family::V6)),
            ("web.shop", Family::V4, vip(Family::V4)),
            ("www", Family::V4, vip(Family::V4)),
            ("tasks.web", Family::V4, tasks(web, Family::V4)),
            (
                "web.1",
                Family::V4,
                vec![web.workload("web.1").address(Family::V4).to_string()],
            ),
            ("api", Family::V4, tasks(api, Family::V4)),
            ("api", Family::V6, tasks(api, Family::V6)),
        ];
        let mut rows = Vec::new();
        for (name, family, expected) in questions {
            let kind = if family == Family::V4 {
                RecordType::A
            } else {
                RecordType::AAAA
            };
            let reply = client
                .netns()
                .run(|| dns::ask(server, name, kind))
                .with_context(|| format!("ask for {name}"))?;
            self.checks.check(reply.data == expected, || {
                format!("{name} is {:?}, not {expected:?}", reply.data)
            });
            rows.push(vec![
                name.to_owned(),
                kind.to_string(),
                reply.code.to_string(),
                reply.data.join(" "),
            ]);
        }
        let stranger = self.cluster.workload(2, "blog");
        let reply = stranger.netns().run(|| dns::ask(server, "web", RecordType::A))?;
        self.checks.check(reply.data.is_empty(), || {
            format!("network blog learns {:?} for web", reply.data)
        });
        rows.push(vec![
            "web (asked from blog)".into(),
            "A".into(),
            reply.code.to_string(),
            reply.data.join(" "),
        ]);
        table::print(&["NAME", "TYPE", "ANSWER", "DATA"], &rows);
        Ok(())
    }

    fn changes(&mut self, web: &Deployed<'_>) -> Result<()> {
        println!("Requests go on without a pause while the cluster changes.\n");
        let cluster = self.cluster;
        let first = web.backends()[0].clone();
        let killed = cluster.node(2);
        let mut added = String::new();
        let mut rows = Vec::new();
        self.during("nothing happens", web, &mut rows, || Ok(()))?;
        self.during("a backend is added on node3", web, &mut rows, || {
            added = web.add(2)?;
            Ok(())
        })?;
        self.during(&format!("{first} drains"), web, &mut rows, || web.drain(&first))?;
        self.during("node3's agent is killed (SIGKILL)", web, &mut rows, || {
            killed.agent().kill().map(drop)
        })?;
        self.during("node3's agent starts again", web, &mut rows, || killed.start_agent())?;
        self.during("node1's agent stops and starts", web, &mut rows, || {
            cluster.node(0).agent().stop()?;
            cluster.node(0).start_agent()
        })?;
        table::print(&["WHAT HAPPENS", "REQUESTS", "FAILED", "SLOWEST"], &rows);
        let tally = ask(cluster.client(0).netns(), web.on_node(2, Family::V4));
        self.checks.check(!tally.counts.contains_key(&first), || {
            format!("{first} drains and gets new connections")
        });
        self.checks.check(tally.counts.contains_key(&added), || {
            format!("{added} was added and gets no connection")
        });
        Ok(())
    }

    /// Traffic from outside to every node and from inside to the VIP, while `change` happens.
    fn during(
        &mut self,
        what: &str,
        web: &Deployed<'_>,
        rows: &mut Vec<Vec<String>>,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let outside = self.cluster.client(0).netns();
        let inside = self.cluster.workloads(2, "shop")[1].netns();
        let mut targets = web.on_every_node(Family::V4);
        targets.extend(web.on_every_node(Family::V6));
        let traffic = [
            Traffic::start(outside, &targets, 2, Style::NewConnection),
            Traffic::start(outside, &targets[..1], 1, Style::KeepAlive),
            Traffic::start(inside, &[web.vip(Family::V4)], 1, Style::NewConnection),
        ];
        traffic.iter().for_each(|traffic| traffic.flow(40));
        change().with_context(|| what.to_owned())?;
        traffic.iter().for_each(|traffic| traffic.flow(40));
        let reports = traffic.map(Traffic::stop);
        let failures: Vec<_> = reports.iter().flat_map(|report| &report.failures).collect();
        let ok: usize = reports.iter().map(lb_tests::traffic::Report::ok).sum();
        let slowest = reports.iter().map(|report| report.slowest).max().unwrap_or_default();
        self.checks.requests += ok + failures.len();
        self.checks.check(failures.is_empty(), || {
            format!("while {what}: {} failed, the first: {}", failures.len(), failures[0])
        });
        rows.push(vec![
            what.to_owned(),
            (ok + failures.len()).to_string(),
            failures.len().to_string(),
            format!("{:.1} ms", slowest.as_secs_f64() * 1e3),
        ]);
        Ok(())
    }

    fn lbctl(&mut self) -> Result<()> {
        println!("What lbctl shows on node1:\n");
        let node = self.cluster.node(0);
        for arguments in [
            &["status"][..],
            &["service", "ls"],
            &["service", "ps", "web"],
            &["conn", "count"],
            &["plan"],
        ] {
            println!("  # lbctl {}", arguments.join(" "));
            let output = lbctl::run(node, arguments)?;
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().for_each(|line| println!("  {line}"));
            println!();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            self.checks.check(output.status.success(), || {
                format!("lbctl {}: {}: {error}", arguments.join(" "), output.status)
            });
        }
        Ok(())
    }

    fn metrics(&mut self) -> Result<()> {
        println!("A few of node1's metrics:\n");
        let text = self.cluster.node(0).metrics("/metrics")?;
        let wanted = [
            "lb_service_flows_total{",
            "lb_service_backends{",
            "lb_packets_total{",
            "lb_applied_generation",
        ];
        for prefix in wanted {
            let mut found = text
                .lines()
                .filter(|line| line.starts_with(prefix) && !line.ends_with(" 0"))
                .peekable();
            self.checks
                .check(found.peek().is_some(), || format!("no metric {prefix}"));
            found.take(4).for_each(|line| println!("  {line}"));
        }
        println!();
        Ok(())
    }

    /// Commands for a cluster that stays.
    pub(crate) fn what_to_try(&self) -> Result<()> {
        let web = self.web.as_ref().context("the demo's service")?;
        let node = self.cluster.node(0);
        let lbctl = require::binary("lbctl")?;
        println!("\nIt stays until Ctrl-C. In another terminal, as root:\n");
        println!("  # ask a node that runs no backend of its own at first, from outside");
        println!(
            "  ip netns exec {} curl http://{}/",
            self.cluster.client(0).netns().name(),
            web.on_node(2, Family::V4)
        );
        println!("  # ask the VIP, from inside");
        println!(
            "  ip netns exec {} curl http://{}/",
            self.cluster.workload(1, "shop").netns().name(),
            web.vip(Family::V4)
        );
        println!("  # look inside node1");
        println!(
            "  export LB_SOCKET={} LB_BPFFS={}",
            node.socket().display(),
            node.bpffs().display()
        );
        println!(
            "  ip netns exec {} {} service ps web",
            node.netns().name(),
            lbctl.display()
        );
        println!("  # its metrics");
        println!(
            "  ip netns exec {} curl http://127.0.0.1:9464/metrics",
            node.netns().name()
        );
        println!("  # change the cluster: let a backend drain, see who answers");
        println!("  $EDITOR {}", self.cluster.file().display());
        println!("  # the agent's log");
        println!("  tail -f {}", node.agent().log_path().display());
        Ok(())
    }
}
