//! Whose turn it is: round robin and weights.

use std::format;

use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{Case, NODE_IF, Place, ROUTED_IF, SWITCHED_IF, World, mac, workload_mac};
use crate::verdict::{Action, Reason};

/// Which backend each of the next flows shall get.
fn in_turn(case: Case, mut fixture: Fixture, places: &[Place]) -> Fixture {
    for (n, place) in places.iter().enumerate() {
        let client = (case.client().ip(), 50_000 + n as u16).into();
        let step = Step::new(Entry::TcNode, NODE_IF, case.opening().from(client).build());
        let out = case.opening().from(client).to(case.backend(*place)).ttl(63);
        let (action, ifindex) = match place {
            Place::Here => (Action::RedirectPeer, ROUTED_IF),
            _ => (Action::Redirect, SWITCHED_IF),
        };
        let out = out.macs(workload_mac(ifindex), mac(ifindex)).build();
        fixture = fixture.step(step.redirects(action, Reason::ForwardLocal, ifindex, out));
    }
    fixture
}

pub(super) fn round_robin(case: Case) -> Fixture {
    let turn = [Place::Here, Place::Switched];
    let fixture = Fixture::new(
        format!("published_round_robin_{}", case.name()),
        "new flows take the backends in turn",
        World::new().serve(case, &turn),
    );
    in_turn(case, fixture, &[turn, turn, turn].concat())
}

pub(super) fn weights(case: Case) -> Fixture {
    let turn = [Place::Here, Place::Switched, Place::Here];
    let fixture = Fixture::new(
        format!("published_weights_{}", case.name()),
        "a backend with two of three slots takes two of three flows, in the slots' order",
        World::new().serve(case, &turn),
    );
    in_turn(case, fixture, &[turn, turn].concat())
}
