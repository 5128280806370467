//! Ports that are looked at: those of frontends, and those of flows that outlive theirs.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::pressure::{answer, next, to, tuple};
use super::world::{Case, NODE_IF, NOW, Place, World};
use crate::abi::{FLOW_FLAG_OVERFLOW, Flow, Pressure};
use crate::tables::{Table, Tables as _};
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(marks).collect()
}

/// A flow to a backend here, and no frontend at all.
fn outlived(case: Case) -> World {
    let mut world = World::new().flow(case, tuple(case), Place::Here, None);
    world.tables.frontends.clear();
    world
}

/// The same in the overflow table, which a flow found no room beside a moment ago.
fn displaced(case: Case) -> World {
    let world = outlived(case);
    let flow = world.tables.flows()[&tuple(case)];
    world.tables.remove_flow(&tuple(case), Table::Main);
    let flags = flow.flags | FLOW_FLAG_OVERFLOW;
    world.tables.put_overflow(tuple(case), Flow { flags, ..flow });
    world.tables.press(Pressure {
        full: (NOW - 10) | 1,
        used: (NOW - 50) | 1,
    });
    world
}

fn marks(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("marks_{what}_{}", case.name());
    let beside = |by: u16| {
        let port = SocketAddr::new(case.published(1).ip(), case.published(1).port() ^ by);
        next(case).to(port).build()
    };
    let passed = |entry, by| Step::new(entry, NODE_IF, beside(by)).passes(Reason::PassNotService);
    vec![
        Fixture::new(
            name("outlived"),
            "a flow goes on whose frontend was removed",
            outlived(case),
        )
        .step(to(case, &next(case), Place::Here))
        .step(answer(case, Place::Here)),
        Fixture::new(name("overflow"), "so does one in the overflow table", displaced(case)).step(to(
            case,
            &next(case),
            Place::Here,
        )),
        Fixture::new(
            name("beside"),
            "ports beside a published one are nobody's: of the same word of marks, and of others",
            World::new().serve(case, &[Place::Here]),
        )
        .step(passed(Entry::XdpNode, 0x20))
        .step(passed(Entry::TcNode, 0x20))
        .step(passed(Entry::XdpNode, 0x4000))
        .step(passed(Entry::TcNode, 0x4000)),
    ]
}
