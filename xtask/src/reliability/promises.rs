//! The promises and the tests that prove each of them: the one list.

/// Something that holds whatever happens.
pub(crate) struct Promise {
    /// What evidence calls it.
    pub(crate) name: &'static str,
    /// Heading.
    pub(crate) title: &'static str,
    /// What is claimed.
    pub(crate) claim: &'static str,
    /// Who proves it.
    pub(crate) tests: &'static [Tests],
}

/// Tests of one test target.
pub(crate) struct Tests {
    /// Package.
    pub(crate) package: &'static str,
    /// Integration test of it; empty: the tests in its library.
    pub(crate) target: &'static str,
    /// Full names.
    pub(crate) names: &'static [&'static str],
}

/// Makes the tests run for longer than they do among all the others; each says at its use what it means.
pub(crate) const LONG: &[(&str, &str)] = &[
    ("LB_FAULT_FLOWS", "1000"),
    ("LB_FAULT_UPDATES", "10000"),
    ("LB_FAULT_ABSENCE", "180"),
    ("LB_FUZZ_CASES", "10000000"),
    ("LB_FLOOD_PACKETS", "1000000"),
];

const fn tests(package: &'static str, target: &'static str, names: &'static [&'static str]) -> Tests {
    Tests { package, target, names }
}

/// All of them, in the order of the document.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "no-flow-lost",
        title: "No flow is lost by us",
        claim: "Live TCP and UDP flows (published ports and VIPs, backends on this and on other nodes, long transfers and \
                kept connections, IPv4 and IPv6) go on without a reset, a stall, a wrong byte or another backend while the \
                agent is killed at any step of its start, of a synchronisation, of writing the tables and of an upgrade, \
                while programs are exchanged, the layout of the tables changes, the cluster state is gone, goes back in \
                time or changes thousands of times.",
        tests: &[
            tests(
                "lb-tests",
                "netns",
                &[
                    "faults::no_flow_is_lost_wherever_the_agent_dies",
                    "faults::no_flow_is_lost_when_the_layout_changes",
                    "faults::new_flows_are_served_where_a_layout_cannot_be_taken_over",
                    "faults::no_flow_is_lost_without_cluster_state_or_with_an_old_one",
                    "faults::no_flow_is_lost_while_services_change",
                    "lifecycle::stop_kill_and_restart_lose_no_request",
                    "lifecycle::what_changed_while_the_agent_was_away_is_applied_when_it_is_back",
                ],
            ),
            tests(
                "lb-userspace",
                "plan",
                &["steps::an_interrupted_apply_is_finished_by_the_next"],
            ),
        ],
    },
    Promise {
        name: "drain",
        title: "Drain is exact",
        claim: "A draining backend keeps its established TCP connections and gets no new flow; a service with nothing but \
                draining backends goes on serving. A connection whose backend is removed is reset by its next packet; \
                datagrams go to another backend with theirs. A backend of two services drains in the one that says so.",
        tests: &[
            tests(
                "lb-tests",
                "netns",
                &[
                    "drain::the_end_of_a_drain_resets_what_is_left_with_its_next_packet",
                    "drain::a_port_that_is_used_again_leaves_a_draining_backend",
                    "drain::where_nothing_else_is_left_draining_backends_go_on_serving",
                    "drain::a_backend_of_two_services_drains_in_one_alone",
                    "drain::a_backend_of_two_services_is_removed_from_one_alone",
                    "drain::restart::what_left_one_of_its_services_while_no_agent_ran_is_gone_when_one_is_back",
                    "drain::restart::flows_of_what_was_closed_before_a_restart_end_as_without_one",
                    "backends::a_draining_backend_keeps_its_connections_and_gets_no_new_one",
                    "backends::connections_of_a_removed_backend_are_reset_at_once",
                    "backends::udp_moves_at_once",
                    "backends::backends_come_and_drain_under_traffic_without_a_failed_request",
                ],
            ),
            tests("lb-tests", "packet", &["fixtures::every_fixture_agrees"]),
        ],
    },
    Promise {
        name: "full-tables",
        title: "Floods and full tables hurt nobody who is served",
        claim: "While spoofed SYNs and datagrams fill tables much too small for them, established flows lose nothing and new \
                honest ones go on being served; the pressure is visible, and afterwards everything is as before. Flows \
                expire also while no agent runs, and collecting them never takes a live one.",
        tests: &[
            tests(
                "lb-tests",
                "netns",
                &[
                    "flood::a_syn_flood_ends_no_connection_and_new_ones_are_served",
                    "flood::a_udp_flood_moves_no_flow_and_new_ones_are_served",
                    "flood::a_full_table_takes_new_flows_while_no_agent_is_there",
                ],
            ),
            tests(
                "lb-tests",
                "packet",
                &[
                    "collect::what_is_dead_goes_and_what_lives_stays",
                    "collect::a_flow_that_begins_where_one_is_collected_lives",
                ],
            ),
            tests(
                "lb-common",
                "model",
                &[
                    "a_flow_that_begins_where_one_is_collected_lives",
                    "a_reply_that_is_bound_where_one_is_collected_lives",
                    "a_flow_that_wakes_while_it_is_collected_lives_or_begins_anew",
                    "a_connection_that_ends_while_its_tuple_is_used_again_leaves_the_new_one",
                    "an_answered_flow_is_never_collected_before_its_time",
                    "a_draining_backend_keeps_its_connections_and_gets_none",
                    "a_number_is_given_again_when_no_packet_on_its_way_has_it",
                    "a_number_that_is_given_too_early_takes_no_connection_along",
                ],
            ),
        ],
    },
    Promise {
        name: "errors-travel",
        title: "Errors travel",
        claim: "ICMP errors about translated packets reach the end that they are for, with the tuple that it knows, in both \
                families, and path MTU discovery works through the tunnel.",
        tests: &[tests(
            "lb-tests",
            "netns",
            &[
                "errors::a_datagram_to_a_task_that_does_not_listen_is_refused_at_once",
                "errors::a_backend_hears_that_its_client_is_gone",
                "errors::a_backend_learns_of_a_narrow_link_behind_a_router",
                "errors::a_client_learns_of_a_narrow_link_inside_its_network",
                "errors::the_path_is_discovered_at_every_width_of_the_tunnel",
                "path_mtu::the_tunnel_learns_of_a_narrow_link_between_nodes",
            ],
        )],
    },
    Promise {
        name: "fragments",
        title: "Fragments stay together",
        claim: "Fragments of a packet for a service reach the backend of their first one, in whatever order they follow it. \
                Those that come before it are lost with their datagram, and each is counted: where a VIP or the tunnel is \
                their way they are dropped (`fragment_without_first`); elsewhere they may be the node's own and are left to \
                its stack, and counted (`fragment_before_first`) when the first one says that they were a service's.",
        tests: &[
            tests(
                "lb-tests",
                "netns",
                &[
                    "errors::datagrams_in_fragments_arrive_whole_both_ways",
                    "fragments::fragments_that_overtake_each_other_arrive_or_are_counted",
                ],
            ),
            tests("lb-tests", "packet", &["fixtures::every_fixture_agrees"]),
        ],
    },
    Promise {
        name: "hostile-input",
        title: "Hostile input does nothing but count",
        claim: "Malformed and lying packets, tunnel packets from strangers or for foreign backends, and damaged files, \
                messages and answers are counted and forwarded nowhere; the programs in the kernel and the pure pipeline \
                agree about every one of them in verdict, bytes and tables.",
        tests: &[
            tests(
                "lb-tests",
                "packet",
                &["fuzz::damaged_frames_agree", "fixtures::every_fixture_agrees"],
            ),
            tests(
                "lb-common",
                "properties",
                &[
                    "random_bytes_do_no_harm",
                    "damaged_packets_do_no_harm",
                    "answers_are_sound",
                ],
            ),
        ],
    },
    Promise {
        name: "isolation",
        title: "Networks are apart, and access is earned",
        claim: "VIPs, names and backends of one network cannot be reached or seen from another, by no detour; what the agent \
                listens on is closed to strangers, and it keeps no right that it does not need.",
        tests: &[tests(
            "lb-tests",
            "netns",
            &[
                "vip::a_vip_is_not_reachable_from_another_network",
                "names::names_are_known_in_their_own_network_alone",
                "filter::only_allowed_clients_are_answered_on_every_node",
                "operator::the_agent_keeps_no_privilege_that_it_does_not_need",
                "operator::the_admin_socket_is_for_owner_and_group",
            ],
        )],
    },
    Promise {
        name: "control-load",
        title: "The control plane holds under load",
        claim: "Thousands of services, thousands of changes, a full disk, half-written files and jumping clocks leave the \
                applied state equal to the desired one at the end, in bounded memory; what failed is visible and tried \
                again.",
        tests: &[
            tests("lb-userspace", "plan_scale", &["ten_thousand_services_of_ten_backends"]),
            tests(
                "lb-tests",
                "netns",
                &[
                    "scale::a_thousand_changes_a_second",
                    "scale::a_full_table_is_reported_and_retried",
                ],
            ),
            tests(
                "lb-userspace",
                "plan",
                &[
                    "steps::failed_writes_leave_lookups_valid_and_are_made_up_for",
                    "steps::damaged_tables_are_mended",
                ],
            ),
        ],
    },
    Promise {
        name: "dns",
        title: "Names are answered under pressure",
        claim: "Floods of questions, malformed messages and slow or dead upstreams leave memory and latency bounded; no answer \
                is larger than the asker takes, and nobody can guess what is asked upstream.",
        tests: &[
            tests(
                "lb-userspace",
                "dns",
                &[
                    "sockets::rubbish_is_survived",
                    "forwarding::forged_answers_are_passed_over",
                    "forwarding::every_forwarded_question_has_a_fresh_port_and_id",
                    "forwarding::one_client_cannot_have_everything_forwarded",
                ],
            ),
            tests("lb-tests", "netns", &["names_load::names_are_answered_under_load"]),
        ],
    },
    Promise {
        name: "kernels",
        title: "It is the same on every supported kernel",
        claim: "The running kernel takes every program, and what it does is what the pipeline does. `cargo xtask test --kernel \
                6.1` shows the same on the oldest supported one.",
        tests: &[tests(
            "lb-tests",
            "packet",
            &[
                "object::programs_load_with_names_licence_and_types",
                "fixtures::every_fixture_agrees",
            ],
        )],
    },
];
