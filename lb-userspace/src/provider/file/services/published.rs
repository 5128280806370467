//! Where ports are published: as the document says, or on automatic ports.

use std::collections::{BTreeSet, HashMap};

use super::PublishedPorts;
use crate::model::snapshot::Protocol;
use crate::provider::file::document::{Published, Service};
use crate::provider::file::ports::{self, Wanted};
use crate::provider::file::validate::Problems;

pub(super) fn published_ports(services: &[Service], tunnel_port: u16, problems: &mut Problems) -> PublishedPorts {
    let mut explicit: HashMap<(u16, Protocol), &str> = HashMap::new();
    let mut out = PublishedPorts::new();
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for (item, port) in service.ports.iter().enumerate() {
            let field = format!("service[{index}].ports[{item}].published");
            match port.published {
                Published::No | Published::On(0) => {}
                Published::Auto => {
                    let (network, name) = (service.network.as_str(), service.name.as_str());
                    wanted.push(Wanted {
                        network,
                        service: name,
                        port: port.port,
                        protocol: port.protocol,
                    });
                    places.push((index, item));
                }
                Published::On(number) => {
                    if (number, port.protocol) == (tunnel_port, Protocol::Udp) {
                        let message = format!("{number}/udp is the port of the tunnel between nodes");
                        problems.add(
                            &field,
                            message,
                            "publish another port, or change datapath.tunnel_port on every node",
                        );
                    }
                    if let Some(first) = explicit.insert((number, port.protocol), &service.name) {
                        let message = format!("{number}/{} is already published by service `{first}`", port.protocol);
                        problems.add(
                            field,
                            message,
                            "publish another port, or write true for an automatic one",
                        );
                    }
                    out.insert((index, item), number);
                }
            }
        }
    }
    let mut reserved: BTreeSet<_> = explicit.into_keys().collect();
    reserved.insert((tunnel_port, Protocol::Udp));
    for ((index, item), port) in places.into_iter().zip(ports::assign(&wanted, &reserved)) {
        match port {
            Some(port) => drop(out.insert((index, item), port)),
            None => problems.add(
                format!("service[{index}].ports[{item}].published"),
                format!(
                    "no automatic port is left in {} to {}",
                    ports::AUTOMATIC.start(),
                    ports::AUTOMATIC.end()
                ),
                "publish a port outside of this range",
            ),
        }
    }
    out
}
