//! The target `record`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| volmgr_fuzz::decoders::record::run(data));
