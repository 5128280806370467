//! The object itself: programs with their names, a licence that the kernel takes for free, and type information.

use aya::programs::Program;
use lb_userspace::datapath::load::PROGRAMS;

use lb_tests::evidence;

use crate::with_kernel;

#[test]
fn programs_load_with_names_licence_and_types() {
    with_kernel(64, |kernel, _| {
        evidence::record(
            "kernels",
            "programs that the running kernel took",
            PROGRAMS.len() as u64,
        );
        for name in PROGRAMS {
            let program = kernel.ebpf.program(name).expect(name);
            let info = match program {
                Program::Xdp(p) => p.info(),
                Program::SchedClassifier(p) => p.info(),
                other => panic!("{name} is {:?}", other.prog_type()),
            }
            .expect(name);
            assert_eq!(info.name_as_str(), Some(name));
            assert_eq!(
                info.gpl_compatible(),
                Some(true),
                "{name} uses helpers for GPL programs"
            );
            assert!(
                info.btf_id().is_some_and(|id| id != 0),
                "{name} has no type information"
            );
            // The kernel refuses more than a million; older ones follow twice as many as newer ones.
            let instructions = info.verified_instruction_count().unwrap_or(0);
            assert!(
                instructions < 300_000,
                "{name}: the verifier followed {instructions} instructions"
            );
        }
    });
}
