//! How old what is remembered may be, and the file that holds it.

use std::fs;

use super::*;

const RETAIN: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn report(node: &str) -> Report {
    Report {
        node: node.into(),
        name: "host".into(),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        tasks: Some(["t1".to_owned()].into()),
        died: ["t2".to_owned()].into(),
    }
}

/// `connected` is, and `away` has been away for a minute.
fn written(wall: SystemTime) -> Remembered {
    let now = Instant::now();
    let reports = [(report("away"), Some(now - MINUTE)), (report("connected"), None)];
    Remembered::new(reports.into_iter(), wall, now)
}

fn believed(kept: &Remembered, wall: SystemTime) -> Vec<(String, Duration)> {
    let now = Instant::now();
    let believed = kept.believed(RETAIN, wall, now).into_iter();
    believed.map(|(report, ended)| (report.node, now - ended)).collect()
}

#[test]
fn nodes_are_away_since_they_were_last_seen() {
    let then = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let kept = written(then);
    assert_eq!(
        believed(&kept, then + MINUTE),
        [("away".into(), 2 * MINUTE), ("connected".into(), MINUTE)]
    );
    let nearly = then + RETAIN - MINUTE;
    assert_eq!(believed(&kept, nearly), [("connected".into(), RETAIN - MINUTE)]);
    assert_eq!(believed(&kept, then + RETAIN), []);
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_older() {
    let kept = written(UNIX_EPOCH + Duration::from_secs(2_000_000_000));
    let zero = Duration::ZERO;
    assert_eq!(
        believed(&kept, UNIX_EPOCH),
        [("away".into(), zero), ("connected".into(), zero)]
    );
    // And one that stood before 1970 when it was written.
    let kept = written(UNIX_EPOCH - MINUTE);
    assert_eq!(believed(&kept, UNIX_EPOCH).len(), 2);
}

#[test]
fn what_is_written_is_read_and_what_is_damaged_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = reports_file(&directory.path().join("snapshot"));
    assert_eq!(path, directory.path().join("snapshot.reports"));
    assert_eq!(remembered(&path, RETAIN), BTreeMap::new());
    let kept = written(SystemTime::now());
    disk::store(&path, &kept).unwrap();
    assert_eq!(disk::load(&path), Ok(Some(kept)));
    let all = remembered(&path, RETAIN);
    let expected = Reported {
        report: report("connected"),
        live: false,
    };
    assert_eq!((all.len(), &all["connected"]), (2, &expected));

    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        fs::write(&path, &bad).unwrap();
        assert!(disk::load::<Remembered>(&path).is_err(), "byte {at}");
        assert_eq!(remembered(&path, RETAIN), BTreeMap::new());
    }
    // The other file that lies there.
    assert!(disk::load::<disk::Kept>(&path).is_err());
}
