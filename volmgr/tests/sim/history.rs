//! What a read of a sector may return, given all writes so far.

/// One write of one sector.
#[derive(Clone, Debug)]
pub struct Record {
    pub value: u64,
    pub write: u64,
    /// Step of its submission.
    pub from: u64,
    /// Step of its completion.
    pub done: Option<u64>,
    /// Acknowledged.
    pub good: bool,
    /// Acknowledged durable (FUA, or a flush after it).
    pub durable: bool,
    /// From before a crash, and not what was seen since: only a power cut can bring it back.
    pub hidden: bool,
}

/// The writes of every sector.
pub struct History {
    pub sectors: Vec<Vec<Record>>,
    /// Step of the last crash, 0 for none.
    crashed: u64,
}

impl History {
    pub fn new(sectors: usize) -> Self {
        Self {
            sectors: (0..sectors).map(|_| vec![Self::base(0)]).collect(),
            crashed: 0,
        }
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

    pub fn submit(&mut self, sectors: std::ops::Range<usize>, value: u64, write: u64, now: u64) {
        for sector in sectors {
            self.sectors[sector].push(Record {
                value,
                write,
                from: now,
                done: None,
                good: false,
                durable: false,
                hidden: false,
            });
        }
    }

    pub fn complete(&mut self, write: u64, good: bool, durable: bool, now: u64) {
        for record in self.sectors.iter_mut().flatten() {
            if record.write == write && record.done.is_none() {
                record.done = Some(now);
                record.good = good;
                record.durable = good && durable;
            }
        }
    }

    /// A flush submitted at `from` was acknowledged.
    pub fn flushed(&mut self, from: u64) {
        for record in self.sectors.iter_mut().flatten() {
            if record.good && record.done.is_some_and(|d| d < from) {
                record.durable = true;
            }
        }
    }

    /// May a read that begins at `at` return this? After a power cut only durable writes count as
    /// having replaced something.
    pub fn legal(&self, sector: usize, value: u64, at: u64, power_cut: bool) -> bool {
        let records = &self.sectors[sector];
        let shown = |r: &&Record| r.value == value && (power_cut || !r.hidden);
        records.iter().filter(shown).any(|r| {
            !records.iter().any(|w| {
                w.good
                    && (w.durable || !power_cut)
                    && w.done.is_some_and(|d| d < at)
                    && r.done.is_some_and(|d| w.from > d)
            })
        })
    }

    /// After a crash: what was in flight may or may not have happened, nothing else changes.
    pub fn crash(&mut self, power_cut: bool, now: u64) {
        self.crashed = now;
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
            self.sectors[sector] = values.into_iter().map(Self::base).collect();
        }
    }

    /// Somebody saw this: where nothing was written since the crash, all must see it from now on.
    pub fn seen(&mut self, sector: usize, value: u64) {
        let records = &mut self.sectors[sector];
        if self.crashed > 0 && records.iter().all(|r| r.from < self.crashed) {
            for record in records {
                record.hidden |= record.value != value;
            }
        }
    }
}
