//! The network between machines: one bridge in a namespace of its own, 10.80.0.0/24 and fd80::/64, MTU 1500.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::Netns;

/// A namespace with a bridge `br0` and nobody on it yet.
///
/// # Errors
/// Without root, or without iproute2.
pub(crate) fn bridge() -> Result<Netns> {
    let underlay = Netns::new("underlay")?;
    underlay.ip("link add br0 type bridge stp_state 0 mcast_snooping 0\n\
         link set br0 up")?;
    Ok(underlay)
}

/// Connects a machine's `eth0` to the bridge, whose end of the cable is called `port`: the machine's addresses.
///
/// # Errors
/// If the machine has an `eth0` or the port's name is taken.
pub(crate) fn plug(underlay: &Netns, machine: &Netns, port: &str, host: u8) -> Result<[IpAddr; 2]> {
    let addresses = addresses(host);
    machine.veth("eth0", underlay, port)?;
    underlay.ip(&format!("link set {port} master br0 up"))?;
    machine.ip(&format!(
        "address add {}/24 dev eth0\n\
         address add {}/64 dev eth0 nodad\n\
         link set eth0 up",
        addresses[0], addresses[1]
    ))?;
    Ok(addresses)
}

/// `10.80.0.<host>` and `fd80::<host>`, the host written with the same digits in both.
pub(crate) fn addresses(host: u8) -> [IpAddr; 2] {
    let digits = u16::from_str_radix(&host.to_string(), 16).expect("decimal digits are hexadecimal digits");
    [
        Ipv4Addr::new(10, 80, 0, host).into(),
        Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, digits).into(),
    ]
}
