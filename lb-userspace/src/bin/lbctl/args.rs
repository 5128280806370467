//! The command tree, and nothing else.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use lb_userspace::config::DEFAULT_FILE;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: doctor failed, plan differs, nothing found with --fail-empty
  2  wrong usage
  3  neither agent nor maps can be reached
  4  permission denied
  5  object not found, or ambiguous
  6  agent or maps of another version";

/// Looks inside the load balancer of this node.
///
/// Asks the agent's socket; when no agent answers, reads the pinned maps itself and says so.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXIT_CODES, infer_subcommands = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Whom to ask.
    #[arg(long = "from", value_enum, value_name = "WHERE", id = "root_from")]
    pub(crate) from: Option<From>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Parser)]
pub(crate) struct Common {
    /// Form of the answer; JSON and YAML are stable, text is not.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t, global = true)]
    pub(crate) output: Output,
    /// Show only items with FIELD=VALUE; the same field again is "or", another field "and".
    #[arg(short, long, value_name = "FIELD=VALUE", global = true)]
    pub(crate) filter: Vec<String>,
    /// Print names only; with `status` nothing at all, the exit code says whether the agent is ready.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Leave out the headers of tables.
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// The agent's admin socket.
    #[arg(
        long,
        env = "LB_SOCKET",
        value_name = "PATH",
        default_value = "/run/lb/admin.sock",
        global = true
    )]
    pub(crate) socket: PathBuf,
    /// Directory in a mounted bpffs that holds the pinned maps.
    #[arg(
        long,
        env = "LB_BPFFS",
        value_name = "DIR",
        default_value = "/sys/fs/bpf/lb",
        global = true
    )]
    pub(crate) bpffs: PathBuf,
    /// How long to wait for the agent, as 5s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, global = true)]
    pub(crate) timeout: Duration,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One object.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names, one a line.
    Name,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The agent, else the maps.
    #[default]
    Auto,
    /// The agent only.
    Agent,
    /// The pinned maps only; names are not known.
    Maps,
}

/// For verbs that work with and without an agent.
#[derive(Clone, Copy, Debug, Parser)]
pub(crate) struct SourceArgs {
    /// Whom to ask.
    #[arg(long, value_enum, value_name = "WHERE")]
    pub(crate) from: Option<From>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Agent, provider, datapath, map fill and drops on one screen.
    Status {
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Services.
    #[command(subcommand, visible_alias = "svc")]
    Service(Service),
    /// Backends.
    #[command(subcommand)]
    Backend(Backend),
    /// Tracked connections.
    #[command(subcommand, visible_alias = "ct")]
    Conn(Conn),
    /// Service names.
    #[command(subcommand)]
    Dns(Dns),
    /// The maps themselves, as pinned.
    #[command(subcommand)]
    Map(Map),
    /// The programs, as pinned.
    #[command(subcommand)]
    Prog(Prog),
    /// What differs between the maps and the desired state; exit code 1 if anything does.
    Plan,
    /// Check kernel, system, agent and Swarm, and say how to mend what is wrong; exit code 1 if a check fails.
    Doctor {
        /// The agent's configuration file.
        #[arg(long, env = "LB_CONFIG", value_name = "FILE", default_value = DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
    /// Print a generated document.
    #[command(hide = true)]
    Docs {
        /// Which.
        document: Document,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// List services.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        source: SourceArgs,
    },
    /// List the tasks of a service.
    Ps {
        /// NAME, NETWORK/NAME, the beginning of one, or a number.
        name: String,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Show all about a service.
    Inspect {
        /// NAME, NETWORK/NAME, the beginning of one, or a number.
        name: String,
        #[command(flatten)]
        source: SourceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// List backends.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those of this service.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        source: SourceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conn {
    /// List connections.
    #[command(visible_alias = "list")]
    Ls {
        /// Most connections to show; 0: all.
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        limit: u64,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Count connections.
    Count {
        /// Exit with 1 if there is none.
        #[arg(long)]
        fail_empty: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dns {
    /// What a name would be answered with, and why; exit code 1 if it does not exist.
    Query {
        /// The name.
        name: String,
        /// Ask as a client in this network.
        #[arg(long, value_name = "NETWORK", conflicts_with = "client")]
        from: Option<String>,
        /// Ask as this client.
        #[arg(long, value_name = "IP")]
        client: Option<IpAddr>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Map {
    /// List the maps with their fill.
    #[command(visible_alias = "list")]
    Ls,
    /// Print every entry of a map, decoded.
    Dump {
        /// Name of the map.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Prog {
    /// List programs and what they are attached to.
    #[command(visible_alias = "list")]
    Ls,
}

/// Generated documents.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Document {
    /// docs/lbctl.md
    Lbctl,
    /// docs/metrics.md
    Metrics,
}
