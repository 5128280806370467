//! The services behind HAProxy and nginx.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_tests::cleanup::{Guard, Resource};
use lb_tests::cluster::Cluster;

use super::contender::Kind;
use super::plan::{BACKENDS, Protocol, backend, frontends, node, v4};
use crate::packages;

/// A proxy's process. Killed on drop.
pub(super) struct Proxy {
    child: Child,
    guard: Option<Guard>,
    pub(super) directory: tempfile::TempDir,
}

impl Proxy {
    pub(super) fn start(cluster: &Cluster, kind: Kind) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("proxy.conf");
        let (text, mut command) = if kind == Kind::Haproxy {
            let mut command = Command::new(packages::find("haproxy")?);
            command.arg("-db").arg("-f").arg(&config);
            (haproxy(cluster), command)
        } else {
            let mut command = Command::new(packages::find("nginx")?);
            command.arg("-p").arg(directory.path()).arg("-c").arg(&config);
            (nginx(cluster, directory.path()), command)
        };
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = node(cluster).start(&mut command)?;
        let guard = Some(Guard::new(Resource::Process(child.id().cast_signed())));
        Ok(Self {
            child,
            guard,
            directory,
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's master ends its workers only when it is asked to.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
    }
}

pub(super) fn haproxy(cluster: &Cluster) -> String {
    let mut text =
        "global\n maxconn 4000\n nbthread 2\ndefaults\n mode tcp\n balance roundrobin\n timeout connect 5s\n \
                    timeout client 60s\n timeout server 60s\n"
            .to_owned();
    for here in [true, false] {
        let (address, port) = frontends(cluster, here, Protocol::Tcp)[0];
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            text,
            "listen s{port}\n bind {address}:{port}\n server a {to}:{a}\n server b {to}:{b}"
        );
    }
    text
}

pub(super) fn nginx(cluster: &Cluster, directory: &Path) -> String {
    let directory = directory.display();
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes 2;\n\
         worker_rlimit_nofile 20000;\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections 8192; }}\nstream {{\n"
    );
    for here in [true, false] {
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(text, "upstream u{here} {{ server {to}:{a}; server {to}:{b}; }}");
        let [(address, tcp), (_, udp)] = Protocol::BOTH.map(|protocol| frontends(cluster, here, protocol)[0]);
        let _ = writeln!(
            text,
            "server {{ listen {address}:{tcp} backlog=4096; proxy_pass u{here}; }}\n\
             server {{ listen {address}:{udp} udp reuseport; proxy_pass u{here}; proxy_responses 0; proxy_timeout 2s; }}"
        );
    }
    text + "}\n"
}
