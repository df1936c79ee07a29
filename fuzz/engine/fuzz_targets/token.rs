//! See `lectern_fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lectern_fuzz::run("token", bytes));
