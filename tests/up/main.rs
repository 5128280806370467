//! `lb-swarm`: a Docker Swarm on this machine to try things with, in namespaces of its own, until Ctrl-C.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use lb_tests::require;
use lb_tests::swarm::{Iptables, Swarm};

/// Starts a Docker Swarm on this machine and keeps it until Ctrl-C.
///
/// Each node has a dockerd and namespaces of its own; nothing outside them is touched. Needs root.
#[derive(Parser)]
#[command(name = "lb-swarm", version)]
struct Arguments {
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How many of them are managers.
    #[arg(long, default_value_t = 1)]
    managers: u8,
    /// Number of clients beside the nodes.
    #[arg(long, default_value_t = 1)]
    clients: u8,
    /// Use iptables-legacy on the nodes, not iptables-nft.
    #[arg(long)]
    legacy: bool,
    /// Let dockerd turn forwarding on; it then drops what it was not told to forward.
    #[arg(long)]
    no_forwarding: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(reason) = require::swarm_reason() {
        bail!("the Swarm {reason}");
    }
    let start = Instant::now();
    let iptables = if arguments.legacy {
        Iptables::Legacy
    } else {
        Iptables::Nft
    };
    let swarm = Swarm::builder()
        .nodes(arguments.nodes)
        .managers(arguments.managers)
        .clients(arguments.clients)
        .iptables(iptables)
        .forwarding(!arguments.no_forwarding)
        .start()?;
    println!("Ready after {:.1} s. Ctrl-C ends it.\n", start.elapsed().as_secs_f32());
    for node in swarm.nodes() {
        let pid = node.on_machine(|machine| machine.pid())?;
        println!("{} {}", node.name(), node.address());
        println!("  docker --host unix://{} ...", node.socket().display());
        println!("  nsenter --target {pid} --net --mount --uts --ipc --pid --cgroup -- ...");
        println!(
            "  ip netns exec {} ...      (its network namespace alone)",
            node.netns().name()
        );
        println!(
            "  its /run is {}, its dockerd writes {}",
            node.run_directory().display(),
            node.log().display()
        );
    }
    for (number, client) in (1..).zip(swarm.clients()) {
        println!(
            "client{number} {}\n  ip netns exec {} ...",
            client.address(),
            client.netns().name()
        );
    }
    println!(
        "\nThe only image is {}: a server on port 80, TCP and UDP (--port), and",
        lb_tests::swarm::IMAGE
    );
    println!("  docker exec <container> /bin/lb-task get http://<name>/ | ask <name>:80 | resolve <name>");
    loop {
        std::thread::park();
    }
}
