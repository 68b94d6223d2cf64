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
            since: Instant::now(),
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
        let (skip, len) = (
            job.payload.map_or(0, |payload| payload.skip),
            job.range.len(),
        );
        let missing = IoError::new(IoErrorKind::Invalid);
        let op = match (job.op, job.payload) {
            (DiskOp::Read, Some(payload)) => {
                match self.payloads.take(payload.id, skip, len, &self.pool) {
                    Ok(buf) => Op::Read {
                        file,
                        at,
                        into: Target::Pool(buf),
                        done: 0,
                    },
                    Err(error) => return Next::Done(Err(error)),
                }
            }
            (DiskOp::Write, Some(payload)) => {
                match self.payloads.share_part(payload.id, skip, len) {
                    Ok(buf) => Op::Write {
                        file,
                        at,
                        from: Source::Pool(buf),
                        done: 0,
                        dsync: job.flags.contains(Flags::FUA),
                    },
                    Err(error) => return Next::Done(Err(error)),
                }
            }
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
            since: Instant::now(),
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
        let buf = self.pool.alloc(log.bytes.len()).map_or_else(
            || BufMut::standalone(log.bytes.len()).map_err(|_| IoError::from_errno(libc::ENOMEM)),
            Ok,
        );
        let mut buf = buf?;
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
        match (op, job.step) {
            (
                Op::Read {
                    file,
                    at,
                    into: Target::Pool(buf),
                    done,
                },
                _,
            ) => match progress(done, buf.len(), result) {
                Ok(done) if done < buf.len() => Next::Push(
                    Op::Read {
                        file,
                        at,
                        into: Target::Pool(buf),
                        done,
                    },
                    Step::Plain,
                ),
                ended => {
                    if matches!(result, Ok(0)) {
                        self.disks.check_sizes(&self.name);
                    }
                    if let Some(payload) = job.payload {
                        self.payloads.put(payload.id, payload.skip, buf);
                    }
                    Next::Done(ended.map(drop))
                }
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
        // What a disk cannot do by itself is done in another way: no failure, and nothing done yet.
        if result.map_err(|error| error.kind()) != Err(IoErrorKind::Unsupported) {
            let took = Some(job.since.elapsed());
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
