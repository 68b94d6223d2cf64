//! The inputs that the repository keeps, for tests: what a fuzzer has reached once stays reached, and the targets keep up with the code
//! that they drive. `make fuzz` goes on from there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Targets by name.
pub type Targets = [(&'static str, fn(&[u8]))];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The inputs of a target, and each with its end cut off and with bits flipped.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        found.push((
            format!("{}, cut", path.display()),
            bytes[..len / 2].to_vec(),
        ));
        for at in (0..len).step_by((len / 4).max(1)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            found.push((format!("{}, byte {at}", path.display()), flipped));
        }
        found.push((path.display().to_string(), bytes));
    }
    found
}

/// Runs targets over their inputs; each must have some.
pub fn pass(targets: &Targets) {
    for (name, target) in targets {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "no inputs are kept for {name}");
        for (which, bytes) in inputs {
            // Shown where the target panics.
            println!("{which}");
            target(&bytes);
        }
    }
}

/// Each of these targets is a program for the fuzzer, and each program whose target is in this module is one of them.
pub fn are_programs(targets: &Targets, module: &str) {
    let programs: BTreeSet<String> = fs::read_dir(fuzz().join("src/bin"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read_to_string(path).unwrap().contains(module))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let targets = targets.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(programs, targets.collect());
}
