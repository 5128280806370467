//! A node with its agent, a client, two backends, and cluster files of two sizes.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_tests::cluster::{Backend, Cluster, Document, Family, Machine, Port, Published, Service};

use super::{LARGE, SMALL};
use crate::machine::pin;
use crate::traffic::serve::Server;

/// After which nothing more is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the two backends.
const PORTS: [u16; 2] = [7000, 7001];
/// Of the service under test.
const PUBLISHED: u16 = 8001;

/// A cluster of one node, and what is written into its file.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    servers: [Server; 2],
    /// Text of the file up to the service under test.
    pub(super) texts: [(String, (u16, u8)); 2],
}

impl Scene {
    pub(super) fn start() -> Result<Self> {
        println!("control: building");
        let cluster = Cluster::builder()
            .nodes(1)
            .clients(1)
            .xdp("off")
            .tables(1 << 20, 1 << 17)
            .log("warn")
            .start()?;
        let workload = cluster.workload(0, "shop");
        let address = workload.address(Family::V4);
        let serve = |port| Server::start(workload.netns(), address, &[port], 1);
        let servers = [serve(PORTS[0])?, serve(PORTS[1])?];
        let base = cluster.document().clone();
        let texts = [SMALL, LARGE].map(|size| (fill(&base, size).text(), size));
        Ok(Self {
            cluster,
            servers,
            texts,
        })
    }

    pub(super) fn agent(&self) -> Result<u32> {
        self.cluster.node(0).agent().pid().context("the agent does not run")
    }

    /// Kills the agent and starts another one; how long until that is ready.
    pub(super) fn restart(&self) -> Result<Duration> {
        let node = self.cluster.node(0);
        // A whole state being taken in does not end at once: that is not what is measured.
        node.agent().kill()?;
        let start = Instant::now();
        node.start_agent()?;
        Ok(start.elapsed())
    }

    pub(super) fn target(&self) -> SocketAddr {
        self.cluster.node(0).published(Family::V4, PUBLISHED)
    }

    /// Puts another state in force, without the service under test and then with it; how long the second took, which
    /// begins with the file in its place and ends with a datagram that arrives.
    pub(super) fn replace(&self, text: &str) -> Result<Duration> {
        let nothing = self.texts[0].0.clone();
        self.put(&nothing)?;
        self.wait_applied()?;
        self.follow(&format!("{text}{}", under_test(&self.cluster, 0)), 0)
    }

    /// Gives the service under test another backend; how long it takes until a new flow goes there.
    pub(super) fn change(&self, text: &str, backend: usize) -> Result<Duration> {
        self.follow(&format!("{text}{}", under_test(&self.cluster, backend)), backend)
    }

    fn follow(&self, text: &str, backend: usize) -> Result<Duration> {
        let before = self.servers[backend].received();
        self.cluster.client(0).netns().run(|| {
            pin(0)?;
            let start = self.put(text)?;
            loop {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(self.target())?;
                // Refused is as good as unheard: the service may not be there yet.
                drop(socket.send(b"who?"));
                std::thread::sleep(Duration::from_micros(200));
                if self.servers[backend].received() > before {
                    return Ok(start.elapsed());
                }
                ensure!(start.elapsed() < PATIENCE, "no packet follows after {PATIENCE:?}");
            }
        })
    }

    /// Writes the file; when it was in its place. Written out before: a file system may do that when the file takes another
    /// one's place, which for a large one takes longer than anything here.
    fn put(&self, text: &str) -> Result<Instant> {
        let file = self.cluster.file();
        let temporary = file.with_extension("new");
        let mut new = fs::File::create(&temporary)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        let start = Instant::now();
        fs::rename(&temporary, file)?;
        Ok(start)
    }

    fn wait_applied(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let status = self.cluster.node(0).admin("/v1/status")?;
            let provider = &status["items"][0]["provider"];
            let known = self.cluster.node(0).admin("/v1/services")?;
            let gone = known["items"]
                .as_array()
                .is_some_and(|all| all.iter().all(|item| item["name"] != "probe"));
            if provider["generation"] == provider["applied"] && gone {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "not applied after {PATIENCE:?}: {provider}");
        }
    }
}

/// The service whose backend changes, as text that goes behind the rest.
pub(super) fn under_test(cluster: &Cluster, backend: usize) -> String {
    let workload = cluster.workload(0, "shop");
    let service = Service {
        name: "probe".to_owned(),
        network: "shop".to_owned(),
        mode: "vip",
        vip: vec![[10, 1, 0, 10].into()],
        ports: vec![Port {
            port: 80,
            target: PORTS[0],
            protocol: "udp",
            published: Some(Published::On(PUBLISHED)),
        }],
        backend: vec![Backend {
            name: format!("probe.{backend}"),
            node: cluster.node(0).name().to_owned(),
            addresses: vec![workload.address(Family::V4)],
            port: Some(PORTS[backend]),
            weight: 1,
            state: "ready",
        }],
        ..Service::default()
    };
    let alone = Document {
        service: vec![service],
        ..Document::default()
    };
    // The other two lists are empty, and stand before the first table.
    let text = alone.text();
    text.find("[[service]]")
        .map_or_else(String::new, |at| format!("\n{}", &text[at..]))
}

/// So many services on a node that is not there.
pub(super) fn fill(base: &Document, (services, backends): (u16, u8)) -> Document {
    let mut document = base.clone();
    let far = "far";
    document.node.push(Machine {
        name: far.to_owned(),
        addresses: vec![Ipv4Addr::new(10, 80, 0, 50).into()],
    });
    for index in 0..services {
        let backend = (0..backends).map(|number| {
            let place = (u32::from(index) * u32::from(backends) + u32::from(number)) % 20_000;
            let [.., high, low] = place.to_be_bytes();
            Backend {
                name: format!("filler{index}.{number}"),
                node: far.to_owned(),
                addresses: vec![IpAddr::from([10, 1, 16 + high, low])],
                port: None,
                weight: 1,
                state: "ready",
            }
        });
        let [high, low] = index.to_be_bytes();
        document.service.push(Service {
            name: format!("filler{index}"),
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![[10, 1, 128 + high, low].into()],
            ports: vec![Port {
                port: 80,
                target: 10_000 + index,
                protocol: "tcp",
                published: Some(Published::On(12_000 + index)),
            }],
            backend: backend.collect(),
            ..Service::default()
        });
    }
    document
}
