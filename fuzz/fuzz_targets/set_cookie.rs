//! Hands the fuzzer's octets to `targets.rs`, where it stands what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eleven_fuzz::set_cookie(data));
