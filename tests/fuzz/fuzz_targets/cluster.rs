//! libFuzzer drives [`lb_fuzz::cluster::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(init: lb_fuzz::save_seeds("cluster"), |bytes: &[u8]| lb_fuzz::cluster::run(bytes));
