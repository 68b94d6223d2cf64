//! The target `nbd_options`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| volmgr_fuzz::decoders::nbd_options::run(data));
