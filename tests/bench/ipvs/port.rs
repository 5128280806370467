//! [`Port`]: an interface of the node whose frames come from this program, and go through XDP and the stack as a network
//! card's do: XDP runs before there is a packet buffer, and nothing is copied for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use lb_tests::netns::Netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `TUNSETIFINDEX`, `TUNSETIFF`; `IFF_TAP | IFF_NO_PI`.
const SET_INDEX: libc::c_ulong = 0x4004_54da;
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const TAP: libc::c_short = 0x1002;

/// A tap device; gone with it.
pub(super) struct Port {
    file: File,
}

impl Port {
    /// Makes the interface `if<index>` in a namespace; it is down.
    ///
    /// # Errors
    /// Without the module `tun`, or if the index is taken.
    pub(super) fn open(netns: &Netns, index: u32) -> Result<Self> {
        netns.run(|| Self::open_inside(index)).context("/dev/net/tun")
    }

    fn open_inside(index: u32) -> Result<Self> {
        // What is written does not wait: only then does the driver give it to XDP as a card would.
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun")?;
        // SAFETY: all zeroes are an empty request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(format!("if{index}").bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = TAP;
        // SAFETY: both requests read what they are given a pointer to, which lives longer than the call.
        let codes = unsafe {
            [
                libc::ioctl(file.as_raw_fd(), SET_INDEX as _, &raw const index),
                libc::ioctl(file.as_raw_fd(), SET_INTERFACE as _, &raw const request),
            ]
        };
        ensure!(codes == [0, 0], io::Error::last_os_error());
        Ok(Self { file })
    }

    /// Receives a frame; returns when the node has done with it all that it does at once.
    ///
    /// # Errors
    /// If the interface is down.
    pub(super) fn receive(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(|_| ())
    }
}

/// Sends a frame out of an interface.
///
/// # Errors
/// Without the right to packet sockets, or if the interface is down.
pub(super) fn send(netns: &Netns, index: u32, frame: &[u8]) -> Result<()> {
    let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    let fd = netns.run(open)?;
    // SAFETY: all zeroes are an address of nobody.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    // SAFETY: frame and address live longer than the call, and are as long as it is told.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    ensure!(sent == frame.len() as isize, io::Error::last_os_error());
    Ok(())
}
