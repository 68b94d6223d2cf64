//! Where the next record of an area goes, and the records of a commit.

use super::area::segments;
use super::{AreaScan, Chain, Delta, RecordHeader, RecordKind};
use crate::label::Area;
use crate::model::Group;
use uuid::Uuid;

/// Deltas may grow to this many bytes even behind a smaller snapshot.
const DELTAS_FLOOR: u64 = 32 << 10;

/// The newest chain in an area, as far as appending to it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) segment: usize,
    pub(super) end: u64,
    pub(super) commit: Uuid,
    /// The chain is known to be the version that stands, not only to say so: a delta may follow.
    pub(super) holds: bool,
    pub(super) snapshot_bytes: u64,
    pub(super) delta_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AreaState {
    pub(super) area: Area,
    pub(super) tip: Option<Tip>,
    /// A write failed: what is behind the tip is not known, so the other segment is next.
    pub(super) torn: bool,
}

/// The bytes of a commit, made when first needed.
pub(super) struct Records<'a> {
    pub(super) next: &'a Group,
    pub(super) previous: Uuid,
    pub(super) delta: Option<Vec<u8>>,
    pub(super) snapshot: Option<Vec<u8>>,
}

/// One record to one area.
pub(super) struct Write {
    pub(super) at: u64,
    pub(super) kind: RecordKind,
    pub(super) tip: Tip,
}

impl AreaState {
    /// `holds`: starts of the segments whose chain was read through and is the version that stands. One whose content is `bad` may be written over.
    pub(super) fn new(scan: &AreaScan, group: Uuid, holds: &[u64], bad: &[(u64, String)]) -> Self {
        let bad = |start| bad.iter().any(|(at, _)| *at == start);
        let holds = |chain: &Chain| holds.contains(&chain.segment.start);
        let ours = |chain: &&Chain| {
            chain.tip().is_some_and(|tip| tip.group == group) && !bad(chain.segment.start)
        };
        let chains = scan.chains.iter().filter(ours);
        let newest = chains.max_by_key(|chain| (holds(chain), chain.tip().map(|tip| tip.seqno)));
        let tip = newest.and_then(|chain| {
            let sizes: Vec<u64> = chain
                .records
                .iter()
                .map(|r| r.header.record_len())
                .collect();
            let snapshot_bytes = *sizes.first()?;
            Some(Tip {
                segment: usize::from(chain.segment.start != scan.area.start),
                end: chain.end,
                commit: chain.tip()?.commit,
                holds: holds(chain),
                snapshot_bytes,
                delta_bytes: sizes.iter().skip(1).sum(),
            })
        });
        Self {
            area: scan.area,
            tip,
            torn: false,
        }
    }

    fn segment(&self, index: usize) -> Area {
        segments(self.area)[index]
    }

    /// Where the delta goes, if it may go behind the tip.
    pub(super) fn append(&self, base: Uuid, commit: Uuid, len: u64) -> Option<Write> {
        let tip = self
            .tip
            .filter(|t| !self.torn && t.holds && t.commit == base)?;
        let fits = tip.end + len <= self.segment(tip.segment).end();
        let few = tip.delta_bytes + len <= tip.snapshot_bytes.max(DELTAS_FLOOR);
        (fits && few).then_some(Write {
            at: tip.end,
            kind: RecordKind::Delta,
            tip: Tip {
                end: tip.end + len,
                commit,
                delta_bytes: tip.delta_bytes + len,
                ..tip
            },
        })
    }

    /// Where a snapshot goes: never over the newest good chain.
    pub(super) fn replace(&self, commit: Uuid, len: u64) -> Write {
        let segment = self.tip.map_or(0, |t| 1 - t.segment);
        let at = self.segment(segment).start;
        Write {
            at,
            kind: RecordKind::Snapshot,
            tip: Tip {
                segment,
                end: at + len,
                commit,
                holds: true,
                snapshot_bytes: len,
                delta_bytes: 0,
            },
        }
    }
}

impl<'a> Records<'a> {
    pub(super) fn new(old: &Group, next: &'a Group) -> Self {
        let mut records = Self {
            next,
            previous: old.commit,
            delta: None,
            snapshot: None,
        };
        if let Some(delta) = Delta::between(old, next) {
            let json = serde_json::to_vec(&delta).expect("a delta has no maps and no floats");
            records.delta = Some(records.encode(RecordKind::Delta, &json));
        }
        records
    }

    fn encode(&self, kind: RecordKind, payload: &[u8]) -> Vec<u8> {
        RecordHeader {
            kind,
            group: self.next.uuid,
            seqno: self.next.seqno,
            commit: self.next.commit,
            previous: self.previous,
            payload_len: payload.len() as u64,
            payload_crc: crc32c::crc32c(payload),
        }
        .encode(payload)
    }

    pub(super) fn snapshot(&mut self) -> &[u8] {
        if self.snapshot.is_none() {
            let json = serde_json::to_vec(self.next).expect("a group has no maps and no floats");
            self.snapshot = Some(self.encode(RecordKind::Snapshot, &json));
        }
        self.snapshot.as_deref().unwrap_or_default()
    }

    pub(super) fn get(&self, kind: RecordKind) -> &[u8] {
        let record = match kind {
            RecordKind::Snapshot => &self.snapshot,
            RecordKind::Delta => &self.delta,
        };
        record.as_deref().expect("planned writes have their record")
    }
}
