//! [`Link`]: an interface, as the kernel lists it.

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{NetError, Netlink, all};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual interface, as `ip -d link` shows it; `None` for hardware.
    pub kind: Option<String>,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Its other end lies in another network namespace.
    pub peer_elsewhere: bool,
    /// Interface index of its other end, of a veth.
    pub peer: Option<u32>,
}

impl Link {
    /// Whether it is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }
}

impl Netlink {
    /// Every interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let messages = all("list interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.into_iter().map(link).collect())
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        master: None,
        peer_elsewhere: false,
        peer: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::Link(ifindex) => link.peer = Some(ifindex),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|i| {
                    if let LinkInfo::Kind(k) = i {
                        Some(k.to_string())
                    } else {
                        None
                    }
                });
            }
            _ => {}
        }
    }
    link
}
