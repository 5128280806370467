//! libFuzzer drives [`lb_fuzz::stream::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("stream"), |bytes: &[u8]| lb_fuzz::stream::run(bytes));
