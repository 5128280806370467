//! Checks which clients a service's published ports answer.

use ipnet::IpNet;

use super::document::{Published, Service};
use super::validate::Problems;

/// Adds what is wrong with `allow` and `deny` of the service at `field`.
pub(super) fn check(service: &Service, field: &str, problems: &mut Problems) {
    let lists = [("allow", &service.allow), ("deny", &service.deny)];
    for (name, prefixes) in lists {
        for (item, prefix) in prefixes.iter().enumerate() {
            let field = format!("{field}.{name}[{item}]");
            if prefix.addr() != prefix.network() {
                let message = format!("{prefix} has bits beyond its prefix");
                problems.add(&field, message, format!("write {}", prefix.trunc()));
            }
            if prefixes[..item].contains(prefix) {
                problems.add(&field, format!("{prefix} is listed twice"), "remove one of them");
            }
        }
    }
    let both = |prefix: &&IpNet| service.allow.contains(prefix);
    for prefix in service.deny.iter().filter(both) {
        let message = format!("{prefix} is also in `allow`");
        problems.add(format!("{field}.deny"), message, "remove it from one of the lists");
    }
    let published = service.ports.iter().any(|port| port.published != Published::No);
    for (name, prefixes) in lists {
        if !prefixes.is_empty() && !published {
            let message = format!(
                "service `{}` publishes no port, and only published ports choose clients",
                service.name
            );
            problems.add(
                format!("{field}.{name}"),
                message,
                format!("publish a port, or remove `{name}`"),
            );
        }
    }
}
