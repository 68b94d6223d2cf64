//! Disk actions, performed on the ring.

use super::disk::Disk;
use super::thread::{Lane, Tag};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Payload};
use ringio::{BufMut, BufSlice, Completed, FallocateMode, MAX_SLICE, Op, Source, Target};
use std::time::Instant;
use tracing::Span;
use volmgr::engine::{DiskId, DiskIo, DiskOp, IoId, LogIo};

/// How an operation is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The operation itself.
    Plain,
    /// `fallocate` in this mode.
    Fallocate(FallocateMode),
    /// Zeroes written out; those before this offset of the disk are done.
    Zeroes(u64),
    /// Made durable in the end.
    Sync,
    /// Read into memory of the lane, to be copied into the request's pages.
    Bounced,
}

/// A disk action under way.
#[derive(Debug)]
pub(super) struct DiskJob {
    io: IoId,
    disk: DiskId,
    op: DiskOp,
    range: ByteRange,
    flags: Flags,
    payload: Option<Payload>,
    step: Step,
    since: Instant,
    /// For those who trace; else it costs nothing.
    span: Span,
}

/// What comes after a step.
enum Next {
    Push(Op, Step),
    Done(Result<(), IoError>),
}

impl Lane {
    pub(super) fn perform_disk(&mut self, io: DiskIo) {
        if let Some(payload) = io.payload
            && let Some(grant) = self.payloads.delegated(payload.id)
        {
            return self.delegate(grant, io, payload);
        }
        let mut job = DiskJob {
            io: io.io,
            disk: io.at.disk,
            op: io.op,
            range: io.at.range,
            flags: io.flags,
            payload: io.payload,
            step: Step::Plain,
            since: self.now,
            span: self.disk_span(io.op, io.at.disk, io.at.range),
        };
        match self.first_step(&mut job) {
            Next::Push(op, step) => {
                job.step = step;
                self.ring.push(op, Tag::Disk(job));
            }
            Next::Done(result) => self.disk_done(&job, result),
        }
    }

    fn first_step(&mut self, job: &mut DiskJob) -> Next {
        let Some(disk) = self.disks.get(job.disk) else {
            return Next::Done(Err(IoError::new(IoErrorKind::Gone)));
        };
        if let Some(fault) = disk.fault(job.op, job.range) {
            return Next::Done(Err(fault));
        }
        let file = disk.io.clone();
        let at = job.range.start();
        let len = job.range.len();
        let missing = IoError::new(IoErrorKind::Invalid);
        let op = match (job.op, job.payload) {
            (DiskOp::Read, Some(payload)) => match self.target(payload, len) {
                Ok(into) => Op::Read {
                    file,
                    at,
                    into,
                    done: 0,
                },
                Err(error) => return Next::Done(Err(error)),
            },
            (DiskOp::Write, Some(payload)) => match self.source(payload, len) {
                Ok(from) => Op::Write {
                    file,
                    at,
                    from,
                    done: 0,
                    dsync: job.flags.contains(Flags::FUA),
                },
                Err(error) => return Next::Done(Err(error)),
            },
            (DiskOp::Read | DiskOp::Write, None) => return Next::Done(Err(missing)),
            (DiskOp::Flush, _) => Op::Datasync { file },
            (DiskOp::Prefetch, _) if disk.direct => return Next::Done(Ok(())),
            (DiskOp::Prefetch, _) => Op::WillNeed {
                file,
                range: job.range,
            },
            (DiskOp::Discard, _) => return fallocate(disk, FallocateMode::PunchHole, job.range),
            (DiskOp::WriteZeroes, _) => return first_zeroes(disk, job),
        };
        Next::Push(op, Step::Plain)
    }

    /// Where `len` bytes of a payload are read into.
    fn target(&mut self, payload: Payload, len: u64) -> Result<Target, IoError> {
        match self.payloads.kernel(payload.id) {
            Some(bytes) => bytes
                .slot
                .part(payload.skip, len)
                .map(Target::Slot)
                .ok_or(IoError::new(IoErrorKind::Invalid)),
            None => self
                .payloads
                .take(payload.id, payload.skip, len, &self.pool)
                .map(Target::Pool),
        }
    }

    /// Where `len` bytes of a payload are to be written.
    fn source(&mut self, payload: Payload, len: u64) -> Result<Source, IoError> {
        match self.payloads.kernel(payload.id) {
            Some(bytes) => bytes
                .slot
                .part(payload.skip, len)
                .map(Source::Slot)
                .ok_or(IoError::new(IoErrorKind::Invalid)),
            None => self
                .payloads
                .share_part(payload.id, payload.skip, len)
                .map(Source::Pool),
        }
    }

    /// The disk, or the filesystem below it, does not take a request's own pages: the same through
    /// memory of the lane.
    fn without_slot(&mut self, job: &DiskJob, op: Op) -> Result<(Op, Step), IoError> {
        let invalid = IoError::new(IoErrorKind::Invalid);
        let payload = job.payload.ok_or(invalid)?;
        let tag = self.payloads.kernel(payload.id).ok_or(invalid)?.tag;
        let len = usize::try_from(job.range.len()).map_err(|_| invalid)?;
        let mut buf = self.buffer(len)?;
        match op {
            Op::Read { file, at, .. } => {
                let into = Target::Pool(buf);
                let op = Op::Read {
                    file,
                    at,
                    into,
                    done: 0,
                };
                Ok((op, Step::Bounced))
            }
            Op::Write {
                file, at, dsync, ..
            } => {
                self.copy_from_request(tag, payload.skip, buf.as_mut())?;
                let op = Op::Write {
                    file,
                    at,
                    from: Source::Pool(buf.freeze()),
                    done: 0,
                    dsync,
                };
                Ok((op, Step::Plain))
            }
            _ => Err(invalid),
        }
    }

    /// Memory at once, from the pool or for the occasion.
    pub(super) fn buffer(&self, len: usize) -> Result<BufMut, IoError> {
        self.pool.alloc(len).map_or_else(
            || BufMut::standalone(len).map_err(|_| IoError::from_errno(libc::ENOMEM)),
            Ok,
        )
    }

    /// A log update: its bytes are not in the pool, so that it never waits for requests that wait
    /// for it.
    pub(super) fn perform_log(&mut self, log: LogIo) {
        let job = DiskJob {
            io: log.io,
            disk: log.at.disk,
            op: DiskOp::Write,
            range: log.at.range,
            flags: Flags::FUA,
            payload: None,
            step: Step::Plain,
            since: self.now,
            span: self.disk_span(DiskOp::Write, log.at.disk, log.at.range),
        };
        match self.log_step(&log) {
            Ok(op) => {
                self.ring.push(op, Tag::Disk(job));
            }
            Err(error) => self.disk_done(&job, Err(error)),
        }
    }

    fn log_step(&self, log: &LogIo) -> Result<Op, IoError> {
        let gone = IoError::new(IoErrorKind::Gone);
        let disk = self.disks.get(log.at.disk).ok_or(gone)?;
        if let Some(fault) = disk.fault(DiskOp::Write, log.at.range) {
            return Err(fault);
        }
        if log.bytes.len() as u64 != log.at.range.len() {
            return Err(IoError::new(IoErrorKind::Invalid));
        }
        let mut buf = self.buffer(log.bytes.len())?;
        buf.as_mut().copy_from_slice(&log.bytes);
        Ok(Op::Write {
            file: disk.io.clone(),
            at: log.at.range.start(),
            from: Source::Pool(buf.freeze()),
            done: 0,
            dsync: true,
        })
    }

    /// A step of a disk action has ended.
    pub(super) fn disk_completed(&mut self, completed: Completed<Tag>, mut job: DiskJob) {
        let Completed { op, result, .. } = completed;
        match self.next_step(&job, op, result) {
            Next::Push(op, step) => {
                job.step = step;
                self.ring.push(op, Tag::Disk(job));
            }
            Next::Done(result) => self.disk_done(&job, result),
        }
    }

    fn next_step(&mut self, job: &DiskJob, op: Op, result: Result<u32, IoError>) -> Next {
        let result = result.map_err(disk_error);
        if let Err(error) = result
            && matches!(
                error.kind(),
                IoErrorKind::Invalid | IoErrorKind::Unsupported
            )
            && in_slot(&op)
        {
            return match self.without_slot(job, op) {
                Ok((op, step)) => Next::Push(op, step),
                Err(error) => Next::Done(Err(error)),
            };
        }
        match (op, job.step) {
            (
                Op::Read {
                    file,
                    at,
                    into: Target::Pool(buf),
                    done,
                },
                step,
            ) => match progress(done, buf.len(), result) {
                Ok(done) if done < buf.len() => Next::Push(
                    Op::Read {
                        file,
                        at,
                        into: Target::Pool(buf),
                        done,
                    },
                    step,
                ),
                ended if step == Step::Bounced => {
                    Next::Done(ended.and_then(|_| self.bounced(job, buf.as_ref())))
                }
                ended => {
                    if let Some(payload) = job.payload {
                        self.payloads.put(payload.id, payload.skip, buf);
                    }
                    Next::Done(ended.map(drop))
                }
            },
            (
                Op::Read {
                    file,
                    at,
                    into: Target::Slot(slot),
                    done,
                },
                step,
            ) => match progress(done, slot.len(), result) {
                Ok(done) if done < slot.len() => Next::Push(
                    Op::Read {
                        file,
                        at,
                        into: Target::Slot(slot),
                        done,
                    },
                    step,
                ),
                ended => Next::Done(ended.map(drop)),
            },
            (
                Op::Write {
                    file,
                    at,
                    from,
                    done,
                    dsync,
                },
                step,
            ) => match (progress(done, from.len(), result), step) {
                (Ok(done), _) if done < from.len() => Next::Push(
                    Op::Write {
                        file,
                        at,
                        from,
                        done,
                        dsync,
                    },
                    step,
                ),
                (Ok(done), Step::Zeroes(at)) => self.more_zeroes(job, at + done as u64),
                (ended, _) => Next::Done(ended.map(drop)),
            },
            (_, Step::Fallocate(mode)) => match result {
                Ok(_) => self.end_zeroes(job),
                Err(error) if error.kind() == IoErrorKind::Unsupported => {
                    self.after_refusal(job, mode, error)
                }
                Err(error) => Next::Done(Err(error)),
            },
            // Advice that is not taken is no failure.
            (Op::WillNeed { .. }, _) => Next::Done(Ok(())),
            (_, _) => Next::Done(result.map(drop)),
        }
    }

    /// What was read for a request goes into its pages.
    fn bounced(&mut self, job: &DiskJob, bytes: &[u8]) -> Result<(), IoError> {
        let invalid = IoError::new(IoErrorKind::Invalid);
        let payload = job.payload.ok_or(invalid)?;
        let tag = self.payloads.kernel(payload.id).ok_or(invalid)?.tag;
        self.copy_to_request(tag, payload.skip, bytes)
    }

    /// The disk does not do this kind of `fallocate`.
    fn after_refusal(&self, job: &DiskJob, mode: FallocateMode, error: IoError) -> Next {
        let Some(disk) = self.disks.get(job.disk) else {
            return Next::Done(Err(error));
        };
        if job.op == DiskOp::Discard || job.flags.contains(Flags::FAST_ZERO) {
            return Next::Done(Err(error));
        }
        if mode == FallocateMode::PunchHole {
            return fallocate(disk, FallocateMode::ZeroRange, job.range);
        }
        self.more_zeroes(job, job.range.start())
    }

    /// Zeroes from this offset on, written out.
    fn more_zeroes(&self, job: &DiskJob, at: u64) -> Next {
        let left = job.range.end().saturating_sub(at);
        let Some(disk) = self.disks.get(job.disk) else {
            return Next::Done(Err(IoError::new(IoErrorKind::Gone)));
        };
        if left == 0 {
            return self.end_zeroes(job);
        }
        let len = left.min(MAX_SLICE as u64) as usize;
        let op = Op::Write {
            file: disk.io.clone(),
            at,
            from: Source::Pool(self.zeroes.slice(0, len)),
            done: 0,
            dsync: false,
        };
        Next::Push(op, Step::Zeroes(at))
    }

    fn end_zeroes(&self, job: &DiskJob) -> Next {
        match self.disks.get(job.disk) {
            Some(disk) if job.flags.contains(Flags::FUA) => {
                let file = disk.io.clone();
                Next::Push(Op::Datasync { file }, Step::Sync)
            }
            _ => Next::Done(Ok(())),
        }
    }

    fn disk_span(&self, op: DiskOp, disk: DiskId, range: ByteRange) -> Span {
        tracing::trace_span!(
            target: "volmgr::disk", parent: None, "disk",
            volume = %self.name, disk = disk.0, ?op, offset = range.start(), bytes = range.len(),
            error = tracing::field::Empty,
        )
    }

    fn disk_done(&mut self, job: &DiskJob, result: Result<(), IoError>) {
        let broken = self.disks.get(job.disk).is_some_and(|disk| disk.broken);
        let result = match result {
            // It worked on what is left of the disk: a read may have found a hole instead of data.
            Ok(()) if broken => Err(IoError::new(IoErrorKind::Medium)),
            result => result,
        };
        // What a disk cannot do by itself is done in another way: no failure, and nothing done yet.
        if result.map_err(|error| error.kind()) != Err(IoErrorKind::Unsupported) {
            let took = Some(self.now.saturating_duration_since(job.since));
            self.meters.disk(job.disk, job.op, job.range, result, took);
        }
        if let Err(error) = &result {
            job.span.record("error", tracing::field::display(error));
        }
        if let Err(error) = &result
            && error.kind() != IoErrorKind::Unsupported
        {
            tracing::warn!(
                volume = %self.name, disk = job.disk.0, op = ?job.op, range = ?job.range, %error,
                "disk error"
            );
            if let Some(disk) = self.disks.get_mut(job.disk) {
                disk.errors += 1;
            }
        }
        self.results.push_back((job.io, result));
    }
}

/// Does the operation move a request's own pages?
fn in_slot(op: &Op) -> bool {
    matches!(
        op,
        Op::Read {
            into: Target::Slot(_),
            ..
        } | Op::Write {
            from: Source::Slot(_),
            ..
        }
    )
}

/// Memory that is always zero.
pub(super) fn zeroes() -> Result<BufSlice, ringio::RingError> {
    BufMut::standalone(MAX_SLICE).map(BufMut::freeze)
}

fn fallocate(disk: &Disk, mode: FallocateMode, range: ByteRange) -> Next {
    let op = Op::Fallocate {
        file: disk.io.clone(),
        mode,
        range,
    };
    Next::Push(op, Step::Fallocate(mode))
}

fn first_zeroes(disk: &Disk, job: &DiskJob) -> Next {
    if !job.flags.contains(Flags::NO_UNMAP) {
        return fallocate(disk, FallocateMode::PunchHole, job.range);
    }
    if disk.is_block && job.flags.contains(Flags::FAST_ZERO) {
        // On a device this may write every sector, and does not say so.
        return Next::Done(Err(IoError::new(IoErrorKind::Unsupported)));
    }
    fallocate(disk, FallocateMode::ZeroRange, job.range)
}

/// Bytes done after this step; no progress means that the disk ends here.
fn progress(done: usize, len: usize, result: Result<u32, IoError>) -> Result<usize, IoError> {
    match result? {
        0 if done < len => Err(IoError::new(IoErrorKind::Medium)),
        step => Ok(done + step as usize),
    }
}

/// A disk is never "congested": that word belongs to feeds.
fn disk_error(error: IoError) -> IoError {
    if error.kind() == IoErrorKind::Congested {
        IoError::new(IoErrorKind::Medium)
    } else {
        error
    }
}
