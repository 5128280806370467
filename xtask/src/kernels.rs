//! What kernels offer: asked of a running one, recorded in `lb-ebpf/kernels.toml`, told in `docs/kernel.md`.

#[path = "../../lb-userspace/src/datapath/probe.rs"]
#[allow(unreachable_pub, reason = "in the agent's crate it is reached")]
mod agent;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_program_supported};
use clap::Args;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::{ebpf, guest, workspace};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// Ask this kernel, in a guest, and not the running one.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Write lb-ebpf/kernels.toml; without, fail if the kernel says something else than is written there.
    #[arg(long)]
    bless: bool,
    /// Only print what the running kernel says, of programs in this file.
    #[arg(long, hide = true, value_name = "OBJECT")]
    raw: Option<PathBuf>,
}

/// Something of the kernel that the balancer uses.
struct Feature {
    /// In the record.
    id: &'static str,
    /// In the document.
    name: &'static str,
    /// Release of Linux; empty: by its configuration.
    since: &'static str,
    /// What it is needed for, or what is lost without it.
    text: &'static str,
    needed: bool,
    seen: Seen,
}

/// How it is known whether it is there.
enum Seen {
    /// The kernel is asked.
    Asked(fn() -> Result<bool>),
    /// The programs are not loaded without it.
    Loading,
    /// The tests of the tier `attach` fail without it.
    Attaching,
}

const FEATURES: &[Feature] = &[
    Feature {
        id: "xdp",
        name: "XDP programs",
        since: "4.8",
        text: "published ports and the tunnel, where the driver has the hook",
        needed: true,
        seen: Seen::Asked(|| Ok(is_program_supported(ProgramType::Xdp)?)),
    },
    Feature {
        id: "tc",
        name: "tc programs (`CONFIG_NET_CLS_ACT`)",
        since: "4.1",
        text: "everything else",
        needed: true,
        seen: Seen::Asked(|| Ok(is_program_supported(ProgramType::SchedClassifier)?)),
    },
    Feature {
        id: "bpffs",
        name: "a file system of type `bpf`",
        since: "4.4",
        text: "pins; mounted at `/sys/fs/bpf` by systemd, else by the agent",
        needed: true,
        seen: Seen::Asked(|| {
            Ok(fs::read_to_string("/proc/filesystems")?
                .lines()
                .any(|line| line.ends_with("\tbpf")))
        }),
    },
    Feature {
        id: "jit",
        name: "`CONFIG_BPF_JIT`",
        since: "",
        text: "speed",
        needed: true,
        seen: Seen::Asked(|| Ok(Path::new("/proc/sys/net/core/bpf_jit_enable").exists())),
    },
    Feature {
        id: "map_btf",
        name: "BTF of maps",
        since: "4.18",
        text: "`bpftool map dump` with field names",
        needed: true,
        seen: Seen::Loading,
    },
    Feature {
        id: "fib_lookup",
        name: "`bpf_fib_lookup`",
        since: "4.18",
        text: "the way to other nodes and to workloads",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_fib_lookup)),
    },
    Feature {
        id: "xdp_links",
        name: "XDP links that can be pinned",
        since: "5.9",
        text: "the datapath outlives the agent",
        needed: true,
        seen: Seen::Attaching,
    },
    Feature {
        id: "redirect_neigh",
        name: "`bpf_redirect_neigh`",
        since: "5.10",
        text: "next hops",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_redirect_neigh)),
    },
    Feature {
        id: "redirect_peer",
        name: "`bpf_redirect_peer`",
        since: "5.10",
        text: "delivery into workloads",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_redirect_peer)),
    },
    Feature {
        id: "coarse_clock",
        name: "`bpf_ktime_get_coarse_ns`",
        since: "5.11",
        text: "the clock of flows",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns)),
    },
    Feature {
        id: "atomics",
        name: "atomic operations that return a value (instruction set v3)",
        since: "5.12",
        text: "exact round robin on any number of CPUs",
        needed: true,
        seen: Seen::Loading,
    },
    Feature {
        id: "tcx",
        name: "tcx links",
        since: "6.6",
        text: "filters on a clsact qdisc; same programs, but a filter is replaced rather than a link updated",
        needed: false,
        seen: Seen::Asked(|| Ok(agent::Features::probe().tcx)),
    },
    Feature {
        id: "l4_csum_ipv6",
        name: "`BPF_F_IPV6` of `bpf_l4_csum_replace`",
        since: "6.16",
        text: "where a card sums whole packets (`CHECKSUM_COMPLETE`), its sum of a translated IPv6 packet is off, and the \
               receiving kernel sums again",
        needed: false,
        seen: Seen::Asked(|| Ok(agent::Features::probe().l4_csum_ipv6)),
    },
];

fn helper(helper: BpfHelper) -> Result<bool> {
    Ok(is_helper_supported(ProgramType::SchedClassifier, helper)?)
}

const RECORD: &str = "lb-ebpf/kernels.toml";
const DOCUMENT: &str = "docs/kernel.md";

/// `lb-ebpf/kernels.toml`: kernels by release.
type Record = BTreeMap<String, Kernel>;

/// What one kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Kernel {
    /// By the features' ids.
    features: BTreeMap<String, bool>,
    /// Instructions that the verifier looked at, by program. For information: `insns.toml` is what changes are held against.
    verified: BTreeMap<String, u32>,
}

/// `cargo xtask probe`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(object) = &arguments.raw {
        let bytes = fs::read(object).with_context(|| object.display().to_string())?;
        print!("{}", toml::to_string(&ask(&bytes)?)?);
        return Ok(());
    }
    let (release, now) = match &arguments.kernel {
        Some(kernel) => (kernel.clone(), guest::probe(kernel)?),
        None => {
            ensure!(geteuid().is_root(), "loading the programs needs root");
            (ebpf::kernel()?, ask(&ebpf::object()?)?)
        }
    };
    let mut record = record()?;
    if !arguments.bless {
        return compare(&record, &release, &now);
    }
    record.insert(release, now);
    let path = workspace().join(RECORD);
    let text = format!(
        "# Written by `cargo xtask probe --bless`.\n{}",
        toml::to_string(&record)?
    );
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Asks the running kernel.
fn ask(object: &[u8]) -> Result<Kernel> {
    let costs = ebpf::load(object, &std::env::temp_dir())?;
    let mut features = BTreeMap::new();
    for feature in FEATURES {
        if let Seen::Asked(asked) = &feature.seen {
            features.insert(feature.id.to_owned(), asked().with_context(|| feature.id)?);
        }
    }
    let verified = costs.into_iter().map(|(name, cost)| (name, cost.verified)).collect();
    Ok(Kernel { features, verified })
}

/// From what `cargo xtask probe --raw` prints.
pub(crate) fn parse(text: &str) -> Result<Kernel> {
    toml::from_str(text).with_context(|| format!("not what a kernel says:\n{text}"))
}

/// Holds what a kernel says against the record.
///
/// # Errors
/// A feature is recorded otherwise.
pub(crate) fn check(release: &str, now: &Kernel) -> Result<()> {
    compare(&record()?, release, now)
}

fn compare(record: &Record, release: &str, now: &Kernel) -> Result<()> {
    let Some(then) = record.get(release) else {
        println!("not compared: {RECORD} has no kernel {release}");
        return Ok(());
    };
    let said = |kernel: &Kernel, id: &str| kernel.features.get(id).copied();
    let differs = |feature: &&Feature| said(then, feature.id) != said(now, feature.id);
    let differences: Vec<&str> = FEATURES.iter().filter(differs).map(|feature| feature.id).collect();
    if !differences.is_empty() {
        bail!(
            "kernel {release} says another thing than {RECORD} about {}; if it is right: cargo xtask probe --bless",
            differences.join(", ")
        );
    }
    println!("kernel {release}: as in {RECORD}");
    Ok(())
}

fn record() -> Result<Record> {
    let path = workspace().join(RECORD);
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).context(RECORD),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::new()),
        Err(error) => Err(error).context(RECORD),
    }
}

/// `docs/kernel.md` with its tables made anew; all else is written by hand.
pub(crate) fn document() -> Result<(&'static str, String)> {
    let path = workspace().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let record = record()?;
    let text = replaced(&text, "needed", &features(&record, true, "for"))?;
    let text = replaced(&text, "used", &features(&record, false, "without it"))?;
    Ok((DOCUMENT, replaced(&text, "verified", &verified(&record))?))
}

/// Puts a table between its two marks.
fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- {name}: made by `cargo xtask gen` -->\n");
    let missing = || format!("{DOCUMENT} has no {}", begin.trim());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once("<!-- end -->").with_context(missing)?;
    Ok(format!("{before}{begin}{table}<!-- end -->{after}"))
}

fn features(record: &Record, needed: bool, last: &str) -> String {
    let kernels = sorted(record);
    let mut text = head(&["feature", "since", last], &kernels);
    for feature in FEATURES.iter().filter(|feature| feature.needed == needed) {
        let _ = write!(text, "| {} | {} | {} |", feature.name, feature.since, feature.text);
        for (_, kernel) in &kernels {
            let cell = match feature.seen {
                Seen::Asked(_) => match kernel.features.get(feature.id) {
                    Some(true) => "yes",
                    Some(false) => "no",
                    None => "",
                },
                Seen::Loading => "loads",
                Seen::Attaching => "attaches",
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn verified(record: &Record) -> String {
    let kernels = sorted(record);
    let mut text = head(&["program"], &kernels);
    let names: std::collections::BTreeSet<&String> = kernels.iter().flat_map(|(_, k)| k.verified.keys()).collect();
    for name in names {
        let _ = write!(text, "| `{name}` |");
        for (_, kernel) in &kernels {
            let count = kernel.verified.get(name).map(u32::to_string).unwrap_or_default();
            let _ = write!(text, " {count} |");
        }
        text.push('\n');
    }
    text
}

fn head(columns: &[&str], kernels: &[(&str, &Kernel)]) -> String {
    let columns: Vec<&str> = columns
        .iter()
        .copied()
        .chain(kernels.iter().map(|(release, _)| *release))
        .collect();
    format!("| {} |\n{}|\n", columns.join(" | "), "|---".repeat(columns.len()))
}

/// Older kernels first.
fn sorted(record: &Record) -> Vec<(&str, &Kernel)> {
    let mut kernels: Vec<(&str, &Kernel)> = record.iter().map(|(release, kernel)| (&**release, kernel)).collect();
    kernels.sort_by_key(|(release, _)| {
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next())
    });
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(tcx: bool, count: u32) -> Kernel {
        Kernel {
            features: [("tcx".to_owned(), tcx)].into(),
            verified: [("tc_node".to_owned(), count)].into(),
        }
    }

    #[test]
    fn tables_have_a_column_for_each_kernel_in_the_order_of_their_age() {
        let record: Record = [("6.18".into(), kernel(true, 7)), ("6.1".into(), kernel(false, 5))].into();
        let used = features(&record, false, "without it");
        assert!(
            used.starts_with("| feature | since | without it | 6.1 | 6.18 |\n|---|---|---|---|---|\n"),
            "{used}"
        );
        let tcx = used.lines().find(|line| line.starts_with("| tcx links")).unwrap();
        assert!(tcx.ends_with("| no | yes |"), "{tcx}");
        assert!(verified(&record).ends_with("| `tc_node` | 5 | 7 |\n"));
    }

    #[test]
    fn a_table_is_replaced_between_its_marks_alone() {
        let mark = "<!-- used: made by `cargo xtask gen` -->\n";
        let text = format!("before\n{mark}old\n<!-- end -->\nafter\n");
        let expected = format!("before\n{mark}new\n<!-- end -->\nafter\n");
        assert_eq!(replaced(&text, "used", "new\n").unwrap(), expected);
        assert!(
            replaced("nothing", "used", "new\n")
                .unwrap_err()
                .to_string()
                .contains("docs/kernel.md has no")
        );
    }

    #[test]
    fn a_kernel_that_says_something_else_is_told() {
        let record: Record = [("6.1".into(), kernel(false, 5))].into();
        assert!(
            compare(&record, "6.1", &kernel(false, 9)).is_ok(),
            "counts are for information"
        );
        let error = compare(&record, "6.1", &kernel(true, 5)).unwrap_err().to_string();
        assert!(error.contains("tcx"), "{error}");
        assert!(compare(&record, "6.2", &kernel(true, 5)).is_ok());
    }

    #[test]
    fn what_is_printed_is_read() {
        let said = kernel(true, 5);
        assert_eq!(parse(&toml::to_string(&said).unwrap()).unwrap(), said);
    }
}
