//! What people and programs write: sizes, names, rules and selections of the command line, the configuration file, JSON on the control
//! socket and in the state directory. They need the programs' crate, so they are apart from what comes from disks and wires.

pub mod config;
pub mod rules;
pub mod selection;
pub mod sizes;
pub mod socket;
pub mod state;

/// A target: takes an input, panics where something is wrong.
pub type Target = fn(&[u8]);

/// Their names, by which `src/bin`, `corpus` and `dict` know them.
pub const ALL: [(&str, Target); 6] = [
    ("config", config::run),
    ("rules", rules::run),
    ("selection", selection::run),
    ("sizes", sizes::run),
    ("socket", socket::run),
    ("state", state::run),
];

/// The value that this JSON is, if it is one; written and read again it is the same.
fn json<T>(text: &[u8]) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value: T = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&value).expect("was read");
    let again: T = serde_json::from_slice(&written).expect("was written here");
    assert_eq!(again, value);
    Some(value)
}
