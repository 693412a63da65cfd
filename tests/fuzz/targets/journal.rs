//! `tcpgw_fuzz::journal`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tcpgw_fuzz::journal::check(bytes));
