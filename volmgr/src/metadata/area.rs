//! Reading a metadata area: the chains in its two segments.

use super::{Delta, HEADER_BYTES, PvIo, RECORD_ALIGN, RecordError, RecordHeader, RecordKind};
use crate::label::Area;
use crate::model::{self, Group};
use std::fmt;
use uuid::Uuid;

/// Behind the end of a chain, so many blocks are searched for records that are newer.
const SEARCH_BLOCKS: u64 = 64;

/// A record that was found, its checksums right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Where, in bytes from the start of the PV.
    pub offset: u64,
    /// What.
    pub header: RecordHeader,
}

/// Why a chain ends where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing was written behind it, or the segment is full.
    End,
    /// A good record that does not continue this chain: left over from an older one.
    Unlinked,
    /// A record that is not good: torn by a crash, or damaged.
    Damaged(RecordError),
    /// The disk failed to read it.
    Unreadable(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::End => f.write_str("end of the chain"),
            Stop::Unlinked => f.write_str("an older record follows"),
            Stop::Damaged(error) => error.fmt(f),
            Stop::Unreadable(text) => write!(f, "cannot be read: {text}"),
        }
    }
}

/// The chain in one segment: a snapshot and the deltas that follow it. May be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The segment.
    pub segment: Area,
    /// The records, oldest first.
    pub records: Vec<RecordInfo>,
    /// Where the next record would go, in bytes from the start of the PV.
    pub end: u64,
    /// Why it ends there.
    pub stop: Stop,
    /// A newer record behind a damaged one: this many commits at least are lost from this copy.
    pub lost_up_to: Option<u64>,
    /// A header that is good stands at the end, though its record does not continue the chain or is torn: of this group, with this
    /// number. What a later write leaves there may make that record whole.
    pub begun: Option<(Uuid, u64)>,
}

/// What is in a metadata area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaScan {
    /// Where it is.
    pub area: Area,
    /// Its two segments.
    pub chains: [Chain; 2],
}

/// The two halves of an area.
pub(super) fn segments(area: Area) -> [Area; 2] {
    let len = area.len / 2;
    [0, 1].map(|index| Area {
        start: area.start + index * len,
        len,
    })
}

impl Chain {
    /// The newest record's header.
    pub fn tip(&self) -> Option<&RecordHeader> {
        self.records.last().map(|r| &r.header)
    }

    /// The commits in this chain and the one before it.
    pub fn ancestors(&self) -> Vec<Uuid> {
        let before = self.records.first().map(|r| r.header.previous);
        let commits = self.records.iter().map(|r| r.header.commit);
        before.into_iter().chain(commits).collect()
    }

    /// Follows the chain in `segment` record by record.
    pub(super) fn walk(io: &mut dyn PvIo, segment: Area) -> Self {
        let mut chain = Self {
            segment,
            records: Vec::new(),
            end: segment.start,
            stop: Stop::End,
            lost_up_to: None,
            begun: None,
        };
        while chain.end < segment.end() {
            match chain.next(io) {
                Ok(record) => {
                    chain.end += record.header.record_len();
                    chain.records.push(record);
                }
                Err(Stop::Damaged(RecordError::NoMagic)) => break,
                Err(stop) => {
                    chain.stop = stop;
                    break;
                }
            }
        }
        // Even where nothing seems to follow: the record may have been zeroed.
        chain.lost_up_to = chain.search_lost(io);
        chain.begun = chain.search_begun(io);
        chain
    }

    fn search_begun(&self, io: &mut dyn PvIo) -> Option<(Uuid, u64)> {
        let mut block = [0; HEADER_BYTES];
        if self.end + RECORD_ALIGN > self.segment.end() {
            return None;
        }
        io.read_at(self.end, &mut block).ok()?;
        let header = RecordHeader::decode(&block).ok()?;
        Some((header.group, header.seqno))
    }

    /// The record at the chain's end, if it is good and continues the chain.
    fn next(&self, io: &mut dyn PvIo) -> Result<RecordInfo, Stop> {
        let offset = self.end;
        let room = self.segment.end() - offset;
        let mut block = [0; HEADER_BYTES];
        if room < RECORD_ALIGN {
            return Err(Stop::End);
        }
        io.read_at(offset, &mut block)
            .map_err(|e| Stop::Unreadable(e.to_string()))?;
        let header = RecordHeader::decode(&block).map_err(Stop::Damaged)?;
        let continues = match self.tip() {
            None => header.kind == RecordKind::Snapshot,
            Some(tip) => {
                header.kind == RecordKind::Delta
                    && header.group == tip.group
                    && header.previous == tip.commit
                    && header.seqno > tip.seqno
            }
        };
        if !continues {
            return Err(Stop::Unlinked);
        }
        if header.record_len() > room {
            return Err(Stop::Damaged(RecordError::Field { field: "length" }));
        }
        let record = RecordInfo { offset, header };
        read_payload(io, &record)?;
        Ok(record)
    }

    fn search_lost(&self, io: &mut dyn PvIo) -> Option<u64> {
        let tip = self.tip()?;
        let mut newest = None;
        for index in 1..=SEARCH_BLOCKS {
            let offset = self.end + index * RECORD_ALIGN;
            let mut block = [0; HEADER_BYTES];
            if offset >= self.segment.end() || io.read_at(offset, &mut block).is_err() {
                break;
            }
            if let Ok(header) = RecordHeader::decode(&block)
                && header.group == tip.group
                && header.seqno > tip.seqno
            {
                // Leftovers of older chains have lower numbers.
                newest = newest.max(Some(header.seqno));
            }
        }
        newest
    }

    /// The group at the chain's tip: the snapshot with all deltas applied, and valid.
    pub(super) fn replay(&self, io: &mut dyn PvIo) -> Result<Group, Stop> {
        let bad = |reason: String| Stop::Damaged(RecordError::Payload { reason });
        let mut group: Option<Group> = None;
        for record in &self.records {
            let payload = read_payload(io, record)?;
            let header = &record.header;
            match &mut group {
                None => {
                    let read: Group =
                        serde_json::from_slice(&payload).map_err(|e| bad(e.to_string()))?;
                    let same = read.uuid == header.group
                        && read.seqno == header.seqno
                        && read.commit == header.commit;
                    if !same {
                        return Err(bad("it is of another commit than its header".into()));
                    }
                    group = Some(read);
                }
                Some(group) => {
                    let delta: Delta =
                        serde_json::from_slice(&payload).map_err(|e| bad(e.to_string()))?;
                    delta.apply(group, header.seqno, header.commit);
                }
            }
        }
        let group = group.ok_or(Stop::End)?;
        match model::check(&group).into_iter().next() {
            None => Ok(group),
            Some(problem) => Err(bad(problem.to_string())),
        }
    }
}

impl AreaScan {
    pub(super) fn read(io: &mut dyn PvIo, area: Area) -> Self {
        let chains = segments(area).map(|segment| Chain::walk(io, segment));
        Self { area, chains }
    }

    /// The chain with the newest commit of this group (of any, without one).
    pub(super) fn newest(&self, group: Option<Uuid>) -> Option<&Chain> {
        self.chains
            .iter()
            .filter(|c| c.tip().is_some_and(|t| group.is_none_or(|g| g == t.group)))
            .max_by_key(|c| c.tip().map(|t| t.seqno))
    }
}

fn read_payload(io: &mut dyn PvIo, record: &RecordInfo) -> Result<Vec<u8>, Stop> {
    // The length was checked against the segment, which is at most 32 MiB.
    let len = HEADER_BYTES + record.header.payload_len as usize;
    let mut bytes = vec![0; len];
    io.read_at(record.offset, &mut bytes)
        .map_err(|e| Stop::Unreadable(e.to_string()))?;
    record.header.payload(&bytes).map_err(Stop::Damaged)?;
    bytes.drain(..HEADER_BYTES);
    Ok(bytes)
}
