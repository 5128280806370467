//! What holds whatever bytes a peer sends: for the fuzz targets of `tests/fuzz`, which see no private parts.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{self, Keep, Kept};
use super::frame::{self, Frame, FrameError, Kind};
use super::message::{self, Head, Hello, REPORT_MAX, Report, SMALL_MAX, SNAPSHOT_MAX};
use super::remember::Remembered;
use crate::model::snapshot::Snapshot;

/// Reads a connection frame by frame, with the limits of both ends; the snapshots that it carried.
///
/// # Panics
/// If a frame is longer than it may be, or a frame or message changes when it is written and read again.
pub fn frames(bytes: &[u8]) -> Vec<Snapshot> {
    for limit in [SMALL_MAX, REPORT_MAX] {
        read_all(bytes, limit, &mut |frame| _ = understand(frame));
    }
    let mut snapshots = Vec::new();
    read_all(bytes, SNAPSHOT_MAX, &mut |frame| snapshots.extend(understand(frame)));
    snapshots
}

fn read_all(bytes: &[u8], limit: usize, each: &mut dyn FnMut(&Frame)) {
    let mut rest = bytes;
    loop {
        let before = rest;
        // Bytes in memory never make a reader wait.
        match frame::read(&mut rest, limit).now_or_never().expect("no waiting") {
            Ok(frame) => {
                assert!(
                    frame.content.len() <= limit,
                    "{} bytes for {limit}",
                    frame.content.len()
                );
                let mut written = Vec::new();
                let wrote = frame::write(&mut written, frame.kind, &frame.content).now_or_never();
                wrote.expect("no waiting").expect("memory");
                assert_eq!(written, before[..before.len() - rest.len()], "a frame written again");
                each(&frame);
            }
            Err(FrameError::Closed) => return assert!(before.is_empty(), "an end where there is none"),
            Err(FrameError::Truncated | FrameError::TooLong { .. }) => return,
            Err(FrameError::Io(error)) => panic!("memory: {error}"),
        }
    }
}

/// What either end would make of a frame.
fn understand(frame: &Frame) -> Option<Snapshot> {
    match frame.kind {
        Kind::Hello => {
            if let Some(hello) = again::<Hello>(frame) {
                assert_eq!(
                    hello.check().is_ok(),
                    hello.protocol == message::PROTOCOL && !hello.node.is_empty()
                );
            }
        }
        Kind::Head => _ = again::<Head>(frame).map(|head| head.age()),
        Kind::Report => _ = again::<Report>(frame),
        Kind::Snapshot => return again(frame),
        Kind::Alive | Kind::Other(_) => {}
    }
    None
}

/// A message, if it is one, that says the same when it is passed on.
fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(frame: &Frame) -> Option<T> {
    let value: T = message::decode(&frame.content).ok()?;
    assert_eq!(
        message::decode(&message::encode(&value)).as_ref(),
        Ok(&value),
        "passed on"
    );
    Some(value)
}

/// Reads a file that an agent keeps, as it is and as the content of one whose checksum is right; the snapshots it held.
///
/// # Panics
/// If what is refused is not explained, or what is accepted changes when it is written and read again.
pub fn files(bytes: &[u8]) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    for kept in kept::<Kept>(bytes) {
        snapshots.push(std::sync::Arc::unwrap_or_clone(kept.0));
    }
    let (wall, now) = (SystemTime::now(), Instant::now());
    for remembered in kept::<Remembered>(bytes) {
        for retain in [Duration::ZERO, Duration::from_secs(60), Duration::MAX] {
            let believed = remembered.believed(retain, wall, now);
            assert!(believed.iter().all(|(_, ended)| *ended <= now), "away since the future");
        }
    }
    snapshots
}

/// What was made of `bytes`: the file itself, or its content.
fn kept<K: Keep + PartialEq + Debug>(bytes: &[u8]) -> Vec<K> {
    let whole = [disk::head::<K>(bytes).as_bytes(), bytes].concat();
    let read = |file: &[u8]| match disk::parse::<K>(file) {
        Ok(kept) => Some(kept),
        Err(error) => {
            assert!(!error.trim().is_empty(), "refused without a word");
            None
        }
    };
    assert!(disk::parse::<K>(&whole[..whole.len() - 1]).is_err(), "cut short");
    let accepted: Vec<K> = [bytes, &whole].into_iter().filter_map(read).collect();
    for kept in &accepted {
        let content = kept.content().expect("what was read can be written");
        let again = [disk::head::<K>(&content).as_bytes(), &content].concat();
        assert_eq!(disk::parse::<K>(&again).as_ref(), Ok(kept), "written again");
    }
    accepted
}

/// What agents keep: whole files, and contents alone, which damage leaves readable.
pub fn kept_files() -> Vec<Vec<u8>> {
    let snapshot: Snapshot = message::decode(SNAPSHOT.as_bytes()).expect("a snapshot");
    let cluster = (std::sync::Arc::new(snapshot), Some(7));
    let report = |node: &str| Report {
        node: node.into(),
        name: node.into(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
        ..Report::default()
    };
    let now = Instant::now();
    let reports = [(report("one"), None), (report("two"), Some(now))];
    let reports = Remembered::new(reports.into_iter(), SystemTime::now(), now);
    [file(&cluster), file(&reports)].concat()
}

fn file<K: Keep>(kept: &K) -> [Vec<u8>; 2] {
    let content = kept.content().expect("it can be written");
    [[disk::head::<K>(&content).as_bytes(), &content].concat(), content]
}

/// What a manager and a node say to each other.
pub fn connections() -> Vec<Vec<u8>> {
    let hello = (Kind::Hello, message::encode(&Hello::of("node-1", true)));
    let head = Head {
        epoch: 7,
        generation: 1,
        index: Some(3),
        age_ms: 20,
    };
    let report = Report {
        node: "node-1".into(),
        name: "one".into(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
        ..Report::default()
    };
    let alive = (Kind::Alive, Vec::new());
    let manager = [
        hello.clone(),
        (Kind::Head, message::encode(&head)),
        (Kind::Snapshot, SNAPSHOT.into()),
        alive.clone(),
        (Kind::Other(9), b"from a newer agent".into()),
    ];
    let node = [hello, (Kind::Report, message::encode(&report)), alive];
    [&manager[..], &node].map(connection).into()
}

fn connection(frames: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, content) in frames {
        let wrote = frame::write(&mut bytes, *kind, content).now_or_never();
        wrote.expect("no waiting").expect("memory");
    }
    bytes
}

const SNAPSHOT: &str = r#"{"generation": 1,
"nodes": [{"name": "a", "id": "x1", "addresses": ["192.0.2.1", "2001:db8::1"]}, {"name": "b", "addresses": ["192.0.2.2"]}],
"networks": [{"name": "shop", "id": 7, "subnets": ["10.1.0.0/24", "fd01::/64"], "encrypted": false, "overlay": true},
    {"name": "ingress", "id": 8, "subnets": ["10.0.0.0/24"], "encrypted": false, "overlay": true, "ingress": true}],
"services": [{"name": "web", "network": "shop", "mode": "vip", "vips": ["10.1.0.2", "fd01::2"], "aliases": ["www"],
    "ports": [{"protocol": "tcp", "port": 80, "target": 8080, "published": 8080}], "any_port": true,
    "tcp_timeout": {"secs": 3600, "nanos": 0}, "udp_timeout": null,
    "backends": [
        {"name": "web.1", "node": "a", "addresses": ["10.1.0.3", "fd01::3"], "port": null, "state": "ready", "weight": 2},
        {"name": "web.2", "node": "b", "addresses": ["10.1.0.4"], "port": 81, "state": "draining", "weight": 1,
            "aliases": ["0123456789ab"]}]}]}"#;
