//! The cluster document, down to the tables of every node.

use lb_userspace::dns::Zone;
use lb_userspace::model::desired::{Desired, Interfaces};
use lb_userspace::model::snapshot::Snapshot;
use lb_userspace::plan::{Actual, MemoryTables, apply, diff};
use lb_userspace::provider::file::parse;

/// Name of the document in messages.
const NAME: &str = "cluster.toml";
const TUNNEL_PORT: u16 = 4790;

const SEEDS: [&str; 3] = [
    include_str!("../../../deploy/examples/cluster.toml"),
    "[[node]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n",
    "",
];

/// # Panics
/// If a refusal does not name the document, or an accepted one leads to tables that are not as desired.
pub fn run(bytes: &[u8]) {
    match parse(NAME, bytes, TUNNEL_PORT) {
        Err(error) => assert!(error.to_string().starts_with(NAME), "{error}"),
        Ok(snapshot) => settles(&snapshot),
    }
}

/// Whatever a snapshot says, every node makes something of it, and after one plan nothing is left to do.
pub(crate) fn settles(snapshot: &Snapshot) {
    let _ = Zone::compile(snapshot);
    for node in &snapshot.nodes {
        let compile = || Desired::compile(snapshot, &node.name, &Interfaces::new());
        let desired = compile().unwrap_or_else(|error| panic!("a node of the document: {error}"));
        assert_eq!(desired, compile().unwrap_or_default(), "compiled twice");
        let mut tables = MemoryTables::default();
        let read = |tables: &MemoryTables| Actual::read(tables).unwrap_or_else(|error| panic!("{error}"));
        let plan = diff(&desired, &read(&tables));
        if !plan.problems.is_empty() {
            continue;
        }
        let report = apply(&plan, &mut tables);
        assert!(report.is_complete(), "{report:?}");
        let rest = diff(&desired, &read(&tables));
        assert!(rest.is_empty(), "not settled:\n{rest:?}");
    }
}

/// Documents.
pub fn seeds() -> Vec<Vec<u8>> {
    SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect()
}
