//! [`Card`]: what drives an interface, and whether it is left to sum packets up, through the ioctls of ethtool.

use std::io;
use std::os::fd::AsRawFd as _;

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

const GET_DRIVER: u32 = 3;
const GET_TX_CHECKSUM: u32 = 0x16;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// What drives an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The driver's name, such as `vmxnet3` or `veth`.
    pub driver: String,
    /// The card fills in checksums of what it sends.
    pub sums: bool,
}

impl Card {
    /// Of an interface of this network namespace.
    ///
    /// # Errors
    /// If there is none of that name, or its driver does not say.
    pub fn of(interface: &str) -> io::Result<Self> {
        let mut info = DriverInfo {
            command: GET_DRIVER,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            rom: [0; 32],
            reserved: [0; 12],
            counts: [0; 5],
        };
        let mut sums = Value {
            command: GET_TX_CHECKSUM,
            data: 0,
        };
        ask(interface, &mut info)?;
        // Drivers that sum nothing up may not know the question.
        let _ = ask(interface, &mut sums);
        let end = info.driver.iter().position(|byte| *byte == 0);
        let name = &info.driver[..end.unwrap_or(info.driver.len())];
        Ok(Self {
            driver: String::from_utf8_lossy(name).into_owned(),
            sums: sums.data != 0,
        })
    }
}

/// One question of ethtool; `question` begins with its number, and gets the answer.
fn ask<T>(interface: &str, question: &mut T) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(question).cast(),
        },
    };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    // SAFETY: the name ends with a zero, and the data points to a structure of the size that the kernel knows for the
    // number at its beginning; both live through the call.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Value>(), 8);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(Card::of("nowhere0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(Card::of("a-name-that-no-interface-can-have").is_err());
    }
}
