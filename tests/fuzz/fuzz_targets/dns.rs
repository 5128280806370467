//! libFuzzer drives [`lb_fuzz::dns::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("dns"), |bytes: &[u8]| lb_fuzz::dns::run(bytes));
