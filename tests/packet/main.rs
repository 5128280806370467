//! The real object through `BPF_PROG_TEST_RUN`, against the pure pipeline: the same fixtures, byte for byte.
//!
//! | module | what it holds to |
//! |---|---|
//! | `agree` | one packet on both sides: verdict, frame, tables, counters |
//! | `fixtures` | every fixture agrees |
//! | `collect` | the program that removes entries, beside packets that use them |
//! | `fuzz` | damaged frames agree |
//! | `round_robin` | exact on many CPUs |
//! | `object` | programs load, with names, licence and type information |

mod agree;
mod collect;
mod fixtures;
mod fuzz;
mod object;
mod round_robin;

use lb_tests::kernel::Kernel;
use lb_tests::netns::Netns;
use lb_tests::{require, world};

/// Runs `work` with a freshly loaded object inside a namespace made for it; not where that is impossible.
fn with_kernel(flows: u32, work: impl FnOnce(&mut Kernel, &Netns) + Send) {
    if !require::datapath() {
        return;
    }
    let netns = world::build().expect("a namespace like the world");
    netns.run(|| {
        let mut kernel = Kernel::load(flows).expect("the object loads");
        work(&mut kernel, &netns);
    });
}
