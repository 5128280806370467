//! [`Capture`]: the packets of every interface of a namespace, kept as pcap files if the test fails.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Netns;
use crate::require;

/// Bytes kept of each packet: all headers, some payload.
const SNAP: usize = 128;
/// Packets kept of each interface; the newest.
const KEEP: usize = 50_000;

/// Where packets never cease, what is in the queue is waited for no longer.
const BUSY: Duration = Duration::from_secs(2);

/// Listens until dropped. Dropped while a panic unwinds, it writes `<target>/test-artifacts/<test>/<namespace>-<if>.pcap`.
#[derive(Debug)]
pub struct Capture {
    netns: String,
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    packets: Arc<Mutex<Packets>>,
    /// Looks that found nothing in the socket's queue.
    idle: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Packets {
    /// By interface index.
    interfaces: BTreeMap<usize, Interface>,
}

#[derive(Debug, Default)]
struct Interface {
    name: String,
    packets: std::collections::VecDeque<Packet>,
}

/// A packet as the interface sent or received it.
#[derive(Clone, Debug)]
pub struct Packet {
    time: Duration,
    length: usize,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Starts listening on every interface of `netns`, in the name of the calling test.
    ///
    /// # Errors
    /// Without the right to packet sockets.
    pub fn start(netns: &Netns) -> Result<Self> {
        let open = || -> nix::Result<OwnedFd> {
            let protocol = SockProtocol::EthAll;
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&fd, sockopt::RcvBufForce, &(4 << 20))?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
            Ok(fd)
        };
        let fd = netns
            .run(open)
            .with_context(|| format!("packet socket in {}", netns.name()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let packets = Arc::new(Mutex::new(Packets::default()));
        let idle = Arc::new(AtomicU64::new(0));
        let (stopped, sink, looks) = (stop.clone(), packets.clone(), idle.clone());
        let thread = netns.spawn(move || listen(&fd, &stopped, &sink, &looks));
        Ok(Self {
            netns: netns.name().to_owned(),
            directory: require::artifacts(),
            stop,
            packets,
            idle,
            thread: Some(thread),
        })
    }

    /// What `interface` carried so far, both ways.
    pub fn packets(&self, interface: &str) -> Vec<Packet> {
        // What is still in the socket's queue: the second look from now on that finds nothing there began after this.
        let (start, idle) = (Instant::now(), self.idle.load(Ordering::Acquire));
        while self.idle.load(Ordering::Acquire) < idle + 2 && start.elapsed() < BUSY {
            std::thread::sleep(Duration::from_millis(10));
        }
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        let found = packets.interfaces.values().find(|found| found.name == interface);
        found
            .map(|found| found.packets.iter().cloned().collect())
            .unwrap_or_default()
    }

    fn write(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        // The role is the part of the namespace's name that is the same in every run.
        let role = self.netns.splitn(3, '-').nth(2).unwrap_or(&self.netns);
        for interface in packets.interfaces.values() {
            let path = self.directory.join(format!("{role}-{}.pcap", interface.name));
            write_pcap(&path, &interface.packets)?;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        if std::thread::panicking()
            && let Err(error) = self.write()
        {
            eprintln!("note: the packets of {} are lost: {error}", self.netns);
        }
    }
}

fn listen(fd: &OwnedFd, stop: &AtomicBool, sink: &Mutex<Packets>, idle: &AtomicU64) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) => {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let packet = Packet {
                    time,
                    length,
                    bytes: buffer[..length.min(SNAP)].to_vec(),
                };
                let mut packets = sink.lock().unwrap_or_else(PoisonError::into_inner);
                let interface = packets.interfaces.entry(from.ifindex()).or_insert_with(|| Interface {
                    name: interface_name(from.ifindex()),
                    packets: std::collections::VecDeque::new(),
                });
                if interface.packets.len() == KEEP {
                    interface.packets.pop_front();
                }
                interface.packets.push_back(packet);
            }
            // Timeout, to look at the flag.
            Err(Errno::EAGAIN) => {
                idle.fetch_add(1, Ordering::AcqRel);
            }
            // ENETDOWN when an interface goes.
            Ok(_) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(_) => return,
        }
    }
}

fn interface_name(index: usize) -> String {
    let name = nix::net::if_::if_indextoname(index as u32).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("if{index}"))
}

/// The classic format, microseconds, Ethernet.
fn write_pcap(path: &Path, packets: &std::collections::VecDeque<Packet>) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, SNAP as u32, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    for packet in packets {
        let length = packet.length as u32;
        for word in [
            packet.time.as_secs() as u32,
            packet.time.subsec_micros(),
            packet.bytes.len() as u32,
            length,
        ] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&packet.bytes)?;
    }
    file.flush()
}
