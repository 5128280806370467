//! One run of a program by `BPF_PROG_TEST_RUN`.

use anyhow::{Result, bail};
use aya::programs::{Program, TestRun as _, TestRunOptions};
use lb_common::testing::fixture::{Entry, Input};

/// Runs a program once; `out` receives the frame. Return value and length of the frame.
///
/// # Errors
/// If the kernel takes no such input.
pub fn run(program: &Program, input: &Input, out: &mut [u8]) -> Result<(u32, usize)> {
    let context = context(input);
    let options = TestRunOptions {
        data_in: Some(&input.frame),
        data_out: Some(out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = match program {
        Program::Xdp(program) => program.test_run(options)?,
        Program::SchedClassifier(program) => program.test_run(options)?,
        other => bail!("{:?} is not run", other.prog_type()),
    };
    Ok((result.return_value, result.data_size_out as usize))
}

/// The context of a run: `struct xdp_md` or `struct __sk_buff`, with the fields that may be given.
pub fn context(input: &Input) -> Vec<u8> {
    let mut put = Vec::new();
    let size = if input.entry == Entry::XdpNode {
        put.push((4, input.frame.len() as u32)); // data_end
        put.push((12, input.ifindex));
        24
    } else {
        put.push((36, input.ifindex)); // ingress_ifindex
        put.push((40, input.ifindex));
        put.push((48, input.namespace as u32)); // cb[0]
        put.push((52, (input.namespace >> 32) as u32)); // cb[1]
        put.push((176, input.segment as u32)); // gso_size
        192
    };
    let mut bytes = vec![0; size];
    for (offset, value) in put {
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Whether `BPF_PROG_TEST_RUN` takes such an input: no tag beside the frame, and no IP header cut short on tc.
pub fn takes(input: &Input) -> bool {
    if input.entry == Entry::XdpNode {
        return input.frame.len() >= 14;
    }
    let least = match input.frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    !input.side_tag && input.frame.len() >= 14 + least
}
