//! What is measured on another kernel, by the instructions that the guest runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use super::machine::{Clock, Machine, Share};
use super::record::Record;
use super::{between_marks, check, quoted, shares};
use crate::test;

/// The part that measures.
const BENCH: &str = "bench";
/// How long it may take; usually 3 minutes, on a busy host 10. The guest's clock is slower than the host's, so the host's ends it.
const LIMIT: Duration = Duration::from_secs(3600);
/// Ended a little later if it does not end by itself.
const GRACE: Duration = Duration::from_secs(30);

/// Runs the bench with these arguments on `kernel`, in a machine whose clock counts instructions; the directory that it
/// wrote its output to.
///
/// # Errors
/// This machine cannot run the guest, or the bench fails there.
pub(crate) fn bench(kernel: &str, arguments: &[String]) -> Result<PathBuf> {
    check(kernel)?;
    let target = test::target_directory()?;
    let output = target.join("guest/bench");
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let mut shares = shares(&target)?;
    shares.push(Share {
        path: output.clone(),
        writable: true,
    });
    let kernel = Kernel::get(kernel, &target.join("guest"))?;
    let machine = Machine {
        kernel: &kernel,
        clock: Clock::Instructions,
        shares: &shares,
        script: format!(
            "export HOME=/root PATH=/usr/sbin:/usr/bin RUST_BACKTRACE=1\n{}",
            between_marks(BENCH, &command(&target, &output, arguments))
        ),
        scratch: target.join(format!("guest/run-{}", std::process::id())),
    };
    println!("guest: boots {}, counting instructions", kernel.image().display());
    let mut record = Record::default();
    machine.run(|line| {
        println!("{line}");
        record.take(line).map(|_| LIMIT + GRACE)
    })?;
    ensure!(record.of(BENCH).is_some(), "the bench failed in the guest");
    Ok(output)
}

fn command(target: &Path, output: &Path, arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quoted(word.as_ref())).collect();
    format!(
        "timeout --kill-after=5 {} {} --output {} {}",
        LIMIT.as_secs(),
        quoted(&target.join("release/lb-bench")),
        quoted(output),
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_is_told_where_to_write_and_has_a_limit() {
        let said = command("/t".as_ref(), "/t/out".as_ref(), &["--rounds".into(), "3".into()]);
        assert_eq!(
            said,
            "timeout --kill-after=5 3600 '/t/release/lb-bench' --output '/t/out' '--rounds' '3'"
        );
    }
}
