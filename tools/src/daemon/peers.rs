//! The peers of this node: where they are, by which fingerprint they are known, what they may do.

use super::state::{StateDir, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::RwLock;

const FILE: &str = "peers.json";

/// A peer as the admin described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Name by which feeds refer to it.
    pub name: String,
    /// `ADDR:PORT` of its `--listen`.
    pub addr: String,
    /// Addresses for payload; empty: `addr`.
    pub data: Vec<String>,
    /// Fingerprint of its key, normalised.
    pub fingerprint: String,
    /// What it may do here: rules `[!](feed|read|create|all)[:PATTERN]`; empty: nothing.
    pub allow: Vec<String>,
    /// Payload may travel unencrypted.
    pub plaintext: bool,
}

/// The peer list; changed on disk first.
#[derive(Debug)]
pub struct Peers {
    list: RwLock<BTreeMap<String, Peer>>,
}

impl Peers {
    /// Reads the list.
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let list: Vec<Peer> = state.read(FILE)?.unwrap_or_default();
        Ok(Self {
            list: RwLock::new(
                list.into_iter()
                    .map(|peer| (peer.name.clone(), peer))
                    .collect(),
            ),
        })
    }

    /// The peer of that name.
    pub fn get(&self, name: &str) -> Option<Peer> {
        self.read().get(name).cloned()
    }

    /// The peer with that key.
    pub fn by_fingerprint(&self, fingerprint: &str) -> Option<Peer> {
        self.read()
            .values()
            .find(|peer| peer.fingerprint == fingerprint)
            .cloned()
    }

    /// All peers, by name.
    pub fn all(&self) -> Vec<Peer> {
        self.read().values().cloned().collect()
    }

    /// Adds a peer, or replaces the one of that name.
    pub fn put(&self, state: &StateDir, peer: Peer) -> Result<(), StateError> {
        self.change(state, |list| {
            list.insert(peer.name.clone(), peer);
        })
    }

    /// Removes a peer.
    pub fn remove(&self, state: &StateDir, name: &str) -> Result<(), StateError> {
        self.change(state, |list| {
            list.remove(name);
        })
    }

    fn change(
        &self,
        state: &StateDir,
        change: impl FnOnce(&mut BTreeMap<String, Peer>),
    ) -> Result<(), StateError> {
        let mut list = self.list.write().unwrap_or_else(|p| p.into_inner());
        let mut next = list.clone();
        change(&mut next);
        state.write(FILE, &next.values().collect::<Vec<_>>())?;
        *list = next;
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Peer>> {
        self.list.read().unwrap_or_else(|p| p.into_inner())
    }
}
