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
    // What takes less than two minutes there, alone. All others are a matter of `--all`: clusters of their own with agents that
    // begin again and again, long transfers, floods, loads that are measured.
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
    "backends::a_connection_that_one_backend_refuses_is_taken_by_another_at_once",
    "backends::a_draining_backend_keeps_its_connections_and_gets_no_new_one",
    "backends::backends_come_and_drain_under_traffic_without_a_failed_request",
    "backends::connections_of_a_removed_backend_are_reset_at_once",
    "backends::udp_moves_at_once",
    "backends::weights_are_shares_of_new_connections",
    "backends::without_a_backend_clients_are_refused_at_once",
    "cluster_file::a_change_is_in_force_within_100_ms",
    "cluster_file::a_removed_service_is_gone",
    "cluster_file::automatic_ports_are_in_their_range_and_stay",
    "drain::a_backend_of_two_services_drains_in_one_alone",
    "drain::a_backend_of_two_services_is_removed_from_one_alone",
    "drain::a_port_that_is_used_again_leaves_a_draining_backend",
    "drain::the_end_of_a_drain_resets_what_is_left_with_its_next_packet",
    "drain::restart::what_left_one_of_its_services_while_no_agent_ran_is_gone_when_one_is_back",
    "drain::where_nothing_else_is_left_draining_backends_go_on_serving",
    "errors::a_backend_hears_that_its_client_is_gone",
    "errors::a_backend_learns_of_a_narrow_link_behind_a_router",
    "errors::a_client_learns_of_a_narrow_link_inside_its_network",
    "errors::a_datagram_to_a_task_that_does_not_listen_is_refused_at_once",
    "errors::datagrams_in_fragments_arrive_whole_both_ways",
    "filter::only_allowed_clients_are_answered_on_every_node",
    "fragments::fragments_that_overtake_each_other_arrive_or_are_counted",
    "gateway::a_container_reaches_every_backend_through_its_own_node",
    "host::a_process_of_the_node_is_refused_where_nobody_serves",
    "host::a_process_of_the_node_reaches_every_backend_in_turn",
    "host::backends_see_the_node_where_its_address_means_something",
    "host::datagrams_of_a_process_of_the_node_are_answered",
    "host::one_port_of_two_nodes_loopback_addresses_is_two_clients",
    "lifecycle::uninstall_leaves_no_trace",
    "lifecycle::what_changed_while_the_agent_was_away_is_applied_when_it_is_back",
    "names::an_answer_that_does_not_fit_is_truncated_and_whole_over_tcp",
    "names::names_are_known_in_their_own_network_alone",
    "names::services_tasks_and_addresses_have_names",
    "names::the_other_family_is_no_data_and_drained_tasks_are_not_named",
    "operator::lbctl_explains_names_maps_programs_and_plan",
    "operator::lbctl_has_its_exit_codes",
    "operator::lbctl_shows_services_backends_and_connections",
    "operator::metrics_count_what_was_forwarded",
    "operator::the_admin_socket_is_for_owner_and_group",
    "operator::the_agent_keeps_no_privilege_that_it_does_not_need",
    "published::a_backend_reaches_its_own_published_port",
    "published::a_port_that_is_used_again_at_once_makes_a_new_connection",
    "published::a_port_that_nobody_publishes_is_refused_by_the_node",
    "published::a_workload_reaches_a_published_port",
    "published::every_node_answers_and_the_backend_sees_the_client",
    "published::one_client_port_to_several_nodes_at_a_time",
    "published::round_robin_is_exact_for_one_client",
    "published::round_robin_is_exact_for_parallel_clients",
    "published::udp_is_answered_on_every_node",
    "scale::a_full_table_is_reported_and_retried",
    "topology::",
    "transfer::segments_fit_the_tunnel_and_nothing_else_is_shrunk",
    "transfer::the_time_to_live_falls_with_every_node",
    "vip::a_backend_reaches_itself",
    "vip::a_port_that_the_vip_does_not_serve_is_refused_at_once",
    "vip::a_vip_answers_neighbour_requests_and_echo",
    "vip::a_vip_is_not_reachable_from_another_network",
    "vip::local_and_remote_backends_answer_and_see_the_client",
    "xdp::native_xdp_balances_alike",
];

const UNFIT: &[(&str, &str)] = &[(
    "pressure::tables_that_fill_lose_no_syn",
    "connections are forgotten faster than it makes them: no table ever fills",
)];
