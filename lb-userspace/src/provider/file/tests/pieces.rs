//! A document followed change by change says what it says when it is read as a whole.

use std::path::Path;

use proptest::prelude::*;

use super::{EXAMPLE, TUNNEL_PORT, parse};
use crate::model::snapshot::Snapshot;
use crate::provider::file::pieces::{Edit, Pieces};
use crate::provider::file::read;

fn whole(text: &[u8]) -> Option<Snapshot> {
    parse("cluster.toml", text, TUNNEL_PORT).ok()
}

fn apply(text: &mut Vec<u8>, edit: &Edit) {
    text.splice(edit.at..edit.at + edit.old, edit.new.iter().copied());
}

/// Several services, with what they can clash about: names, addresses, ports, automatic ports.
fn document(services: &[(u8, u8, u8)]) -> String {
    let mut text = String::from("# head\n[[node]]\nname = \"n1\"\naddresses = [\"10.80.0.1\"]\n");
    text.push_str("[[node]]\nname = \"n2\"\naddresses = [\"10.80.0.2\"]\n[[network]]\nname = \"shop\"\n");
    for (name, host, port) in services {
        let published = match port % 4 {
            0 => "true".to_owned(),
            1 => "false".to_owned(),
            _ => format!("{}", 8000 + u16::from(*port)),
        };
        text.push_str(&format!(
            "[[service]]\nname = \"s{name}\"\nnetwork = \"shop\"\nvip = [\"10.1.255.{name}\"]\n\
             ports = [{{ port = 80, published = {published} }}]\n[[service.backend]]\nname = \"b\"\nnode = \"n{}\"\n\
             addresses = [\"10.1.{}.{host}\"]\n",
            host % 2 + 1,
            if host % 5 == 0 { 255 } else { 1 },
        ));
    }
    text
}

fn difference(old: &[u8], new: &[u8]) -> Option<Edit> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), new).unwrap();
    read::edit(file.path(), old).unwrap()
}

#[test]
fn a_change_leaves_the_other_services_where_they_are() {
    let text = document(&[(1, 1, 9), (2, 2, 10), (3, 3, 11)]).into_bytes();
    let (mut pieces, before) = Pieces::read(&text, TUNNEL_PORT).expect("it can be cut");
    let new = String::from_utf8(text.clone())
        .unwrap()
        .replace("10.1.1.2", "10.1.1.22")
        .into_bytes();
    let edit = difference(&text, &new).unwrap();
    assert_eq!((edit.old, edit.new.len()), (0, 1));
    let after = pieces.change(&text, &edit).expect("it can be followed");
    assert_eq!(Some(&after), whole(&new).as_ref());
    let changes = after.services.changes(&before.services);
    assert_eq!((changes.gone.len(), changes.come.len()), (1, 1));
    assert_eq!(difference(&new, &new), None);
}

#[test]
fn a_file_that_is_none_is_no_document() {
    assert!(read::edit(Path::new("/dev/zero"), b"x").is_err());
    assert!(read::edit(Path::new("/nowhere"), b"x").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is accepted in pieces is what is accepted as a whole, and means the same; after what is not, the pieces are
    /// still those of the document before.
    #[test]
    fn any_edit_of_a_document(
        services in proptest::collection::vec((1u8..12, 1u8..12, 0u8..12), 0..6),
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0usize..40, prop_oneof![
                Just(String::new()), Just("\n".to_owned()), Just("[[service]]\n".to_owned()), Just("# x\n".to_owned()),
                Just("[[service.backend]]\n".to_owned()), Just("\"\"\"".to_owned()), "[a-z0-9.\"\\[\\]=]{0,4}",
            ]), 1..8),
    ) {
        let mut text = document(&services).into_bytes();
        let read = Pieces::read(&text, TUNNEL_PORT);
        prop_assert_eq!(read.as_ref().map(|(_, snapshot)| snapshot.clone()), whole(&text));
        let Some((mut pieces, _)) = read else { return Ok(()) };
        for (at, old, new) in edits {
            let at = at.index(text.len());
            let edit = Edit { at, old: old.min(text.len() - at), new: new.into_bytes() };
            let mut next = text.clone();
            apply(&mut next, &edit);
            let followed = pieces.change(&text, &edit);
            let whole = whole(&next);
            prop_assert!(followed.is_none() || followed == whole, "{}", String::from_utf8_lossy(&next));
            if followed.is_some() {
                text = next;
            }
        }
        let nothing = Edit { at: text.len(), old: 0, new: Vec::new() };
        let followed = pieces.change(&text, &nothing);
        prop_assert!(followed.is_none() || followed == whole(&text));
    }

    /// The same through services that come, go and change.
    #[test]
    fn any_sequence_of_documents(
        steps in proptest::collection::vec(proptest::collection::vec((1u8..6, 1u8..6, 0u8..12), 0..5), 1..8),
    ) {
        let mut text = document(&[]).into_bytes();
        let (mut pieces, _) = Pieces::read(&text, TUNNEL_PORT).expect("it can be cut");
        for step in steps {
            let next = document(&step).into_bytes();
            let Some(edit) = difference(&text, &next) else { continue };
            let followed = pieces.change(&text, &edit);
            let whole = whole(&next);
            prop_assert!(followed.is_none() || followed == whole);
            if followed.is_some() {
                text = next;
            } else if let Some((read, _)) = Pieces::read(&next, TUNNEL_PORT) {
                (pieces, text) = (read, next);
            }
        }
    }
}

#[test]
fn the_example_can_be_followed() {
    let text = EXAMPLE.as_bytes();
    let (_, snapshot) = Pieces::read(text, TUNNEL_PORT).expect("it is written as documents are");
    assert_eq!(Some(snapshot), whole(text));
}
