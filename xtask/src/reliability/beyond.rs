//! What proves a promise and is no test of this build: libFuzzer, and the tests on another kernel. Part of the long run.

use crate::count::Counts;
use crate::guest::{self, Extent, SUITES};
use crate::{fuzz, setup};

use super::promises::Promise;

/// How long libFuzzer looks at each target.
const SECONDS: u32 = 120;
/// The oldest kernel that is supported.
const KERNEL: &str = "6.1";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// Name of the promise.
    pub(super) promise: &'static str,
    /// Who ran, as the document has it.
    pub(super) by: String,
    pub(super) result: Result,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Result {
    /// So many of these, and nothing was found.
    Held(&'static str, u64),
    /// Something is broken.
    Broken(String),
    /// This machine lacks something: no proof, and said to be none.
    Absent(String),
}

/// Runs those of these promises; what takes hours only if it is asked for.
pub(super) fn prove(promises: &[&Promise], oldest_kernel: bool) -> Vec<Proof> {
    let wanted = |name: &str| promises.iter().any(|promise| promise.name == name);
    let mut proofs = Vec::new();
    if wanted("hostile-input") {
        proofs.extend(fuzzed());
    }
    if wanted("kernels") {
        proofs.push(Proof {
            promise: "kernels",
            by: format!("`cargo xtask test --kernel {KERNEL} --all`"),
            result: if oldest_kernel {
                elsewhere()
            } else {
                Result::Absent("it was not asked for (`--oldest-kernel`)".into())
            },
        });
    }
    proofs
}

/// Each target of libFuzzer.
fn fuzzed() -> Vec<Proof> {
    let lacks = setup::ensure(setup::Wanted::FUZZ).err();
    let proof = |by: String, result| Proof {
        promise: "hostile-input",
        by,
        result,
    };
    let targets = match fuzz::targets() {
        Ok(targets) => targets,
        Err(error) => return vec![proof("libFuzzer".into(), Result::Broken(format!("{error:#}")))],
    };
    let each = targets.into_iter().map(|target| {
        let result = match &lacks {
            Some(lacks) => Result::Absent(format!("{lacks:#}")),
            None => match fuzz::look(&target, SECONDS) {
                Ok(inputs) => Result::Held("inputs", inputs),
                Err(error) => Result::Broken(format!("{error:#}")),
            },
        };
        proof(format!("`cargo xtask fuzz {target} --seconds {SECONDS}`"), result)
    });
    each.collect()
}

/// Every test that fits the guest.
fn elsewhere() -> Result {
    if let Err(error) = guest::check(KERNEL) {
        return Result::Absent(format!("{error:#}"));
    }
    match guest::run(KERNEL, SUITES, Extent::All) {
        Ok(Counts { failed: 0, passed, .. }) => Result::Held("tests", passed as u64),
        Ok(counts) => Result::Broken(counts.to_string()),
        Err(error) => Result::Broken(format!("{error:#}")),
    }
}
