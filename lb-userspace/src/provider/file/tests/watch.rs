//! Changes of the file arrive, soon, whole, and however they are made.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;

use super::TUNNEL_PORT;
use crate::provider::ProviderState;
use crate::provider::file::start;

/// Well below the five seconds after which the file is read without any event, so that events are what is tested.
const SOON: Duration = Duration::from_secs(3);

/// A document whose only node has this name.
fn document(name: &str) -> String {
    format!("[[node]]\nname = \"{name}\"\naddresses = [\"10.0.0.1\"]\n")
}

fn name_of(state: &ProviderState) -> Option<&str> {
    state
        .snapshot
        .as_deref()
        .map(|snapshot| snapshot.nodes[0].name.as_str())
}

async fn until(
    receiver: &mut Receiver<ProviderState>,
    what: &str,
    good: impl FnMut(&ProviderState) -> bool,
) -> ProviderState {
    let found = tokio::time::timeout(SOON, receiver.wait_for(good))
        .await
        .map(|state| state.expect("it runs").clone());
    found.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}; state: {:?}", receiver.borrow()))
}

async fn until_name(receiver: &mut Receiver<ProviderState>, name: &str) -> ProviderState {
    until(receiver, name, |state| {
        state.error.is_none() && name_of(state) == Some(name)
    })
    .await
}

async fn until_error(receiver: &mut Receiver<ProviderState>, part: &str) -> ProviderState {
    until(receiver, part, |state| {
        state
            .error
            .as_ref()
            .is_some_and(|error| error.to_string().contains(part))
    })
    .await
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn atomic_rename() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    let first = until_name(&mut receiver, "a").await.snapshot.unwrap().generation;
    for name in ["b", "c", "d"] {
        replace(&path, &document(name));
        until_name(&mut receiver, name).await;
    }
    assert_eq!(receiver.borrow().snapshot.as_ref().unwrap().generation, first + 3);
}

#[tokio::test]
async fn applied_within_100_ms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    let mut took = Vec::new();
    for round in 0..11 {
        let name = format!("n{round}");
        let began = Instant::now();
        match round % 2 {
            0 => replace(&path, &document(&name)),
            _ => fs::write(&path, document(&name)).unwrap(),
        }
        until_name(&mut receiver, &name).await;
        took.push(began.elapsed());
    }
    took.sort();
    println!("from write to snapshot: median {:?}, slowest {:?}", took[5], took[10]);
    // The median, so that a busy machine does not fail the test.
    assert!(took[5] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn rewriting_in_place_publishes_nothing_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;

    // Every part on its own is a valid document.
    let mut file = fs::File::create(&path).unwrap();
    for i in 0..10 {
        let part = document(&format!("b{i}")).replace("10.0.0.1", &format!("10.0.0.{}", i + 1));
        file.write_all(part.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(
            name_of(&receiver.borrow()),
            Some("a"),
            "published while it is being written"
        );
    }
    drop(file);
    let state = until_name(&mut receiver, "b0").await;
    assert_eq!(state.snapshot.unwrap().nodes.len(), 10);
}

#[tokio::test]
async fn a_writer_that_never_closes_does_not_hold_the_document_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(document("b").as_bytes()).unwrap();
    until_name(&mut receiver, "b").await;
}

#[tokio::test]
async fn truncation_and_faults_change_nothing_but_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;

    fs::write(&path, "").unwrap();
    let state = until_error(&mut receiver, "the document is empty").await;
    assert_eq!(name_of(&state), Some("a"));

    fs::write(&path, document("a").replace("name", "nmae")).unwrap();
    let state = until_error(&mut receiver, "cluster.toml:2: node[0].nmae: unknown field `nmae`").await;
    assert_eq!(name_of(&state), Some("a"));
    let generation = state.snapshot.unwrap().generation;

    // The old content again: no new generation, and the error is gone.
    fs::write(&path, document("a")).unwrap();
    let state = until_name(&mut receiver, "a").await;
    assert_eq!(state.snapshot.unwrap().generation, generation);
}

#[tokio::test]
async fn deleted_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    fs::remove_file(&path).unwrap();
    let state = until_error(&mut receiver, "cannot read").await;
    assert_eq!(name_of(&state), Some("a"));
    fs::write(&path, document("b")).unwrap();
    until_name(&mut receiver, "b").await;
}

#[tokio::test]
async fn a_directory_that_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb/cluster.toml");
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    let state = until_error(&mut receiver, "cannot read").await;
    assert!(state.snapshot.is_none());
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, document("a")).unwrap();
    until_name(&mut receiver, "a").await;
}

#[tokio::test]
async fn symbolic_links_swapped_as_kubernetes_does() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let path = root.join("cluster.toml");
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("cluster.toml"), document(name)).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/cluster.toml", &path).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    until_name(&mut receiver, "b").await;
    fs::remove_dir_all(root.join("..1")).unwrap();
    // The link's target has a watch of its own by now.
    fs::write(root.join("..2/cluster.toml"), document("c")).unwrap();
    until_name(&mut receiver, "c").await;
}

#[tokio::test]
async fn a_link_to_another_directory() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, target) = (here.path().join("cluster.toml"), there.path().join("real.toml"));
    fs::write(&target, document("a")).unwrap();
    symlink(&target, &path).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    replace(&target, &document("b"));
    until_name(&mut receiver, "b").await;
}

#[tokio::test]
async fn what_is_no_file_is_an_error_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_error(&mut receiver, "not a regular file").await;
    replace(&path, &document("a"));
    until_name(&mut receiver, "a").await;
}

#[tokio::test]
async fn other_files_beside_it_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    fs::write(&path, document("a")).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    receiver.mark_unchanged();
    for i in 0..20 {
        fs::write(directory.path().join(format!("other{i}")), "x").unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!receiver.has_changed().unwrap());
}

#[tokio::test]
async fn a_file_that_is_cut_off_changes_nothing_until_it_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    let whole = document("a") + &document("b").replace("10.0.0.1", "10.0.0.2");
    fs::write(&path, &whole).unwrap();
    let mut receiver = start(&path, TUNNEL_PORT).unwrap();
    until_name(&mut receiver, "a").await;
    // A full disk, or a writer that was killed: what is there is valid.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(document("a").len() as u64).unwrap();
    drop(file);
    let state = until_error(&mut receiver, "was cut off here").await;
    assert_eq!(state.snapshot.unwrap().nodes.len(), 2);
    // Written to the end after all.
    fs::write(&path, &whole).unwrap();
    until_name(&mut receiver, "a").await;
    // The same, put there whole.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(document("a").len() as u64)
        .unwrap();
    until_error(&mut receiver, "was cut off here").await;
    replace(&path, &document("a"));
    until(&mut receiver, "one node", |state| {
        state.error.is_none()
            && state
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.nodes.len() == 1)
    })
    .await;
}
