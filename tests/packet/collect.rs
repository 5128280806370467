//! The program that removes entries, at the same time as packets that take them into use again, on two CPUs.

use std::sync::Barrier;
use std::time::Instant;

use aya::programs::{Program, TestRun as _, TestRunOptions};
use lb_common::abi::{Collect, NETWORK_NODE, program};
use lb_common::collect::SLACK;
use lb_common::testing::fixture::{Entry, Input};
use lb_common::testing::world::{Case, NETWORK, NODE_IF, Place, World};
use lb_common::tuple::Tuple;
use lb_userspace::datapath::clock;

use crate::with_kernel;
use lb_tests::evidence;
use lb_tests::kernel::{Kernel, run};

/// Meetings of a packet and the collector, for each family and protocol.
const ROUNDS: usize = 400;
/// `TC_ACT_REDIRECT`.
const REDIRECTED: u32 = 7;

/// What the agent tells the program.
fn request(tuple: &Tuple, reply: bool) -> Vec<u8> {
    let request = if reply {
        Collect::reply(tuple, false)
    } else {
        Collect::dead(tuple, false, u32::MAX)
    };
    request.frame().to_vec()
}

fn collect(kernel: &Kernel, frame: &[u8]) -> bool {
    let Some(Program::SchedClassifier(program)) = kernel.ebpf.program(program::COLLECT) else {
        panic!("there is such a program");
    };
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    program.test_run(options).expect("BPF_PROG_TEST_RUN").return_value == 1
}

fn send(kernel: &Kernel, frame: Vec<u8>) -> u32 {
    let input = Input {
        entry: Entry::TcNode,
        ifindex: NODE_IF,
        frame,
        segment: 0,
        namespace: 0,
        side_tag: false,
    };
    let program = kernel.ebpf.program(Entry::TcNode.program()).expect("a program");
    run(program, &input, &mut vec![0; 4096]).expect("BPF_PROG_TEST_RUN").0
}

fn tuple(case: Case) -> Tuple {
    case.tuple(case.client(), case.published(1), NETWORK_NODE)
}

/// A flow and its reply, established and silent for ten minutes, with five to live.
fn expired(case: Case) -> World {
    World::new()
        .flow(case, tuple(case), Place::Here, None)
        .change(tuple(case), |flow| {
            flow.last_seen = flow.last_seen.wrapping_sub(600_000);
            flow.timeout = 300_000;
        })
}

#[test]
fn what_is_dead_goes_and_what_lives_stays() {
    with_kernel(64, |kernel, _| {
        for case in Case::ALL {
            let back = case.tuple(case.backend(Place::Here), case.client(), NETWORK);
            let (flow, reply) = (request(&tuple(case), false), request(&back, true));
            kernel.fill(&expired(case).at(clock::now()).tables).expect("tables");
            assert!(!collect(kernel, &reply), "{}: it leads to a flow", case.name());
            assert!(collect(kernel, &flow), "{}: dead", case.name());
            assert!(!collect(kernel, &flow), "{}: gone", case.name());
            assert!(collect(kernel, &reply), "{}: leads nowhere", case.name());
            let live = World::new().flow(case, tuple(case), Place::Here, None);
            kernel.fill(&live.at(clock::now()).tables).expect("tables");
            assert!(
                !collect(kernel, &flow) && !collect(kernel, &reply),
                "{}: alive",
                case.name()
            );
        }
    });
}

#[test]
fn a_flow_goes_whose_backend_has_left_its_service() {
    with_kernel(64, |kernel, _| {
        for case in Case::ALL {
            let live = World::new().flow(case, tuple(case), Place::Here, None).at(clock::now());
            let flow = live.tables.flows()[&tuple(case)];
            let request =
                |service, backend, overflow| Collect::left(&tuple(case), overflow, service, backend).frame().to_vec();
            let (service, backend) = (flow.service, flow.backend);
            kernel.fill(&live.tables).expect("tables");
            for other in [
                request(service + 1, backend, false),
                request(service, backend + 1, false),
                request(service, backend, true),
            ] {
                assert!(!collect(kernel, &other), "{}: another one's", case.name());
            }
            assert!(collect(kernel, &request(service, backend, false)), "{}", case.name());
            assert!(kernel.state().expect("tables").flows.is_empty(), "{}", case.name());

            live.tables.put_overflow(tuple(case), flow);
            kernel.fill(&live.tables).expect("tables");
            assert!(collect(kernel, &request(service, backend, true)), "{}", case.name());
            let state = kernel.state().expect("tables");
            assert!(state.overflow.is_empty() && state.flows.len() == 1, "{}", case.name());
        }
    });
}

#[test]
fn a_flow_that_begins_where_one_is_collected_lives() {
    with_kernel(64, |kernel, _| {
        for case in Case::ALL {
            let (first, next) = (
                case.opening().build(),
                case.frame(case.client(), case.published(1)).macs(
                    lb_common::testing::world::mac(NODE_IF),
                    lb_common::testing::world::ROUTER,
                ),
            );
            let back = case.tuple(case.backend(Place::Here), case.client(), NETWORK);
            let (flow, reply) = (request(&tuple(case), false), request(&back, true));
            let (mut removed, mut slow) = (0, 0);
            for round in 0..ROUNDS {
                kernel.fill(&expired(case).at(clock::now()).tables).expect("tables");
                let (kernel, barrier) = (&*kernel, &Barrier::new(2));
                let (flow, reply, first) = (&flow, &reply, first.clone());
                let took = std::thread::scope(|scope| {
                    let collector = scope.spawn(move || {
                        barrier.wait();
                        // They need not meet in the same nanosecond every time.
                        (0..round % 40 * 20).for_each(|n| {
                            std::hint::black_box(n);
                        });
                        let removed = collect(kernel, flow);
                        collect(kernel, reply);
                        removed
                    });
                    barrier.wait();
                    (0..(round / 40) % 10 * 80).for_each(|n| {
                        std::hint::black_box(n);
                    });
                    let start = Instant::now();
                    assert_eq!(send(kernel, first), REDIRECTED, "{}: the first packet", case.name());
                    let took = start.elapsed();
                    removed += usize::from(collector.join().expect("the collector"));
                    took
                });
                // Nobody waits longer for a program to end: an emulated CPU may be stopped within one.
                if took >= clock::duration(SLACK) {
                    slow += 1;
                    continue;
                }
                assert_eq!(
                    send(kernel, next.build()),
                    REDIRECTED,
                    "{}: round {round}: the flow is lost",
                    case.name()
                );
                let state = kernel.state().expect("tables");
                assert!(
                    state.flows.contains_key(&tuple(case)) || state.overflow.contains_key(&tuple(case)),
                    "{}: round {round}: {state:?}",
                    case.name()
                );
                assert!(
                    state.replies.contains_key(&back) || state.overflow_replies.contains_key(&back),
                    "{}: round {round}, {removed} removed, tick {}: {state:?}",
                    case.name(),
                    clock::now()
                );
            }
            assert!(
                slow * 20 < ROUNDS,
                "{}: {slow} of {ROUNDS} programs took too long",
                case.name()
            );
            evidence::record(
                "full-tables",
                "races of a collector with a new flow, none lost",
                (ROUNDS - slow) as u64,
            );
            println!(
                "{}: the collector was first in {removed} of {ROUNDS} rounds",
                case.name()
            );
        }
    });
}
