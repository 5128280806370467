//! What a Swarm adds to the facts: the container engine, its namespaces, other agents, the way to other nodes, cards.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use lb_common::abi::{NODE_LOCAL, NODE_PRESENT, Nodes};
use lb_userspace::config::Config;
use lb_userspace::datapath::view::View;
use lb_userspace::net::card::Card;
use lb_userspace::plan::store::ReadTables as _;
use lb_userspace::provider::docker::Role;
use lb_userspace::provider::docker::engine::Engine;
use nix::sys::socket::{getsockopt, sockopt::IpMtu};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The engine and other nodes answer within milliseconds, or somebody throws packets away.
const PATIENCE: Duration = Duration::from_secs(2);

pub(in super::super) struct Swarm {
    /// The engine's socket.
    pub(in super::super) socket: String,
    pub(in super::super) engine: Result<Answer, String>,
    /// Directory of the containers' namespaces.
    pub(in super::super) directory: PathBuf,
    pub(in super::super) namespaces: Result<Namespaces, String>,
    /// What is wrong with the files of the stream's identity. None: the stream is off.
    pub(in super::super) identity: Option<Result<(), String>>,
    /// Streams of other nodes' managers, and whether somebody accepts connections there.
    pub(in super::super) managers: Vec<(SocketAddr, Result<(), String>)>,
    pub(in super::super) tunnel_port: u16,
    /// Other nodes' IPv4 tunnel addresses, and how large a packet the kernel would send there.
    pub(in super::super) paths: Vec<(Ipv4Addr, Result<u32, String>)>,
    /// Of node interfaces.
    pub(in super::super) cards: Vec<(String, Card)>,
}

/// What the engine says.
pub(in super::super) struct Answer {
    /// As `v1.44`.
    pub(in super::super) api: String,
    pub(in super::super) role: Role,
}

/// Files in the directory of namespaces.
#[derive(Clone, Copy)]
pub(in super::super) struct Namespaces {
    pub(in super::super) mounted: usize,
    /// Files on which no namespace is mounted, as far as is seen here. Docker leaves some for a minute.
    pub(in super::super) empty: usize,
    /// What other mount namespaces mount there later is seen here.
    pub(in super::super) follows: bool,
}

impl Swarm {
    pub(super) fn collect(config: &Config, nodes: &[Ipv4Addr], interfaces: &[&str]) -> Self {
        let directory = config.provider.exec_root.join("netns");
        let mut swarm = Self {
            socket: config.provider.socket.display().to_string(),
            engine: Err("no answer".into()),
            namespaces: namespaces(&directory).map_err(|e| e.to_string()),
            directory,
            identity: identity(config),
            managers: Vec::new(),
            tunnel_port: config.datapath.tunnel_port,
            paths: nodes.iter().map(|node| (*node, path(*node))).collect(),
            cards: interfaces
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), Card::of(name).ok()?)))
                .collect(),
        };
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(swarm.ask(config)),
            Err(error) => swarm.engine = Err(error.to_string()),
        }
        swarm
    }

    async fn ask(&mut self, config: &Config) {
        self.engine = ask(&Engine::new(&config.provider.socket, PATIENCE)).await;
        let (Ok(answer), Some(port), Some(_)) = (&self.engine, config.stream.port(), &self.identity) else {
            return;
        };
        let others = answer.role.managers.iter().map(SocketAddr::ip);
        let others = others.filter(|address| Some(*address) != answer.role.address);
        self.managers = join_all(others.map(|address| connect((address, port).into()))).await;
    }
}

async fn ask(engine: &Engine) -> Result<Answer, String> {
    let info = engine.info().await.map_err(|e| e.to_string())?;
    let api = engine.version().await.map_err(|e| e.to_string())?;
    Ok(Answer {
        api: api.trim_start_matches('/').to_owned(),
        role: Role::of(&info),
    })
}

/// Says nothing there: a peer that says nothing is left in peace.
async fn connect(address: SocketAddr) -> (SocketAddr, Result<(), String>) {
    let result = match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(result) => result.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(PATIENCE))),
    };
    (address, result)
}

fn namespaces(directory: &Path) -> io::Result<Namespaces> {
    let mut found = Namespaces {
        mounted: 0,
        empty: 0,
        follows: follows(&fs::read_to_string("/proc/self/mountinfo")?, &directory.canonicalize()?),
    };
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match statfs(&path) {
            Ok(kind) if kind.filesystem_type() == NSFS_MAGIC => found.mounted += 1,
            Ok(_) => found.empty += 1,
            // Gone meanwhile.
            Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Whether the mount that holds a directory gets what is mounted elsewhere, as `/proc/self/mountinfo` has it.
fn follows(mounts: &str, directory: &Path) -> bool {
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        let point = Path::new(words.next()?);
        let tags = words.skip(1).take_while(|word| *word != "-");
        let follows = tags
            .into_iter()
            .any(|tag| tag.starts_with("shared:") || tag.starts_with("master:"));
        directory
            .starts_with(point)
            .then_some((point.components().count(), follows))
    });
    // The last of several at one place lies on top.
    holding
        .max_by_key(|(depth, _)| *depth)
        .is_some_and(|(_, follows)| follows)
}

/// Whether the files can be read; what is in them is the agent's to judge.
fn identity(config: &Config) -> Option<Result<(), String>> {
    let stream = &config.stream;
    let files = [&stream.secret_file, &stream.certificate, &stream.key, &stream.ca];
    let unreadable = files
        .iter()
        .filter(|path| !path.as_os_str().is_empty())
        .find_map(|path| Some(format!("{}: {}", path.display(), fs::File::open(path).err()?)));
    stream.enabled().then_some(unreadable.map_or(Ok(()), Err))
}

/// The largest packet that the kernel sends to a node, from routes, interfaces and what routers have told.
fn path(node: Ipv4Addr) -> Result<u32, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
    // Sends nothing; the port is that of nobody.
    socket.connect((node, 9)).map_err(|e| e.to_string())?;
    let mtu = getsockopt(&socket, IpMtu).map_err(|e| e.to_string())?;
    u32::try_from(mtu).map_err(|e| e.to_string())
}

/// IPv4 addresses to which the agent tunnels.
pub(super) fn tunnel_addresses(view: &View) -> Vec<Ipv4Addr> {
    let nodes = view.entries::<Nodes>().unwrap_or_default().into_values();
    let others = nodes.filter(|node| node.flags & NODE_PRESENT != 0 && node.flags & NODE_LOCAL == 0);
    let addresses = others.map(|node| node.tunnel_v4.to_ip());
    addresses
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_is_that_of_the_innermost_mount() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:25 / /run rw,nosuid shared:5 master:2 - tmpfs tmpfs rw\n\
                      41 30 0:25 /docker/netns /run/docker/netns rw,nosuid - tmpfs tmpfs rw\n";
        assert!(follows(mounts, Path::new("/run/docker")));
        assert!(!follows(mounts, Path::new("/run/docker/netns")));
        assert!(follows(mounts, Path::new("/var/lib")));
        let slave = mounts.replace("netns rw,nosuid -", "netns rw,nosuid master:5 -");
        assert!(follows(&slave, Path::new("/run/docker/netns")));
        assert!(!follows("", Path::new("/run")));
    }
}
