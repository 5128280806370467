//! Which tests run on another kernel.

use std::time::Duration;

/// Tests of one binary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    pub(super) name: &'static str,
    /// Test target.
    pub(super) target: &'static str,
    /// At once.
    pub(super) threads: u32,
    /// Longer than this it may not take.
    pub(super) limit: Duration,
    /// Parts of names of the tests that run; empty: all.
    pub(super) tests: &'static [&'static str],
    /// Names of tests that the guest cannot run, with the reason.
    pub(super) unfit: &'static [(&'static str, &'static str)],
}

/// Which tests of the suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent<'a> {
    /// Those that [`Suite::tests`] names.
    Chosen,
    /// Those with this in their names.
    Named(&'a str),
    /// Every one that fits.
    All,
}

/// How much longer than [`Suite::limit`] all tests of a suite may take.
pub(super) const ALL: u32 = 3;

/// How many of [`SUITES`], from the first, are quick enough for every change.
pub(crate) const QUICK: usize = 2;

/// The guest is some ten times slower than its host.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "packet",
        target: "packet",
        threads: 1,
        limit: Duration::from_secs(1200),
        tests: &[],
        unfit: &[],
    },
    Suite {
        name: "attach",
        target: "datapath",
        threads: 1,
        limit: Duration::from_secs(1200),
        tests: &[],
        unfit: &[],
    },
    // One test of each way that a packet can take, and of what the agent does with an older kernel's hooks. Left out: what
    // depends on the kernel no more than these do and measures time (reload, agents killed under traffic), names and
    // documents, which no kernel sees, and long transfers.
    Suite {
        name: "netns",
        target: "netns",
        // Tests share a cluster as long as one of them runs, and three agents take half a minute to start.
        threads: 2,
        limit: Duration::from_secs(2400),
        tests: NETNS,
        unfit: UNFIT,
    },
];

const NETNS: &[&str] = &[
    "backends::a_draining_backend_keeps_its_connections_and_gets_no_new_one",
    "backends::connections_of_a_removed_backend_are_reset_at_once",
    "backends::udp_moves_at_once",
    "backends::weights_are_shares_of_new_connections",
    "gateway::a_container_reaches_every_backend_through_its_own_node",
    "host::a_process_of_the_node_reaches_every_backend_in_turn",
    "host::datagrams_of_a_process_of_the_node_are_answered",
    "lifecycle::uninstall_leaves_no_trace",
    "lifecycle::what_changed_while_the_agent_was_away_is_applied_when_it_is_back",
    "published::a_backend_reaches_its_own_published_port",
    "published::a_workload_reaches_a_published_port",
    "published::every_node_answers_and_the_backend_sees_the_client",
    "published::round_robin_is_exact_for_one_client",
    "published::udp_is_answered_on_every_node",
    "topology::",
    "transfer::the_time_to_live_falls_with_every_node",
    "vip::a_backend_reaches_itself",
    "vip::a_vip_answers_neighbour_requests_and_echo",
    "vip::a_vip_is_not_reachable_from_another_network",
    "vip::local_and_remote_backends_answer_and_see_the_client",
    "xdp::native_xdp_balances_alike",
];

const UNFIT: &[(&str, &str)] = &[];
