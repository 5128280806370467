//! The same services as rules of iptables and nftables: how long it takes to put all of them in force, and to change one.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::netns::Netns;

use crate::packages;

/// Who holds the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Iptables,
    Nftables,
}

impl Peer {
    pub(super) const BOTH: [Self; 2] = [Self::Iptables, Self::Nftables];

    /// As a subject of measurements.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables-restore",
            Self::Nftables => "nft -f",
        }
    }

    /// Everything, in the place of what was there.
    pub(super) fn all(self, (services, backends): (u16, u8)) -> String {
        match self {
            Self::Iptables => {
                let (mut chains, mut rules) = ("*nat\n".to_owned(), String::new());
                for index in 0..services {
                    let _ = writeln!(chains, ":SVC-{index} - [0:0]");
                    let _ = writeln!(
                        chains,
                        "-A PREROUTING -p tcp -m tcp --dport {} -j SVC-{index}",
                        port(index)
                    );
                    rules.push_str(&iptables(index, backends, 0));
                }
                chains + &rules + "COMMIT\n"
            }
            Self::Nftables => {
                let (mut chains, mut elements) = (String::new(), Vec::new());
                for index in 0..services {
                    let _ = writeln!(chains, "chain svc{index} {{ {}; }}", nftables(backends, 0));
                    elements.push(format!("{} : goto svc{index}", port(index)));
                }
                format!(
                    "table ip balance\ndelete table ip balance\ntable ip balance {{\n{chains}\
                     map services {{ type inet_service : verdict\nelements = {{ {} }} }}\n\
                     chain prerouting {{ type nat hook prerouting priority dstnat; tcp dport vmap @services; }}\n}}\n",
                    elements.join(",\n")
                )
            }
        }
    }

    /// Other backends for one service.
    pub(super) fn one(self, index: u16, backends: u8, generation: u8) -> String {
        match self {
            Self::Iptables => format!(
                "*nat\n:SVC-{index} - [0:0]\n{}COMMIT\n",
                iptables(index, backends, generation)
            ),
            Self::Nftables => format!(
                "flush chain ip balance svc{index}\nadd rule ip balance svc{index} {}\n",
                nftables(backends, generation)
            ),
        }
    }

    /// Puts rules in force: how long that takes.
    ///
    /// # Errors
    /// If they are refused.
    pub(super) fn apply(self, netns: &Netns, rules: &str, whole: bool) -> Result<Duration> {
        let mut command = match self {
            Self::Iptables => Command::new(packages::find("iptables-restore")?),
            Self::Nftables => Command::new(packages::find("nft")?),
        };
        match self {
            Self::Iptables if whole => {}
            Self::Iptables => drop(command.arg("--noflush")),
            Self::Nftables => drop(command.args(["-f", "-"])),
        }
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, rules.as_bytes())?;
        command.stdin(Stdio::from(file.reopen()?));
        let start = Instant::now();
        let output = netns.run(|| command.output())?;
        let took = start.elapsed();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}",
            self.name(),
            error.lines().take(5).collect::<Vec<_>>().join("\n")
        );
        Ok(took)
    }
}

const fn port(index: u16) -> u16 {
    12_000 + index
}

fn backend(number: u8, generation: u8) -> String {
    format!("10.1.{}.{}", 16 + generation, number + 1)
}

fn iptables(index: u16, backends: u8, generation: u8) -> String {
    let mut rules = String::new();
    for number in 0..backends {
        let left = backends - number;
        let turn = if left > 1 {
            format!("-m statistic --mode nth --every {left} --packet 0 ")
        } else {
            String::new()
        };
        let to = backend(number, generation);
        let _ = writeln!(rules, "-A SVC-{index} -p tcp {turn}-j DNAT --to-destination {to}:8000");
    }
    rules
}

fn nftables(backends: u8, generation: u8) -> String {
    let map: Vec<String> = (0..backends)
        .map(|number| format!("{number} : {} . 8000", backend(number, generation)))
        .collect();
    format!(
        "meta l4proto tcp dnat ip to numgen inc mod {backends} map {{ {} }}",
        map.join(", ")
    )
}
