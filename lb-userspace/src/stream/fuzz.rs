//! What holds whatever bytes a peer sends: for the fuzz targets of `tests/fuzz`, which see no private parts.

use std::fmt::Debug;

use futures::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, Frame, FrameError, Kind};
use super::message::{self, Head, Hello, REPORT_MAX, Report, SMALL_MAX, SNAPSHOT_MAX};
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
