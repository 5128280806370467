//! `lb-demo`: three nodes and clients on this machine, real agents, real traffic, and what came of it, as tables. With
//! `--swarm` the nodes are a real Docker Swarm.

mod checks;
mod story;
mod swarm;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use lb_tests::cluster::Cluster;
use lb_tests::require;

use story::Story;

/// Shows the load balancer's main job on this machine, in network namespaces of its own.
///
/// Three nodes, each with a real agent, balance real HTTP traffic. Nothing outside the namespaces is touched, and all
/// of it is removed at the end, also after Ctrl-C. Needs root.
#[derive(Parser)]
#[command(name = "lb-demo", version)]
struct Args {
    /// Leave everything running until Ctrl-C, and print what to try.
    #[arg(long)]
    keep: bool,
    /// Show it on a real Docker Swarm: a dockerd on each node, services made with `docker service create`.
    #[arg(long)]
    swarm: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.swarm { swarm::run(args.keep) } else { run(&args) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            println!("\nFAIL: the demo could not go on");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as it should be.
fn run(args: &Args) -> Result<bool> {
    if let Some(reason) = require::datapath_reason() {
        anyhow::bail!("the demo {reason}");
    }
    let start = Instant::now();
    println!("Building three nodes, two clients and nine workloads, each a network namespace ...");
    let cluster = Arc::new(Cluster::builder().start().context("cannot build the cluster")?);
    println!(
        "... and an lb-agent on every node: ready after {:.1} s.\n",
        start.elapsed().as_secs_f32()
    );
    let mut story = Story::new(&cluster);
    story.tell()?;
    let good = story.checks.verdict(start.elapsed());
    if args.keep {
        story.what_to_try()?;
        loop {
            // Ctrl-C ends it, and cleans up.
            std::thread::park();
        }
    }
    Ok(good)
}
