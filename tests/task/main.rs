//! `lb-task`: what runs in every container of the tests' Docker Swarm. A server that says who it is and whom it sees, and
//! clients to be run beside it (`docker exec <container> /bin/lb-task get http://web/`).

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use lb_tests::client::{Connection, ask_udp};
use lb_tests::server::{answer_tcp, answer_udp};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// As long as this is there, the task says that it is ill.
const ILLNESS: &str = "/tmp/ill";

/// A backend and clients, for containers.
#[derive(Parser)]
#[command(name = "lb-task", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers HTTP and UDP with its name and the client's address, until SIGTERM: then it takes no more
    /// connections, finishes the requests that it has, and ends.
    Serve {
        /// Port for both; may be given more than once.
        #[arg(long = "port", default_values_t = [80])]
        ports: Vec<u16>,
        /// Its name; the host's name by default.
        #[arg(long, env = "LB_TASK_NAME")]
        name: Option<String>,
    },
    /// Prints the body of `http://host[:port][/path]`.
    Get { url: String },
    /// Sends one datagram to `host:port` and prints the answer.
    Ask { target: String },
    /// Prints the IPv4 addresses of a name, one per line, as the C library finds them.
    Resolve { name: String },
    /// Whether the task is healthy, by its exit code; for `--health-cmd`.
    Health {
        /// Port of its server.
        #[arg(long, default_value_t = 80)]
        port: u16,
    },
    /// From now on `health` fails.
    Sicken,
    /// `health` succeeds again.
    Heal,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { ports, name } => {
            let name = match name {
                Some(name) => name,
                None => fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            runtime.block_on(serve(&name, &ports))
        }
        Command::Get { url } => {
            let (host, path) = split(&url)?;
            let body = Connection::open(first_address(&host)?)?.get(&path)?;
            Ok(std::io::stdout().write_all(&body)?)
        }
        Command::Ask { target } => {
            let answer = ask_udp(first_address(&target)?)?;
            println!("{} {}", answer.backend, answer.peer);
            Ok(())
        }
        Command::Resolve { name } => {
            for address in addresses(&format!("{name}:0"))? {
                println!("{}", address.ip());
            }
            Ok(())
        }
        Command::Health { port } => {
            ensure!(!Path::new(ILLNESS).exists(), "ill: {ILLNESS} is there");
            Connection::open((Ipv4Addr::LOCALHOST, port).into())?.ask()?;
            Ok(())
        }
        Command::Sicken => Ok(fs::write(ILLNESS, "")?),
        Command::Heal => match fs::remove_file(ILLNESS) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
    }
}

async fn serve(name: &str, ports: &[u16]) -> Result<()> {
    // Before the first port is open, or an early signal ends the process at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut servers = JoinSet::new();
    for port in ports {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
        let tcp = TcpListener::bind(address)
            .await
            .with_context(|| format!("serve TCP port {port}"))?;
        let udp = UdpSocket::bind(address)
            .await
            .with_context(|| format!("serve UDP port {port}"))?;
        tokio::spawn(answer_udp(name.to_owned(), udp));
        let mut stopped = stop.subscribe();
        servers.spawn(answer_tcp(name.to_owned(), tcp, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    println!("{name} serves {ports:?}");
    tokio::select! {
        _ = terminate.recv() => {}
        ended = servers.join_next() => bail!("a server ended: {ended:?}"),
    }
    println!("{name} stops");
    stop.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    println!("{name} has finished");
    Ok(())
}

/// `host:port` and path of a URL.
fn split(url: &str) -> Result<(String, String)> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url:?} does not begin with http://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    Ok((host, path.to_owned()))
}

fn first_address(target: &str) -> Result<SocketAddr> {
    addresses(target)?
        .first()
        .copied()
        .with_context(|| format!("{target} has no IPv4 address"))
}

fn addresses(target: &str) -> Result<Vec<SocketAddr>> {
    let found = target.to_socket_addrs().with_context(|| format!("look up {target}"))?;
    let mut found: Vec<_> = found.filter(SocketAddr::is_ipv4).collect();
    found.dedup();
    Ok(found)
}
