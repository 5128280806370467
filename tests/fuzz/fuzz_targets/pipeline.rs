//! libFuzzer drives [`lb_fuzz::pipeline::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("pipeline"), |bytes: &[u8]| lb_fuzz::pipeline::run(bytes));
