//! The files of the state directory.

use super::json;
use feedplex::access::Rules;
use feedplex::identity::{Fingerprint, Identity};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tools::daemon::events::Event;
use tools::daemon::groups::Remembered;
use tools::daemon::peers::Peer;
use tools::daemon::state::NodeFile;
use tools::daemon::ublk::Record;
use uuid::Uuid;

/// One execution.
pub fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 7 {
        0 => drop(json::<NodeFile>(data)),
        1 => peers(data),
        2 => drop(json::<BTreeSet<PathBuf>>(data)),
        3 => drop(json::<Remembered>(data)),
        4 => drop(json::<BTreeMap<Uuid, Record>>(data)),
        5 => {
            if let Some(event) = json::<Event>(data) {
                assert_eq!(event.row().len(), 4);
            }
        }
        _ => identity(data),
    }
}

fn peers(data: &[u8]) {
    for peer in json::<Vec<Peer>>(data).unwrap_or_default() {
        // As they are when the peer comes: a file that somebody has edited.
        let _ = Rules::parse(&peer.allow);
        let _ = peer.fingerprint.parse::<Fingerprint>();
    }
}

/// A key is believed only with its certificate.
fn identity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(identity) = Identity::parse(text) {
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let of = Fingerprint::of_certificate(identity.certificate());
        assert_eq!(of.ok(), Some(identity.fingerprint()));
    }
}
