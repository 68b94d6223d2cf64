//! What happens to a volume that is being restored.

use super::*;

impl RestoreWorld {
    pub(super) fn client(&mut self) {
        let hot = self.rng.chance(40);
        let start = self.rng.below(if hot { 20 } else { SECTORS as u64 });
        let long = self.rng.chance(25);
        let mut len = 1 + self.rng.below(if long { 40 } else { 6 });
        let mut start = start;
        if self.rng.chance(30) {
            start -= start % PER_REGION;
            len = len.next_multiple_of(PER_REGION);
        }
        let len = len.min(SECTORS as u64 - start);
        let range = ByteRange::new(start * SECTOR, len * SECTOR);
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, self.rng.chance(20));
        let op = match self.rng.below(20) {
            0..=7 => Op::Read,
            8..=15 => Op::Write,
            16 => Op::WriteZeroes,
            17 => Op::Discard,
            _ => Op::Flush,
        };
        let range = if op == Op::Flush {
            ByteRange::default()
        } else {
            range
        };
        let request = self.request(op, range, Origin::Client, flags);
        let (token, at) = (self.next, self.step);
        match op {
            Op::Read => {
                self.payloads.insert(token, vec![u64::MAX; len as usize]);
                let payload = PayloadId(token);
                self.asked.insert(token, Asked::Read { range, at, payload });
            }
            Op::Flush => {
                self.asked.insert(token, Asked::Flush { at });
            }
            _ => {
                let value = if op == Op::Write { token } else { 0 };
                self.payloads.insert(token, vec![token; len as usize]);
                self.history.submit(sectors(range), value, token, at);
                self.asked.insert(token, Asked::Write { flags });
            }
        }
        self.call(|e, out| e.submit(request, out));
    }

    /// The peer does the next thing.
    pub(super) fn serve(&mut self) {
        if !self.peer.online {
            // The sink tells what it misses; the peer adds what it knows.
            let map = self.engine().feed_map(FeedId(SLOT)).expect("a map").clone();
            self.peer
                .map
                .extend((0..map.regions()).filter(|n| map.is_set(*n)));
            self.peer.todo.clone_from(&self.peer.map);
            self.peer.online = true;
            return;
        }
        if self.rng.chance(20) && !self.peer.written.is_empty() {
            let regions = std::mem::take(&mut self.peer.written);
            let session = self.peer.session;
            let request = self.request(
                Op::Flush,
                ByteRange::default(),
                Origin::Feed,
                Flags::empty(),
            );
            self.asked
                .insert(self.next, Asked::PeerFlush { regions, session });
            return self.call(|e, out| e.submit(request, out));
        }
        let wanted = self.peer.first.pop_front();
        let wanted = wanted.filter(|n| self.peer.todo.contains(n));
        let any = {
            let all: Vec<u64> = self.peer.todo.iter().copied().collect();
            let n = self.rng.below(all.len().max(1) as u64) as usize;
            all.get(n).copied()
        };
        // A source that is told to repair, or whose map says more than is missing, sends again.
        let again = self
            .rng
            .chance(10)
            .then(|| self.rng.below(SIZE.div_ceil(REGION)));
        let Some(n) = again.or(wanted).or(any) else {
            return;
        };
        if self.peer.parts.contains_key(&n) {
            return;
        }
        self.peer.todo.remove(&n);
        self.peer.written.remove(&n);
        self.send(n);
    }

    pub(super) fn send(&mut self, n: u64) {
        let whole = region(n);
        let count = (whole.len() / SECTOR).min(1 + self.rng.below(3));
        let size = (whole.len() / SECTOR / count) * SECTOR;
        self.peer.parts.insert(n, (count, true));
        let mut parts: Vec<ByteRange> = (0..count)
            .map(|i| {
                let start = whole.start() + i * size;
                let end = if i + 1 == count {
                    whole.end()
                } else {
                    start + size
                };
                ByteRange::new(start, end - start)
            })
            .collect();
        if self.rng.chance(50) {
            parts.reverse();
        }
        for part in parts {
            let request = self.request(Op::Write, part, Origin::Feed, Flags::empty());
            let token = self.next;
            let delegated = self.rng.chance(30).then_some(part);
            self.payloads
                .insert(token, self.remote[sectors(part)].to_vec());
            let session = self.peer.session;
            let asked = Asked::Brought {
                region: n,
                session,
                delegated,
            };
            self.asked.insert(token, asked);
            self.call(|e, out| e.submit(request, out));
        }
    }

    /// The connection breaks. A write whose bytes were on their way from the socket leaves anything.
    pub(super) fn cut(&mut self) {
        let session = self.peer.session;
        self.peer = Peer {
            session: session + 1,
            map: std::mem::take(&mut self.peer.map),
            ..Peer::default()
        };
        let mut broken = Vec::new();
        for (token, asked) in &self.asked {
            if let Asked::Brought {
                delegated: Some(part),
                ..
            } = asked
            {
                // Its bytes are being moved, and no plex has more of them than another.
                let left = |disk: u32| {
                    let of = |job: &Job| match job {
                        Job::Disk(io, _) if io.payload.is_some_and(|p| p.id.0 == *token) => {
                            (io.at.disk.0 == disk).then_some(io.at.range)
                        }
                        _ => None,
                    };
                    let mut left: Vec<ByteRange> = self.jobs.iter().filter_map(of).collect();
                    left.sort();
                    left
                };
                let all = (0..self.disks.len() as u32).map(left);
                let all: Vec<Vec<ByteRange>> = all.collect();
                if !all[0].is_empty() && all.iter().all(|l| *l == all[0]) {
                    broken.push((*token, *part));
                }
            }
        }
        for (token, part) in broken {
            if let Some(bytes) = self.payloads.get_mut(&token) {
                bytes.fill(3_000_000);
                self.dropped += 1;
                self.call(|e, _| e.spoil(part));
            }
        }
    }

    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        let power = self.rng.chance(50);
        for job in std::mem::take(&mut self.jobs) {
            if !self.rng.chance(60) {
                continue;
            }
            match job {
                Job::Disk(io, mark) => self.disk_io(&io, mark, 50),
                Job::Log(io) => {
                    let done = self.rng.below(9) as usize;
                    self.log_io(&io, done);
                }
                Job::Commit(_) => {}
            }
        }
        if power {
            for disk in &mut self.disks {
                disk.power_cut(&mut self.rng);
            }
        }
        self.history.crash(power, self.step);
        self.asked.clear();
        self.payloads.clear();
        self.cut();
        // Its requests die with it: their tickets are nobody's duty any more.
        std::mem::forget(self.engine.take());
        self.step += 1;
        self.start(Some(SLOT));
    }

    pub(super) fn tick(&mut self) {
        self.ms += 1 + self.rng.below(60);
        let ms = self.ms;
        self.call(|e, out| e.tick(ms, out));
    }
}
