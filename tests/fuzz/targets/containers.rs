//! `tcpgw_fuzz::containers`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tcpgw_fuzz::containers::check(bytes));
