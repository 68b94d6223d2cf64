//! What is fuzzed, as plain functions: each takes an input and panics where something is wrong. `src/bin` hands them to libFuzzer; the
//! tests of the crates run them over the inputs in `corpus`.

#![forbid(unsafe_code)]

pub mod decoders;
