//! The command tree of `lb-agent`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lb_userspace::config::DEFAULT_FILE;

/// Load balancer agent: one on every node.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent in the foreground until SIGTERM or SIGINT; the datapath then keeps forwarding.
    Run {
        #[command(flatten)]
        source: Source,
    },
    /// Check, explain or show the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Remove programs, tables and every other trace of the agent from this node; traffic goes its old ways again.
    Uninstall {
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration: exit code 0 if it can be used, else 1 and what is wrong.
    Check {
        #[command(flatten)]
        source: Source,
        /// Check the cluster file that it names as well.
        #[arg(long)]
        cluster: bool,
    },
    /// Print the default configuration, every setting explained.
    Default,
    /// Print the configuration in force.
    Show {
        #[command(flatten)]
        source: Source,
        /// Say behind each value where it came from.
        #[arg(long)]
        origin: bool,
    },
}

/// Where the configuration comes from. Precedence: --set, environment (LB_SECTION__KEY), file, defaults.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "LB_CONFIG", hide_env_values = true, default_value = DEFAULT_FILE)]
    pub(crate) config: PathBuf,
    /// Set one value, as in --set datapath.xdp=off; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
