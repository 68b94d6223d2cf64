//! What a sector of a volume may hold, given every write so far. The model that reads,
//! acknowledgements and claims are checked against; it shares nothing with the product.

use super::scrub::rotten;
use std::collections::HashMap;

/// One write of one sector.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it wrote.
    pub value: u64,
    write: u64,
    /// Step of its submission.
    from: u64,
    /// Step of its completion.
    done: Option<u64>,
    /// Acknowledged.
    good: bool,
    /// Acknowledged durable: with FUA, or by a flush after it.
    durable: bool,
    /// From before a crash, and not what was seen since: only a power cut can bring it back.
    hidden: bool,
}

/// The writes of every sector of one volume.
#[derive(Clone, Default)]
pub struct History {
    /// By sector.
    pub sectors: Vec<Vec<Record>>,
    /// Where each write that is not completed goes: first sector and count.
    open: HashMap<u64, (usize, usize)>,
    /// Step of the last crash, 0 for none.
    crashed: u64,
}

impl History {
    /// All zero.
    pub fn new(sectors: usize) -> Self {
        Self {
            sectors: (0..sectors).map(|_| vec![base(0)]).collect(),
            ..Self::default()
        }
    }

    /// A write has been submitted.
    pub fn submit(&mut self, first: usize, values: &[u64], write: u64, now: u64) {
        self.open.insert(write, (first, values.len()));
        for (sector, value) in self.sectors[first..].iter_mut().zip(values) {
            sector.push(Record {
                value: *value,
                write,
                from: now,
                done: None,
                good: false,
                durable: false,
                hidden: false,
            });
        }
    }

    /// A write has been completed, well or not.
    pub fn complete(&mut self, write: u64, good: bool, durable: bool, now: u64) {
        let Some((first, count)) = self.open.remove(&write) else {
            return;
        };
        for sector in &mut self.sectors[first..first + count] {
            for record in sector.iter_mut().filter(|r| r.write == write) {
                record.done = Some(now);
                record.good = good;
                record.durable = good && durable;
            }
        }
    }

    /// A sector has come to hold something else, in silence: like a write that nobody asked for, and nobody hears of.
    pub fn rot(&mut self, sector: usize, value: u64, now: u64) {
        self.sectors[sector].push(Record {
            from: now,
            done: Some(now),
            durable: false,
            ..base(value)
        });
    }

    /// A flush submitted at `from` was acknowledged.
    pub fn flushed(&mut self, from: u64) {
        for record in self.sectors.iter_mut().flatten() {
            record.durable |= record.good && record.done.is_some_and(|d| d < from);
        }
    }

    /// May a read that begins at `at` return this? After a power cut only durable writes count as
    /// having replaced something.
    pub fn legal(&self, sector: usize, value: u64, at: u64, power_cut: bool) -> bool {
        let records = &self.sectors[sector];
        records
            .iter()
            .filter(|r| r.value == value && (power_cut || !r.hidden))
            .any(|r| !replaced(records, r, at, power_cut))
    }

    /// What the sector may hold at a moment in the write order, `at`: whatever was acknowledged
    /// before is there, nothing is that was submitted later.
    pub fn possible(&self, sector: usize, at: u64) -> Vec<u64> {
        let records = &self.sectors[sector];
        let may = |r: &&Record| r.from <= at && !replaced(records, r, at, false);
        records.iter().filter(may).map(|r| r.value).collect()
    }

    /// After a crash: what was in flight may or may not have happened, nothing else changes.
    pub fn crash(&mut self, power_cut: bool, now: u64) {
        self.crashed = now;
        self.open.clear();
        for record in self.sectors.iter_mut().flatten() {
            record.done.get_or_insert(now);
        }
        if !power_cut {
            return;
        }
        for sector in 0..self.sectors.len() {
            let mut values: Vec<u64> = self.sectors[sector].iter().map(|r| r.value).collect();
            values.sort_unstable();
            values.dedup();
            values.retain(|v| self.legal(sector, *v, now + 1, true));
            self.sectors[sector] = values.into_iter().map(base).collect();
        }
    }

    /// Somebody saw this: where nothing was written since the crash, all must see it from now on.
    pub fn seen(&mut self, sector: usize, value: u64) {
        let records = &mut self.sectors[sector];
        // What one plex has in silence says nothing of the others.
        let old = |r: &Record| rotten(r.value) || r.from < self.crashed;
        if self.crashed > 0 && records.iter().all(old) {
            for record in records.iter_mut().filter(|r| !rotten(r.value)) {
                record.hidden |= record.value != value;
            }
        }
    }

    /// The volume has grown; nobody knows what is in the new part.
    pub fn grow(&mut self, sectors: usize, content: impl Fn(usize) -> Vec<u64>) {
        for sector in self.sectors.len()..sectors {
            self.sectors
                .push(content(sector).into_iter().map(base).collect());
        }
    }

    /// Forgets what nobody can see any more who looks at `floor` or later.
    pub fn prune(&mut self, floor: u64) {
        for records in self.sectors.iter_mut().filter(|r| r.len() > 12) {
            let old = records.clone();
            records.retain(|r| !replaced(&old, r, floor, true));
        }
    }
}

/// Has another write taken this one's place for whoever looks at `at`?
fn replaced(records: &[Record], r: &Record, at: u64, power_cut: bool) -> bool {
    records.iter().any(|w| {
        w.good
            && (w.durable || !power_cut)
            && w.done.is_some_and(|d| d < at)
            && r.done.is_some_and(|d| w.from > d)
    })
}

fn base(value: u64) -> Record {
    Record {
        value,
        write: 0,
        from: 0,
        done: Some(0),
        good: false,
        durable: true,
        hidden: false,
    }
}
