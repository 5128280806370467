//! The cluster document, right and wrong, and the watch over it.

use super::parse;
use crate::model::snapshot::Snapshot;

mod documents;
mod fuzz;
mod pieces;
mod watch;

const EXAMPLE: &str = include_str!("../../../../../deploy/examples/cluster.toml");
const TUNNEL_PORT: u16 = 4790;

fn snapshot_of(text: &str) -> Snapshot {
    match parse("cluster.toml", text.as_bytes(), TUNNEL_PORT) {
        Ok(snapshot) => snapshot,
        Err(error) => panic!("{error}"),
    }
}

fn error_of(text: &str) -> String {
    parse("cluster.toml", text.as_bytes(), TUNNEL_PORT)
        .expect_err("the document is wrong")
        .to_string()
}
