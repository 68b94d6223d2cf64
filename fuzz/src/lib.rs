//! What is fuzzed, as plain functions: each takes an input and panics where something is wrong. `src/bin` hands them to libFuzzer; tests
//! run them over the inputs in `corpus`.

#![forbid(unsafe_code)]

pub mod decoders;
#[cfg(feature = "typed")]
pub mod typed;
