//! Whatever the file holds, reading it never panics, and what it accepts keeps its promises.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{EXAMPLE, TUNNEL_PORT, parse};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Err(error) = parse("cluster.toml", &bytes, TUNNEL_PORT) {
            prop_assert!(error.to_string().starts_with("cluster.toml"), "{}", error);
        }
    }

    #[test]
    fn any_text_of_toml_characters(text in r#"[\[\]{}=",.#a-z0-9\n\r\t ]{0,200}"#) {
        let _ = parse("cluster.toml", text.as_bytes(), TUNNEL_PORT).map_err(|error| error.to_string());
    }

    #[test]
    fn mutations_of_the_example(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, ".{0,6}"), 1..4),
    ) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, with) in edits {
            let floor = |mut at: usize| { while !text.is_char_boundary(at) { at -= 1 } at };
            let start = floor(at.index(text.len()));
            let end = floor((start + length).min(text.len()));
            text.replace_range(start..end.max(start), &with);
        }
        match parse("cluster.toml", text.as_bytes(), TUNNEL_PORT) {
            Err(error) => prop_assert!(error.to_string().starts_with("cluster.toml"), "{}", error),
            Ok(snapshot) => {
                let mut published = BTreeSet::new();
                for service in &snapshot.services {
                    prop_assert!(snapshot.networks.iter().any(|network| network.name == service.network));
                    for port in &service.ports {
                        if let Some(number) = port.published {
                            prop_assert!(published.insert((number, port.protocol)));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_prefix_of_the_example_is_refused_or_a_smaller_cluster(cut in any::<prop::sample::Index>()) {
        let cut = cut.index(EXAMPLE.len());
        if let Ok(snapshot) = parse("cluster.toml", &EXAMPLE.as_bytes()[..cut], TUNNEL_PORT) {
            prop_assert!(snapshot.services.len() <= 3);
        }
    }
}
