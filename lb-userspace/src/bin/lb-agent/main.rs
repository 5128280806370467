//! The node agent: reads its arguments and configuration and hands over to the library.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use lb_userspace::agent;
use lb_userspace::config::OnExit;
use lb_userspace::net::{memory, privileges};

mod args;
mod config;

use args::{Arguments, Command, Source};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Run { source } => run(source),
        Command::Config { command } => config::run(command),
        Command::Uninstall { source } => config::load(source).and_then(|loaded| agent::uninstall(&loaded.config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(source: &Source) -> Result<()> {
    let config = config::load(source)?.config;
    memory::prepare();
    privileges::restrict().context("cannot give up privileges that are not needed")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lb-agent")
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(agent::run(config.clone()))?;
    drop(runtime);
    match config.datapath.on_exit {
        OnExit::Keep => Ok(()),
        OnExit::Remove => agent::uninstall(&config),
    }
}
