//! Nodes that are there twice: a state directory that was copied together with its machine.
//!
//! A copy has the original's key, so no proof of a key tells them apart. What does is the name that each run
//! of a daemon gives itself: one node's runs follow each other, so a run that calls again after a later one
//! has called is running beside it.

use feedplex::wire::control::Hello;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// Runs remembered of each node.
const RUNS_MAX: usize = 16;

/// What this daemon has seen of other nodes since it started.
#[derive(Debug, Default)]
pub struct Twins {
    met: Mutex<BTreeMap<Uuid, Met>>,
}

#[derive(Debug)]
struct Met {
    fingerprint: String,
    /// Its runs, the present one last.
    runs: Vec<Uuid>,
}

impl Twins {
    /// A node says who it is, and has proved this key. `trusted` tells whether a key is still a peer's.
    ///
    /// # Errors
    /// Says what is there twice, and what to do.
    pub fn meet(
        &self,
        hello: &Hello,
        fingerprint: &str,
        trusted: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let known = met.entry(hello.node).or_insert_with(|| Met {
            fingerprint: fingerprint.to_owned(),
            runs: Vec::new(),
        });
        if known.fingerprint != fingerprint {
            if trusted(&known.fingerprint) {
                return Err(format!(
                    "two nodes have the UUID {}, with different keys: one's state directory is a copy of \
                     the other's (start that node with an empty one, then peeradd)",
                    hello.node
                ));
            }
            *known = Met {
                fingerprint: fingerprint.to_owned(),
                runs: Vec::new(),
            };
        }
        match known.runs.iter().position(|run| *run == hello.run) {
            Some(at) if at + 1 == known.runs.len() => Ok(()),
            Some(_) => Err(format!(
                "two daemons run with the key of node {}: one's state directory is a copy of the other's \
                 (stop one of them, start it with an empty one, then peeradd)",
                hello.node
            )),
            None => {
                if known.runs.len() == RUNS_MAX {
                    known.runs.remove(0);
                }
                known.runs.push(hello.run);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u128, run: u128) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            features: 0,
            node: Uuid::from_u128(node),
            name: "a".into(),
            fingerprint: String::new(),
            run: Uuid::from_u128(run),
        }
    }

    #[test]
    fn a_node_that_starts_again_is_no_twin() {
        let twins = Twins::default();
        for run in [1, 1, 2, 2, 3] {
            assert_eq!(twins.meet(&hello(9, run), "k", |_| true), Ok(()));
        }
    }

    #[test]
    fn a_run_that_calls_after_a_later_one_is_a_twin_and_the_later_one_goes_on() {
        let twins = Twins::default();
        for run in [1, 2] {
            assert_eq!(twins.meet(&hello(9, run), "k", |_| true), Ok(()));
        }
        let told = twins.meet(&hello(9, 1), "k", |_| true).unwrap_err();
        assert!(told.contains("two daemons run with the key"), "{told}");
        assert_eq!(twins.meet(&hello(9, 2), "k", |_| true), Ok(()));
    }

    #[test]
    fn one_uuid_with_two_keys_is_two_nodes_unless_the_old_key_is_given_up() {
        let twins = Twins::default();
        assert_eq!(twins.meet(&hello(9, 1), "k", |_| true), Ok(()));
        let told = twins.meet(&hello(9, 5), "l", |_| true).unwrap_err();
        assert!(told.contains("with different keys"), "{told}");
        assert_eq!(twins.meet(&hello(9, 5), "l", |key| key == "l"), Ok(()));
    }
}
