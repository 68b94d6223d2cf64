//! The target `socket`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| volmgr_fuzz::typed::socket::run(data));
