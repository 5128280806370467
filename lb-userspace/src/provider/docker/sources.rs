//! Which clients the published ports of a Swarm's service answer, from its labels.
//!
//! Swarm has no such setting, so a service says it with two labels, each a list of prefixes or addresses:
//! `docker service update --label-add lb.allow=10.0.0.0/8,192.0.2.7 web`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::api;
use super::translate::Refused;
use crate::model::snapshot::Sources;

/// Label with the prefixes that are answered.
const ALLOW: &str = "lb.allow";
/// Label with those that are not.
const DENY: &str = "lb.deny";

/// What the labels say. A label that cannot be read closes the ports: it was meant to.
pub(super) fn sources(service: &api::Service, refused: &mut Refused) -> Sources {
    let mut read = |label: &str| match service.spec.labels.get(label) {
        None => Some(Vec::new()),
        Some(text) => match prefixes(text) {
            Ok(prefixes) => Some(prefixes),
            Err(wrong) => {
                let object = format!("published ports of service {}", service.spec.name);
                let reason = format!(
                    "label {label}: {wrong:?} is neither a prefix nor an address; no client is answered until it reads like \
                     10.0.0.0/8,192.0.2.7"
                );
                refused.add(object, reason);
                None
            }
        },
    };
    match (read(ALLOW), read(DENY)) {
        (Some(allow), Some(deny)) => Sources { allow, deny },
        _ => Sources {
            allow: Vec::new(),
            deny: vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        },
    }
}

/// A list as it is written in a label; the text of the first entry that is none, if there is one. An empty list is one too.
fn prefixes(text: &str) -> Result<Vec<IpNet>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let prefix = |entry: &str| {
        let prefix = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        prefix.map(|prefix| prefix.trunc()).map_err(|_| entry.to_owned())
    };
    let mut prefixes = entries.map(prefix).collect::<Result<Vec<IpNet>, _>>()?;
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> (Sources, usize) {
        let mut service = api::Service::default();
        service.spec.name = "web".into();
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        service.spec.labels = labels.collect();
        let mut refused = Refused::default();
        let sources = sources(&service, &mut refused);
        (sources, refused.0.len())
    }

    #[test]
    fn labels_name_prefixes_and_addresses() {
        let (sources, refused) = read(&[
            (ALLOW, "10.1.2.3/8, 192.0.2.7,fd00::/8,"),
            (DENY, "10.9.0.0/16"),
            ("other", "?"),
        ]);
        let text = |prefixes: &[IpNet]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&sources.allow), ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
        assert_eq!((text(&sources.deny), refused), (vec!["10.9.0.0/16".to_owned()], 0));
        assert_eq!(read(&[]), (Sources::default(), 0));
    }

    #[test]
    fn a_label_that_cannot_be_read_closes_the_ports() {
        let (sources, refused) = read(&[(ALLOW, "10.0.0.0/8,everyone")]);
        assert_eq!((sources.allow.len(), sources.deny.len(), refused), (0, 2, 1));
    }
}
