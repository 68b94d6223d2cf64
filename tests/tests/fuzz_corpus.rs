//! The fuzzers' targets of disks and wires over the inputs that the repository keeps. Those of what people type: `tools/tests/fuzz_corpus.rs`.

#[path = "../../fuzz/src/decoders/mod.rs"]
mod decoders;
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[test]
fn kept_inputs_pass() {
    kept::pass(&decoders::ALL);
}

#[test]
fn every_target_is_fuzzed() {
    kept::are_programs(&decoders::ALL, "::decoders::");
}
