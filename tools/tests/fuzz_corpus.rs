//! The fuzzers' targets of what people and programs write over the inputs that the repository keeps. Those of disks and wires:
//! `tests/tests/fuzz_corpus.rs`.

#[path = "../../fuzz/src/kept.rs"]
mod kept;
#[path = "../../fuzz/src/typed/mod.rs"]
mod typed;

#[test]
fn kept_inputs_pass() {
    kept::pass(&typed::ALL);
}

#[test]
fn every_target_is_fuzzed() {
    kept::are_programs(&typed::ALL, "::typed::");
}
