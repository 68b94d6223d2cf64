//! The target `selection`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| volmgr_fuzz::typed::selection::run(data));
