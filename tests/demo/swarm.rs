//! `lb-demo --swarm`: what the agents make of a real Docker Swarm, step by step.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hickory_proto::rr::RecordType;
use lb_tests::swarm::{Balanced, Network, Service, Swarm, Task};
use lb_tests::traffic::{Report, Style, Traffic};
use lb_tests::{dns, require};
use toml::toml;

use crate::checks::{Checks, Tally, ask, ask_from_here};
use crate::table;

/// What the demo publishes.
const PORT: u16 = 8080;
/// How long a connection is tried where maybe nobody answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// The whole demo; whether everything was as it should be.
pub(crate) fn run(keep: bool) -> Result<bool> {
    if let Some(reason) = require::swarm_reason() {
        anyhow::bail!("the demo {reason}");
    }
    let start = Instant::now();
    println!("Building three nodes and a client, each with namespaces of its own, a dockerd on every node ...");
    let swarm = Swarm::builder().start().context("cannot build the Swarm")?;
    let swarm = Balanced::new(swarm)?;
    println!(
        "... joined to one Swarm after {:.1} s.\n",
        start.elapsed().as_secs_f32()
    );

    let network = swarm.network("shop", &[])?;
    let publish = format!("published={PORT},target=80");
    // node3 runs no task of it.
    let options = [
        "--replicas",
        "2",
        "--publish",
        &publish,
        "--network",
        network.name(),
        "--constraint",
        "node.hostname!=node3",
    ];
    let web = swarm.service("web", &options)?;
    let clients = ["--mode", "global", "--network", network.name()];
    let client = swarm.service("client", &clients)?;
    println!("  # docker network create --driver overlay {}", network.name());
    println!(
        "  # docker service create --name {} {} lb-task",
        web.name(),
        options.join(" ")
    );
    println!(
        "  # docker service create --name {} {} lb-task\n",
        client.name(),
        clients.join(" ")
    );
    web.wait_running(2)?;
    let mut clients = client.wait_running(3)?;
    clients.sort_by_key(|task| task.node);
    let mut story = Story {
        clients,
        swarm: &swarm,
        network: &network,
        web: &web,
        checks: Checks::default(),
    };
    story.tell()?;
    let good = story.checks.verdict(start.elapsed());
    if keep {
        story.what_to_try()?;
        loop {
            // Ctrl-C ends it, and cleans up.
            std::thread::park();
        }
    }
    Ok(good)
}

/// The story of one service.
struct Story<'a> {
    swarm: &'a Balanced,
    network: &'a Network<'a>,
    web: &'a Service<'a>,
    /// A task on every node, on the network.
    clients: Vec<Task>,
    checks: Checks,
}

impl Story<'_> {
    fn tell(&mut self) -> Result<()> {
        self.before()?;
        let start = Instant::now();
        for index in 0..self.swarm.nodes().len() {
            self.swarm.configure(
                index,
                toml! {
                    [dns]
                    enabled = true
                    listen = "0.0.0.0:53"
                },
            );
        }
        self.swarm.start_agents()?;
        let mut tasks = self.swarm.wait_serving(self.web, 2)?;
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        println!(
            "Now an lb-agent starts on every node: all in force after {:.1} s. dockerd was not touched.\n",
            start.elapsed().as_secs_f32()
        );
        self.published(&tasks);
        self.vip(&tasks)?;
        self.names(&tasks)?;
        self.changes()?;
        self.lbctl()
    }

    fn vip_address(&self) -> Result<SocketAddr> {
        Ok((self.web.vip(self.network.id())?, 80).into())
    }

    fn everywhere(&self) -> Vec<SocketAddr> {
        let nodes = self.swarm.nodes().iter();
        nodes.map(|node| SocketAddr::new(node.address(), PORT)).collect()
    }

    /// Not checked: with IPVS in the kernel Docker balances by itself, without it nobody does.
    fn before(&self) -> Result<()> {
        println!("What Docker does on this kernel by itself, without an agent:\n");
        let try_it = |target: SocketAddr| match TcpStream::connect_timeout(&target, PATIENCE) {
            Ok(_) => "answered".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut rows = Vec::new();
        for target in self.everywhere() {
            let result = self.swarm.client(0).netns().run(|| try_it(target));
            rows.push(vec![
                "published port".into(),
                "client outside".into(),
                target.to_string(),
                result,
            ]);
        }
        let vip = self.vip_address()?;
        for task in &self.clients {
            let result = task.within(self.swarm, || try_it(vip))?;
            rows.push(vec!["VIP".into(), place(task), vip.to_string(), result]);
        }
        table::print(&["WHAT", "ASKED FROM", "ADDRESS", "RESULT"], &rows);
        Ok(())
    }

    fn published(&mut self, tasks: &[Task]) {
        println!(
            "The published port is answered on every node, also on one that runs no task; each task gets its exact"
        );
        println!("share and sees the client's own address.\n");
        let backends = names(tasks);
        let client = self.swarm.client(0);
        let mut rows = Vec::new();
        for (index, target) in self.everywhere().into_iter().enumerate() {
            let tally = ask(client.netns(), target);
            let name = self.swarm.node(index).name();
            let here = tasks.iter().filter(|task| task.node == Some(index)).count();
            let what = format!("published port on {name}");
            let mut row = vec![name.to_owned(), here.to_string(), target.to_string()];
            row.extend(self.judge(&what, &tally, &backends, client.address()));
            rows.push(row);
        }
        print_shares(&["NODE", "TASKS HERE", "ADDRESS"], tasks, &rows);
    }

    fn vip(&mut self, tasks: &[Task]) -> Result<()> {
        println!(
            "Inside the network, the service has an address of its own for every task on it; no detour, no SNAT.\n"
        );
        let (backends, vip) = (names(tasks), self.vip_address()?);
        let mut rows = Vec::new();
        for client in self.clients.clone() {
            let tally = client.within(self.swarm, || ask_from_here(vip))?;
            let own = client.address(self.network.name())?;
            let mut row = vec![place(&client), vip.to_string()];
            row.extend(self.judge(&format!("VIP from {}", place(&client)), &tally, &backends, own.into()));
            rows.push(row);
        }
        print_shares(&["CLIENT", "VIP"], tasks, &rows);
        Ok(())
    }

    /// Cells of a table: requests, failed ones, each task's, whom the tasks saw, whether it was even.
    fn judge(&mut self, what: &str, tally: &Tally, backends: &[String], own: IpAddr) -> Vec<String> {
        let mut cells = self.checks.row(tally, backends);
        cells.push(self.checks.check_seen(what, tally, own));
        cells.push(self.checks.check_even(what, tally, backends));
        cells
    }

    fn names(&mut self, tasks: &[Task]) -> Result<()> {
        println!("Tasks ask Docker's own resolver, as ever; agents tell the same to everyone else.\n");
        let (web, network) = (self.web.name(), self.network.name());
        let mut addresses: Vec<_> = tasks
            .iter()
            .map(|task| Ok(task.address(network)?.to_string()))
            .collect::<Result<_>>()?;
        addresses.sort();
        let questions = [
            (format!("{web}.{network}"), vec![self.vip_address()?.ip().to_string()]),
            (format!("tasks.{web}.{network}"), addresses),
            (
                format!("{}.{network}", tasks[0].name),
                vec![tasks[0].address(network)?.to_string()],
            ),
        ];
        let server = SocketAddr::new(self.swarm.node(2).address(), 53);
        let mut rows = Vec::new();
        for (name, expected) in questions {
            let reply = self
                .swarm
                .client(0)
                .netns()
                .run(|| dns::ask(server, &name, RecordType::A))
                .with_context(|| format!("ask node3's agent for {name}"))?;
            self.checks.check(reply.data == expected, || {
                format!("{name} is {:?} for node3's agent, not {expected:?}", reply.data)
            });
            let text = self.clients[2].exec(self.swarm, &["resolve", &name])?;
            let mut docker: Vec<_> = text.lines().map(str::to_owned).collect();
            docker.sort();
            self.checks.check(docker == expected, || {
                format!("{name} is {docker:?} for Docker, not {expected:?}")
            });
            rows.push(vec![name, reply.data.join(" "), docker.join(" ")]);
        }
        table::print(&["NAME", "NODE3'S AGENT SAYS", "DOCKER SAYS TO A TASK"], &rows);
        Ok(())
    }

    fn changes(&mut self) -> Result<()> {
        println!("Requests to all nodes, and to the VIP, go on without a pause while the Swarm changes.\n");
        let (swarm, web) = (self.swarm, self.web);
        let mut rows = Vec::new();
        self.during("nothing happens", &mut rows, || Ok(()))?;
        self.during("docker service scale: 2 to 4", &mut rows, || {
            web.scale(4)?;
            swarm.wait_serving(web, 4).map(drop)
        })?;
        self.during("a rolling update of all 4 tasks", &mut rows, || {
            web.update(&["--force", "--update-parallelism", "1", "--update-delay", "0s"])?;
            web.wait_updated()?;
            swarm.wait_serving(web, 4).map(drop)
        })?;
        self.during("docker service scale: 4 to 2", &mut rows, || {
            web.scale(2)?;
            swarm.wait_serving(web, 2).map(drop)
        })?;
        self.during("node3's agent is killed (SIGKILL)", &mut rows, || {
            swarm.kill_agent(2).map(drop)
        })?;
        self.during("node3's agent starts again", &mut rows, || swarm.start_agent(2))?;
        table::print(
            &["WHAT HAPPENS", "REQUESTS", "FAILED", "SLOWEST", "TASKS THAT ANSWERED"],
            &rows,
        );
        Ok(())
    }

    /// Traffic from outside to every node and from a task to the VIP, while `change` happens.
    fn during(&mut self, what: &str, rows: &mut Vec<Vec<String>>, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let outside = self.swarm.client(0).netns();
        let inside = self.clients[2].open_namespace(self.swarm)?;
        let traffic = [
            Traffic::start(outside, &self.everywhere(), 2, Style::NewConnection),
            Traffic::start_within(&inside, &[self.vip_address()?], 1, Style::NewConnection),
        ];
        traffic.iter().for_each(|traffic| traffic.flow(60));
        change().with_context(|| what.to_owned())?;
        traffic.iter().for_each(|traffic| traffic.flow(60));
        let reports = traffic.map(Traffic::stop);
        let failures: Vec<_> = reports.iter().flat_map(|report| &report.failures).collect();
        let requests = reports.iter().map(Report::ok).sum::<usize>() + failures.len();
        let slowest = reports.iter().map(|report| report.slowest).max().unwrap_or_default();
        let answered: BTreeSet<_> = reports.iter().flat_map(|report| report.answered.keys()).collect();
        self.checks.requests += requests;
        self.checks.check(failures.is_empty(), || {
            format!("while {what}: {} failed, the first: {}", failures.len(), failures[0])
        });
        rows.push(vec![
            what.to_owned(),
            requests.to_string(),
            failures.len().to_string(),
            format!("{:.1} ms", slowest.as_secs_f64() * 1e3),
            answered.len().to_string(),
        ]);
        Ok(())
    }

    fn lbctl(&mut self) -> Result<()> {
        println!(
            "What lbctl shows on node2, a worker. FLOWS are those that this node forwards:\n\
             to a task that runs here, also what came in at the other nodes.\n"
        );
        let published = format!("ingress/{}", self.web.name());
        for arguments in [
            &["status"][..],
            &["service", "ls"],
            &["service", "ps", &published],
            &["conn", "count"],
            &["plan"],
        ] {
            println!("  # lbctl {}", arguments.join(" "));
            let output = self.swarm.lbctl_output(1, arguments)?;
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

    /// Commands for a Swarm that stays.
    fn what_to_try(&self) -> Result<()> {
        let node = self.swarm.node(0);
        let pid = node.on_machine(|machine| machine.pid())?;
        let lbctl = require::binary("lbctl")?;
        println!("\nIt stays until Ctrl-C. In another terminal, as root:\n");
        println!("  # the Swarm's manager");
        println!("  export DOCKER_HOST=unix://{}", node.socket().display());
        println!("  docker service scale --detach {}=5", self.web.name());
        println!("  # ask a node from outside");
        let outside = self.swarm.client(0).netns().name();
        println!("  ip netns exec {outside} curl http://{}/", self.everywhere()[2]);
        println!("  # ask the VIP from inside: a task of node1, by name");
        println!(
            "  docker exec $(docker ps --quiet | head -1) /bin/lb-task get http://{}/",
            self.web.name()
        );
        println!("  # look inside node1");
        println!(
            "  nsenter --target {pid} --net --mount --uts --ipc --pid --cgroup -- {} service ps ingress/{}",
            lbctl.display(),
            self.web.name()
        );
        println!("  # its agent's log, its dockerd's");
        println!(
            "  tail -f {} {}",
            self.swarm.agent_log_path(0).display(),
            node.log().display()
        );
        Ok(())
    }
}

fn names(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|task| task.name.clone()).collect()
}

/// Where a task is.
fn place(task: &Task) -> String {
    let node = task
        .node
        .map_or("no node".to_owned(), |node| format!("node{}", node + 1));
    format!("a task on {node}")
}

/// A table with a column for each task, headed by service and slot.
fn print_shares(first: &[&str], tasks: &[Task], rows: &[Vec<String>]) {
    let slots: Vec<_> = tasks
        .iter()
        .map(|task| task.name.rsplit_once('.').map_or(task.name.as_str(), |(slot, _)| slot))
        .collect();
    let mut headers = first.to_vec();
    headers.extend(["REQUESTS", "FAILED"]);
    headers.extend(slots);
    headers.extend(["CLIENT SEEN BY THE TASKS", "EVEN"]);
    table::print(&headers, rows);
}
