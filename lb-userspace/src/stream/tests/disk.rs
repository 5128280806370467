//! The state on disk: what is written is read, and nothing else is.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn kept(generation: u64) -> Kept {
    let snapshot = Snapshot {
        generation,
        nodes: vec![crate::model::snapshot::Node {
            name: "node-1".into(),
            id: None,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }],
        ..Snapshot::default()
    };
    (Arc::new(snapshot), Some(7))
}

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    assert_eq!(load::<Kept>(&path), Ok(None));
    for generation in [1, 2] {
        store(&path, &kept(generation)).unwrap();
        assert_eq!(load(&path), Ok(Some(kept(generation))));
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
}

#[test]
fn any_damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    store(&path, &kept(1)).unwrap();
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(load::<Kept>(&path).is_err(), "cut to {length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        fs::write(&path, &bad).unwrap();
        assert!(load::<Kept>(&path).is_err(), "byte {at}");
    }
}

#[test]
fn a_content_that_is_not_what_it_should_be_is_refused_with_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    let good = kept(1).content().unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, [head::<Kept>(content).as_bytes(), content].concat()).unwrap();
        load::<Kept>(&path).unwrap_err()
    };
    for length in 0..good.len() {
        let error = refused(&good[..length]);
        assert!(error.contains("line 1 column"), "cut to {length} bytes: {error}");
    }
    for (content, says) in [
        (r#"{"index": 7}"#, "missing field `snapshot`"),
        (r#"{"index": -7, "snapshot": null}"#, "invalid value: integer `-7`"),
        ("[[[[[[[[", "line 1 column"),
        (&"[".repeat(100_000), "line 1 column"),
        ("\0\u{1}\u{7f}", "line 1 column"),
    ] {
        let error = refused(content.as_bytes());
        assert!(error.contains(says), "{error}");
    }
    let error = refused(&[&good[..], b"{}"].concat());
    assert!(error.contains("trailing characters"), "{error}");
}

#[test]
fn a_rest_of_an_earlier_attempt_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    fs::write(directory.path().join("snapshot.new"), "half").unwrap();
    store(&path, &kept(1)).unwrap();
    assert_eq!(load(&path), Ok(Some(kept(1))));
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    assert!(store(&directory.path().join("no/snapshot"), &kept(1)).is_err());
    assert!(store(directory.path(), &kept(1)).is_err());
    assert_eq!(load::<Kept>(directory.path()), Err("not a regular file".into()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_last_state_is_written_at_the_end_and_a_failure_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later/snapshot");
    let (sender, newest) = watch::channel(None);
    let (problem, mut said) = watch::channel(None);
    let stop = CancellationToken::new();
    let task = tokio::spawn(keep(path.clone(), newest, problem, stop.clone()));
    sender.send_replace(Some(kept(1)));
    said.wait_for(Option::is_some).await.unwrap();
    assert!(said.borrow().as_ref().unwrap().contains("No such file"));
    fs::create_dir(path.parent().unwrap()).unwrap();
    sender.send_replace(Some(kept(2)));
    drop(sender);
    stop.cancel();
    task.await.unwrap();
    assert_eq!(load(&path), Ok(Some(kept(2))));
    assert_eq!(*said.borrow(), None);
}

#[test]
fn what_would_not_be_read_again_is_not_written() {
    #[derive(Clone)]
    struct Long(usize);
    impl Keep for Long {
        const MAGIC: &'static str = "long 1 ";
        const WHAT: &'static str = "something long";
        const LENGTH_MAX: usize = 8;
        type Stored = String;
        fn content(&self) -> io::Result<Vec<u8>> {
            Ok(vec![b'"'; self.0])
        }
        fn restored(stored: String) -> Self {
            Self(stored.len())
        }
        fn same(&self, written: &Self) -> bool {
            self.0 == written.0
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long");
    store(&path, &Long(8)).unwrap();
    store(&path, &Long(9)).unwrap_err();
    assert!(fs::read_to_string(&path).unwrap().ends_with("\n\"\"\"\"\"\"\"\""));
}
