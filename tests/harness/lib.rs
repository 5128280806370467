//! Guards, topologies, servers and clients for tests and demos that need real network namespaces.
//!
//! Everything that outlives a function is a guard: dropped, also by a panic, it takes its namespace, mount, process
//! or directory with it. Ctrl-C does the same ([`cleanup`]), and what a killed run left behind is removed by the next.
//!
//! | module | what it gives |
//! |---|---|
//! | [`require`] | the skip rule: root and BPF, or a reason (a failure under `LB_TEST_STRICT=1`) |
//! | [`netns`] | [`Netns`](netns::Netns): a namespace, links, addresses, routes, sysctls, offloads |
//! | [`cluster`] | nodes with a real `lb-agent` each, clients, workloads, services, the cluster file |
//! | [`swarm`] | a real Docker Swarm: a dockerd for each node, overlays, services, and an `lb-agent` on each if wanted |
//! | [`scene`] | a cluster under test: what a failing test leaves behind for people to read |
//! | [`agent`], [`lbctl`] | the processes under test |
//! | [`server`], [`client`], [`traffic`], [`dns`] | who speaks through the load balancer |
//! | [`answers`] | what every answer has to be |
//! | [`flows`] | flows that must go on, whatever happens |
//! | [`capture`] | packets of a namespace, kept as pcap files when the test failed |
//! | [`evidence`] | figures by which a test proves a promise |
//! | [`kernel`], [`world`] | the object without an agent, its maps filled from a world and read back; a namespace like the world |
//! | [`stamps`] | times in what the programs write, which may be a jiffy old |
//! | [`xdp`] | an XDP program that passes everything, for the far ends of veth pairs |

pub mod agent;
pub mod answers;
pub mod capture;
pub mod cleanup;
pub mod client;
pub mod cluster;
pub mod dns;
pub mod evidence;
pub mod flows;
mod http;
pub mod kernel;
pub mod lbctl;
pub mod netns;
pub mod require;
pub mod scene;
pub mod server;
pub mod stamps;
pub mod swarm;
pub mod traffic;
mod underlay;
pub mod world;
pub mod xdp;
