//! What disks, log copies, metadata and sinks do with what they are asked.

use super::*;

impl World {
    /// Lets one of the things in flight happen.
    pub(super) fn progress(&mut self) {
        let live: Vec<usize> = (0..self.sinks.len())
            .filter(|i| !self.sinks[*i].queue.is_empty())
            .collect();
        let n = self.rng.below((self.jobs.len() + live.len()) as u64) as usize;
        if n >= self.jobs.len() {
            if let Some(&sink) = live.get(n - self.jobs.len()) {
                self.receive(sink);
            }
            return;
        }
        let n = match self.jobs[n] {
            // Commits are made in order.
            Job::Commit(..) => self
                .jobs
                .iter()
                .position(|j| matches!(j, Job::Commit(..)))
                .unwrap_or(n),
            _ => n,
        };
        let job = self.jobs.remove(n);
        self.trace(|| match &job {
            Job::Disk(io, _) => format!("  does {:?}", io.io),
            Job::Log(io) => format!("  does {:?}", io.io),
            Job::Commit(io, ..) | Job::Ack(io, _) => format!("  does {io:?}"),
            Job::Bulk(copy, data, _) => format!("  does {:?} {}", copy.io, data.is_some()),
        });
        match job {
            Job::Disk(io, mark) => {
                let result = self.disk_io(&io, mark, 100);
                self.call(|engine, out| engine.io_done(io.io, result, out));
            }
            Job::Log(io) => {
                let result = self.log_io(&io, 8);
                self.call(|engine, out| engine.io_done(io.io, result, out));
            }
            Job::Commit(io, plex, state) => {
                let result = if self.faults && self.rng.chance(10) {
                    Err(IoError::new(IoErrorKind::Medium))
                } else {
                    self.commit(plex, state);
                    Ok(())
                };
                self.call(|engine, out| engine.io_done(io, result, out));
            }
            Job::Bulk(copy, data, session) => self.bulk(copy, data, session),
            Job::Ack(io, _) => self.call(|engine, out| engine.io_done(io, Ok(()), out)),
        }
    }

    pub(super) fn commit(&mut self, plex: PlexId, state: PlexState) {
        let plex = self
            .plexes
            .iter_mut()
            .find(|p| p.id == plex)
            .expect("a plex");
        plex.state = state;
        if state == PlexState::Failed {
            plex.log_valid = false;
        }
    }

    /// Performs it, each sector with this chance (less than 100 where a crash cuts it short).
    pub(super) fn disk_io(&mut self, io: &DiskIo, mark: u64, percent: u64) -> Result<(), IoError> {
        let medium = Err(IoError::new(IoErrorKind::Medium));
        let disk = &mut self.disks[io.at.disk.0 as usize];
        let fua = io.flags.contains(Flags::FUA);
        let skip = io.payload.map_or(0, |p| (p.skip / SECTOR) as usize);
        if disk.dead {
            return medium;
        }
        match io.op {
            DiskOp::Flush => {
                if std::mem::take(&mut disk.fail_flush) {
                    disk.lose_cache(&mut self.rng);
                    return medium;
                }
                if percent == 100 {
                    disk.flush(mark);
                }
            }
            DiskOp::Read => {
                let id = io.payload.expect("a payload").id;
                let into = self.payloads.get_mut(&id.0).expect("payload is alive");
                for (i, sector) in sectors(io.at.range).enumerate() {
                    into[skip + i] = disk.view[sector];
                    if disk.bad.contains(&sector) {
                        self.met_bad = self.step;
                        return medium;
                    }
                }
            }
            DiskOp::Write => {
                let id = io.payload.expect("a payload").id;
                let fails = std::mem::take(&mut disk.fail_write);
                let percent = if fails { 50 } else { percent };
                for (i, sector) in sectors(io.at.range).enumerate() {
                    let value = self.payloads[&id.0][skip + i];
                    if self.rng.chance(percent) {
                        disk.write(sector, value, fua);
                    }
                }
                if fails {
                    return medium;
                }
            }
            DiskOp::WriteZeroes => {
                // Disk 1 writes zeroes out.
                if io.at.disk.0 == 1 && io.flags.contains(Flags::FAST_ZERO) {
                    return Err(IoError::new(IoErrorKind::Unsupported));
                }
                for sector in sectors(io.at.range) {
                    if self.rng.chance(percent) {
                        disk.write(sector, 0, fua);
                    }
                }
            }
            DiskOp::Discard => {
                for sector in sectors(io.at.range) {
                    if self.rng.chance(50) {
                        disk.write(sector, 0, false);
                    }
                }
            }
            DiskOp::Prefetch => {}
        }
        Ok(())
    }

    pub(super) fn log_io(&mut self, io: &LogIo, sectors: usize) -> Result<(), IoError> {
        if self.disks[io.at.disk.0 as usize].dead {
            return Err(IoError::new(IoErrorKind::Medium));
        }
        let plex = self.plexes.iter().position(|p| p.disk == io.at.disk.0);
        let image = &mut self.logs[plex.expect("a log copy")];
        let from = (io.at.range.start() - LOG_AT) as usize;
        let len = (sectors * 512).min(io.bytes.len());
        image[from..from + len].copy_from_slice(&io.bytes[..len]);
        Ok(())
    }

    pub(super) fn bulk(&mut self, copy: FeedCopy, data: Option<Vec<u64>>, session: u64) {
        let io = copy.io;
        if self.sink(copy.feed).session != session {
            return;
        }
        if self.faults && self.rng.chance(3) {
            let kind = [IoErrorKind::Congested, IoErrorKind::Gone][self.rng.below(2) as usize];
            return self.call(|e, out| e.io_done(io, Err(IoError::new(kind)), out));
        }
        let Some(data) = data else {
            let mut data = Vec::new();
            for at in &copy.segments {
                let disk = &self.disks[at.disk.0 as usize];
                for sector in sectors(at.range) {
                    if disk.dead || disk.bad.contains(&sector) {
                        let error = Err(IoError::new(IoErrorKind::Medium));
                        return self.call(|e, out| e.io_done(io, error, out));
                    }
                    data.push(disk.view[sector]);
                }
            }
            assert_eq!(data.len() as u64 * SECTOR, copy.range.len());
            return self.jobs.push(Job::Bulk(copy, Some(data), session));
        };
        let sink = self.sink(copy.feed);
        sink.data[sectors(copy.range)].copy_from_slice(&data);
        let feed = copy.feed;
        self.jobs.push(Job::Ack(io, feed));
    }

    /// The sink takes the next live operation.
    pub(super) fn receive(&mut self, index: usize) {
        let congested = self.faults && self.rng.chance(1);
        let sink = &mut self.sinks[index];
        let feed = sink.id;
        match sink.queue.pop_front() {
            Some(Live::Op(op)) => {
                if congested {
                    // Never sent; nor is anything after it that overlaps, as the engine must not
                    // rely on it.
                    let error = Err(IoError::new(IoErrorKind::Congested));
                    return self.call(|e, out| e.io_done(op.io, error, out));
                }
                match op.op {
                    Op::Write => {
                        let payload = op.payload.expect("a payload");
                        let data = &self.payloads[&payload.id.0];
                        sink.data[sectors(op.range)].copy_from_slice(data_of(data, op.range));
                    }
                    Op::WriteZeroes | Op::Discard => sink.data[sectors(op.range)].fill(0),
                    _ => {}
                }
                self.jobs.push(Job::Ack(op.io, feed));
            }
            Some(Live::Mark(io, step, bulks)) => {
                // A bulk copy since then may have brought something newer.
                if sink.bulks == bulks {
                    self.marks += 1;
                    for sector in 0..SECTORS {
                        let value = self.sinks[index].data[sector];
                        assert!(
                            self.history.legal(sector, value, step, false),
                            "a mark of step {step}: sector {sector} has {value}"
                        );
                    }
                }
                self.jobs.push(Job::Ack(io, feed));
            }
            None => {}
        }
    }
}
