//! `lbctl`: looks inside the load balancer of this node. Asks the agent, or reads the pinned maps itself.

mod args;
mod client;
mod docs;
mod doctor;
mod dump;
mod error;
mod output;
mod source;
mod table;
mod verbs;
mod views;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Output};

fn main() -> ExitCode {
    let args = Args::parse();
    let output = args.common.output;
    let answer = match verbs::run(args) {
        Ok(answer) => answer,
        Err(failure) => {
            eprint!("{}", error::render(&failure, matches!(output, Output::Json)));
            return ExitCode::from(error::exit_code(failure.code));
        }
    };
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(answer.text.as_bytes()).and_then(|()| stdout.flush()) {
        // The reader has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: cannot write the answer: {e}");
            ExitCode::FAILURE
        }
        Ok(()) if answer.no => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
    }
}
