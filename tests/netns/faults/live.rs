//! [`Live`]: flows that are under way whatever happens.

use lb_tests::cluster::{Cluster, Deployed, Family, Spec};
use lb_tests::evidence;
use lb_tests::flows::{Busy, Flows, Report, Use};

use super::{PROMISE, setting};

/// Two nodes with a TCP and a UDP service on both, and flows to them from outside and inside, in both families.
pub(super) struct Live<'a> {
    pub(super) web: Deployed<'a>,
    pub(super) time: Deployed<'a>,
    pub(super) busy: Busy,
}

impl<'a> Live<'a> {
    pub(super) fn open(cluster: &'a Cluster) -> Self {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
        let mut flows = Flows::default();
        // Four ways in two families, and of each way one long transfer.
        let each = setting("LB_FAULT_FLOWS", 64).div_ceil(8);
        for family in Family::BOTH {
            for service in [&web, &time] {
                let ways = [
                    (cluster.client(0).netns(), service.on_node(0, family)),
                    (cluster.client(0).netns(), service.on_node(1, family)),
                    (cluster.workloads(0, "shop")[1].netns(), service.vip(family)),
                    (cluster.workloads(1, "shop")[1].netns(), service.vip(family)),
                ];
                for (netns, target) in ways {
                    let wanted = if service.name() == web.name() {
                        vec![(Use::Transfer, 1), (Use::Requests, each.max(3) - 1)]
                    } else {
                        vec![(Use::Datagrams, each.div_ceil(5).max(2))]
                    };
                    for (usage, count) in wanted {
                        flows.open(netns, target, usage, count).unwrap();
                    }
                }
            }
        }
        for (figure, usage) in [
            ("kept TCP connections", Use::Requests),
            ("long TCP transfers", Use::Transfer),
            ("UDP flows", Use::Datagrams),
        ] {
            evidence::record(PROMISE, figure, flows.count(usage));
        }
        let busy = flows.start();
        busy.round();
        Self { web, time, busy }
    }

    /// Nothing happened to any flow.
    #[track_caller]
    pub(super) fn assert_lossless(self) {
        let report: Report = self.busy.stop();
        report.assert_lossless();
        evidence::record(PROMISE, "answers on them, 0 resets, 0 stalls, 0 wrong", report.answered);
    }
}
