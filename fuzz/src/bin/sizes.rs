//! The target `sizes`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| volmgr_fuzz::typed::sizes::run(data));
