//! libFuzzer drives [`lb_fuzz::disk::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("disk"), |bytes: &[u8]| lb_fuzz::disk::run(bytes));
