//! libFuzzer drives [`lb_fuzz::docker::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("docker"), |bytes: &[u8]| lb_fuzz::docker::run(bytes));
