//! Which programs belong on which interfaces, and in which mode. Pure.

use crate::config::XdpMode;
use crate::net::Link;
use crate::net::netns::Namespace;

use super::{Hook, Wanted};

/// A node interface and the XDP hook chosen for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInterface {
    /// The interface.
    pub link: Link,
    /// XDP or not.
    pub xdp: XdpChoice,
}

/// The host side of a workload interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadInterface {
    /// Network namespace of the interface.
    pub namespace: Namespace,
    /// The interface.
    pub link: Link,
    /// Name of the workloads' network.
    pub network: String,
}

/// Interfaces that get programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Towards clients and other nodes.
    pub nodes: Vec<NodeInterface>,
    /// Towards workloads.
    pub workloads: Vec<WorkloadInterface>,
    /// The loopback interface, over which the node speaks to itself.
    pub host: Option<Link>,
}

/// How XDP is used on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpChoice {
    /// Where; `None`: tc alone.
    pub hook: Option<Hook>,
    /// Why.
    pub why: String,
    /// tc alone is as good if the hook refuses.
    pub optional: bool,
}

/// Chooses how XDP is used on `link`.
///
/// `auto` never trusts a driver blindly. On veth, what XDP sends is lost without a word unless the far end
/// has a program or GRO, which this end cannot see; other virtual interfaces gain nothing over tc.
pub fn choose_xdp(mode: XdpMode, link: &Link) -> XdpChoice {
    let tc_alone = |why: String| XdpChoice {
        hook: None,
        why,
        optional: false,
    };
    match mode {
        XdpMode::Off => tc_alone("xdp = \"off\"".into()),
        XdpMode::Native => XdpChoice {
            hook: Some(Hook::XdpNative),
            why: "xdp = \"native\"".into(),
            optional: false,
        },
        XdpMode::Generic => XdpChoice {
            hook: Some(Hook::XdpGeneric),
            why: "xdp = \"generic\"".into(),
            optional: false,
        },
        XdpMode::Auto if link.loopback => tc_alone("auto: loopback, tc alone".into()),
        XdpMode::Auto => match link.kind.as_deref() {
            Some("veth") => tc_alone("auto: veth, whose far end may lose what XDP sends; tc alone".into()),
            Some(kind) => tc_alone(format!("auto: {kind} is a virtual interface; tc alone")),
            None => XdpChoice {
                hook: Some(Hook::XdpNative),
                why: "auto: the driver of a hardware interface".into(),
                optional: true,
            },
        },
    }
}

impl Interfaces {
    /// Every program that should be attached, node interfaces first.
    pub fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut want = |namespace: &Namespace, link: &Link, hook, why: &str, optional| {
            wanted.push(Wanted {
                namespace: namespace.clone(),
                ifindex: link.ifindex,
                interface: link.name.clone(),
                hook,
                why: why.into(),
                optional,
            });
        };
        for node in &self.nodes {
            // tc first: what XDP passes up must not meet an interface without a program.
            let why = if node.xdp.hook.is_some() {
                "node interface"
            } else {
                &node.xdp.why
            };
            want(&Namespace::NODE, &node.link, Hook::TcNode, why, false);
            if let Some(hook) = node.xdp.hook {
                want(&Namespace::NODE, &node.link, hook, &node.xdp.why, node.xdp.optional);
            }
        }
        for workload in &self.workloads {
            let why = format!("workloads of network {}", workload.network);
            // Back before forth: a reply must never meet an interface that cannot translate it.
            want(&workload.namespace, &workload.link, Hook::ToWorkload, &why, false);
            want(&workload.namespace, &workload.link, Hook::FromWorkload, &why, false);
        }
        if let Some(host) = &self.host {
            want(
                &Namespace::NODE,
                host,
                Hook::FromHost,
                "the node's own processes",
                false,
            );
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>) -> Link {
        Link {
            ifindex: 4,
            name: "if4".into(),
            kind: kind.map(String::from),
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            loopback: false,
            master: None,
            peer_elsewhere: false,
            peer: None,
        }
    }

    #[test]
    fn auto_uses_xdp_on_hardware_only() {
        assert_eq!(choose_xdp(XdpMode::Auto, &link(Some("veth"))).hook, None);
        assert_eq!(choose_xdp(XdpMode::Auto, &link(Some("vlan"))).hook, None);
        let choice = choose_xdp(XdpMode::Auto, &link(None));
        assert_eq!((choice.hook, choice.optional), (Some(Hook::XdpNative), true));
    }

    #[test]
    fn what_is_configured_is_demanded() {
        let choice = choose_xdp(XdpMode::Native, &link(Some("veth")));
        assert_eq!((choice.hook, choice.optional), (Some(Hook::XdpNative), false));
        assert_eq!(choose_xdp(XdpMode::Generic, &link(None)).hook, Some(Hook::XdpGeneric));
        assert_eq!(choose_xdp(XdpMode::Off, &link(None)).hook, None);
    }

    #[test]
    fn tc_is_there_before_xdp_and_replies_before_requests() {
        let interfaces = Interfaces {
            nodes: vec![NodeInterface {
                link: link(None),
                xdp: choose_xdp(XdpMode::Auto, &link(None)),
            }],
            workloads: vec![WorkloadInterface {
                namespace: Namespace::NODE,
                link: link(Some("veth")),
                network: "app".into(),
            }],
            host: Some(Link {
                loopback: true,
                ..link(None)
            }),
        };
        let hooks: Vec<Hook> = interfaces.wanted().into_iter().map(|w| w.hook).collect();
        assert_eq!(
            hooks,
            [
                Hook::TcNode,
                Hook::XdpNative,
                Hook::ToWorkload,
                Hook::FromWorkload,
                Hook::FromHost
            ]
        );
    }
}
