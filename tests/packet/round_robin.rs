//! Round robin is exact on the real object, however many CPUs open flows at once. No test in user space can see an atomic
//! add that was compiled to one which fetches nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::testing::fixture::{Entry, Input};
use lb_common::testing::world::{Case, NODE_IF, Place, World};

use crate::with_kernel;

/// Threads; more than there are CPUs, so that they interrupt each other as well.
const THREADS: u16 = 6;
/// Flows of each.
const FLOWS: u16 = 1000;

#[test]
fn exact_over_concurrent_flows() {
    with_kernel(16_384, |kernel, _| {
        for case in Case::ALL {
            let places = [Place::Here, Place::Switched, Place::Node2, Place::Node3, Place::Unseen];
            let world = World::new().serve(case, &places);
            kernel.fill(&world.tables).expect("tables");
            let program = kernel.ebpf.program(Entry::TcNode.program()).expect("a program");
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    // Threads inherit the namespace of the one that starts them.
                    scope.spawn(move || open(case, thread, program));
                }
            });
            let state = kernel.state().expect("tables");
            assert_eq!(
                state.flows.len(),
                usize::from(THREADS * FLOWS),
                "{}: flows",
                case.name()
            );
            let mut counts = BTreeMap::new();
            for flow in state.flows.values() {
                *counts.entry(flow.backend).or_insert(0u32) += 1;
            }
            assert_eq!(counts.len(), places.len(), "{}: {counts:?}", case.name());
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            assert!(most - least <= 1, "{}: {counts:?}", case.name());
        }
    });
}

fn open(case: Case, thread: u16, program: &aya::programs::Program) {
    let mut out = vec![0; 4096];
    for n in 0..FLOWS {
        let client: SocketAddr = (case.client().ip(), 10_000 + thread * FLOWS + n).into();
        let input = Input {
            entry: Entry::TcNode,
            ifindex: NODE_IF,
            frame: case.opening().from(client).build(),
            segment: 0,
            namespace: 0,
            side_tag: false,
        };
        lb_tests::kernel::run(program, &input, &mut out).expect("BPF_PROG_TEST_RUN");
    }
}
