//! `tcpgw_fuzz::table`

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| tcpgw_fuzz::table::check(bytes));
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    tcpgw_fuzz::attributes::mutate(data, size, max_size, seed, fuzzer_mutate)
});
