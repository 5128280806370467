//! Which names can be answered in DNS.

/// What is wrong with a name of one label (`dotted`: of several, joined by dots), if anything.
///
/// Letters, digits, `-` and `_`, as Docker allows for services and tasks; a label has at most 63 characters and
/// begins and ends with a letter, a digit or `_`.
pub(super) fn fault(name: &str, dotted: bool) -> Option<String> {
    if name.is_empty() {
        return Some("must not be empty".into());
    }
    if name.len() > 253 {
        return Some(format!("has {} characters; a DNS name has at most 253", name.len()));
    }
    if !dotted && name.contains('.') {
        return Some(format!(
            "`{name}` must not contain a dot: `SERVICE.NETWORK` would not be clear"
        ));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Some(format!("`{name}` has an empty part between dots"));
        }
        if label.len() > 63 {
            return Some(format!(
                "`{label}` has {} characters; a part of a DNS name has at most 63",
                label.len()
            ));
        }
        if let Some(bad) = label
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
        {
            return Some(format!("`{name}` contains {bad:?}; use letters, digits, `-` and `_`"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Some(format!("`{name}` has a part that begins or ends with `-`"));
        }
    }
    None
}

/// The form under which names are compared: DNS does not tell cases apart.
pub(super) fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn docker_names_are_good() {
        for name in ["web", "shop_web", "1", "a-b", "_dmarc", &"x".repeat(63)] {
            assert_eq!(fault(name, false), None);
        }
        assert_eq!(fault("shop_web.1.k2h7x", true), None);
    }

    #[test]
    fn others_are_not() {
        for name in ["", "a b", "-a", "a-", "ä", "a.b", &"x".repeat(64)] {
            assert!(fault(name, false).is_some(), "{name}");
        }
        for name in [".", "a.", ".a", "a..b", &"x.".repeat(127)] {
            assert!(fault(name, true).is_some(), "{name}");
        }
    }
}
