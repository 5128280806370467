//! What an agent's configuration holds.

use toml::{Table, toml};

/// The usual configuration, and what a test adds to it.
pub(super) fn configuration(more: &Table) -> Table {
    let mut all = toml! {
        [provider]
        kind = "docker"

        [stream]
        secret_file = "/run/lb/secret"

        [log]
        level = "info,lb::sync=debug"
    };
    for (section, settings) in more {
        match (
            all.get_mut(section).and_then(toml::Value::as_table_mut),
            settings.as_table(),
        ) {
            (Some(known), Some(settings)) => known.extend(settings.clone()),
            _ => drop(all.insert(section.clone(), settings.clone())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_adds_goes_beside_the_usual() {
        let more = toml! {
            [stream]
            connections = 3

            [dns]
            enabled = true
        };
        let all = configuration(&more);
        assert_eq!(all["stream"]["connections"].as_integer(), Some(3));
        assert_eq!(all["stream"]["secret_file"].as_str(), Some("/run/lb/secret"));
        assert_eq!(all["dns"]["enabled"].as_bool(), Some(true));
        assert_eq!(all["provider"]["kind"].as_str(), Some("docker"));
    }
}
