//! Feed actions into outlets, and the commands about feeds.

use super::LaneError;
use super::command::Reply;
use super::outlet::{BulkOp, FeedOutlet, LiveBytes, LiveOp, PayloadPipe};
use super::thread::{Lane, Tag};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use ringio::Source;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use volmgr::engine::{DiskId, FeedCopy, FeedId, FeedIo, IoId};

/// How long an update of the log may take before the one who asked for it is told.
const DURABLE_MAX: Duration = Duration::from_secs(30);

/// How long the dirty-region log may take to be clean; what takes longer is in use, or broken.
const CLEAN_MAX: Duration = Duration::from_secs(2);

/// What has to be in the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Durable {
    /// The maps as they were at this barrier.
    Maps(u64),
    /// Nothing that was written before.
    Clean,
    /// That nothing is missing any more of an online restore.
    Restore,
}

/// A mark on its way.
pub(super) struct Mark {
    feed: FeedId,
    point: Uuid,
    detach: bool,
    reply: Reply<()>,
}

/// A write into a feed's pipe, under way.
pub(super) struct Piped {
    pipe: Arc<dyn PayloadPipe>,
    len: u64,
}

impl Lane {
    pub(super) fn perform_feed(&mut self, io: FeedIo) {
        self.meters.feed_sent(io.io, io.feed, true, io.range.len());
        if let Err(error) = self.try_feed(&io) {
            self.results.push_back((io.io, Err(error)));
        }
    }

    fn try_feed(&mut self, io: &FeedIo) -> Result<(), IoError> {
        let congested = IoError::new(IoErrorKind::Congested);
        let gone = IoError::new(IoErrorKind::Gone);
        let len = io.range.len();
        let pipe = self.outlets.get(&io.feed).ok_or(gone)?.pipe();
        let mut piped = None;
        let bytes = match io.payload {
            None => None,
            Some(payload) => match (self.payloads.kernel(payload.id), pipe) {
                (None, _) => {
                    let bytes = self.payloads.share_part(payload.id, payload.skip, len)?;
                    Some(LiveBytes::Memory(bytes))
                }
                (Some(kernel), Some(pipe)) => {
                    let invalid = IoError::new(IoErrorKind::Invalid);
                    let slot = kernel.slot.part(payload.skip, len).ok_or(invalid)?;
                    if !pipe.reserve(len) {
                        return Err(congested);
                    }
                    piped = Some((pipe, slot));
                    Some(LiveBytes::Piped(len))
                }
                (Some(kernel), None) => {
                    let mut buf = self.pool.alloc(len as usize).ok_or(congested)?;
                    self.copy_from_request(kernel.tag, payload.skip, buf.as_mut())?;
                    Some(LiveBytes::Memory(buf.freeze()))
                }
            },
        };
        let op = LiveOp {
            io: io.io,
            op: io.op,
            range: io.range,
            flags: io.flags,
            bytes,
            mark: None,
        };
        let outlet = self.outlets.get_mut(&io.feed).ok_or(gone)?;
        if outlet.try_live(op).is_err() {
            if let Some((pipe, _)) = piped {
                pipe.release(len);
            }
            return Err(congested);
        }
        if let Some((pipe, slot)) = piped {
            // Pushed before the request's last disk operation is done, so before its commit: by
            // then the kernel has begun, and with a file that does not block it has also ended.
            let op = ringio::Op::Write {
                file: pipe.file(),
                at: 0,
                from: Source::Slot(slot),
                done: 0,
                dsync: false,
            };
            self.ring.push(op, Tag::Piped(Piped { pipe, len }));
        }
        Ok(())
    }

    /// A write into a feed's pipe has ended.
    pub(super) fn piped(&mut self, piped: &Piped, result: Result<u32, IoError>) {
        if result.is_ok_and(|written| u64::from(written) == piped.len) {
            return;
        }
        tracing::error!(volume = %self.name, ?result, len = piped.len, "a feed's pipe did not take what it had room for");
        piped.pipe.set_broken();
    }

    pub(super) fn perform_copy(&mut self, copy: FeedCopy) {
        let bytes = copy.range.len();
        self.meters.feed_sent(copy.io, copy.feed, false, bytes);
        let mut segments = Vec::with_capacity(copy.segments.len());
        let mut read = Vec::new();
        for segment in &copy.segments {
            let Some(disk) = self.disks.get(segment.disk) else {
                let gone = IoError::new(IoErrorKind::Gone);
                self.results.push_back((copy.io, Err(gone)));
                return;
            };
            if disk.broken {
                let lost = IoError::new(IoErrorKind::Medium);
                self.results.push_back((copy.io, Err(lost)));
                return;
            }
            if !disk.is_block && !read.contains(&segment.disk) {
                read.push(segment.disk);
            }
            segments.push((Arc::clone(&disk.buffered), segment.range));
        }
        let result = match self.outlets.get_mut(&copy.feed) {
            None => Err(IoError::new(IoErrorKind::Gone)),
            Some(outlet) => outlet
                .copy(BulkOp {
                    io: copy.io,
                    range: copy.range,
                    segments,
                })
                .map_err(|_| IoError::new(IoErrorKind::Congested)),
        };
        match result {
            Ok(()) => drop(self.copies.insert(copy.io, (copy.feed, read))),
            Err(error) => self.results.push_back((copy.io, Err(error))),
        }
    }

    /// The result of an operation that other threads performed. A copy read its disks past this thread:
    /// where one of them has lost its end meanwhile, it may have sent a hole instead of data.
    pub(super) fn performed(&mut self, io: IoId, result: Result<(), IoError>) {
        let read = self.copies.remove(&io).map(|(_, read)| read);
        let read = read.filter(|read| result.is_ok() && !read.is_empty());
        let result = read.map_or(result, |read| {
            self.disks.check_sizes(&self.name);
            let broken = |disk: &DiskId| self.disks.get(*disk).is_none_or(|disk| disk.broken);
            match read.iter().any(broken) {
                true => Err(IoError::new(IoErrorKind::Medium)),
                false => Ok(()),
            }
        });
        self.results.push_back((io, result));
    }

    /// The engine says where in the live stream the mark goes.
    pub(super) fn perform_mark(&mut self, io: IoId, feed: FeedId) {
        let result = match (self.marks.get(&io), self.outlets.get_mut(&feed)) {
            (Some(mark), Some(outlet)) => outlet
                .try_live(LiveOp {
                    io,
                    op: Op::Flush,
                    range: ByteRange::default(),
                    flags: Flags::empty(),
                    bytes: None,
                    mark: Some(mark.point),
                })
                .map_err(|_| IoError::new(IoErrorKind::Congested)),
            _ => Err(IoError::new(IoErrorKind::Gone)),
        };
        if let Err(error) = result {
            self.results.push_back((io, Err(error)));
        }
    }

    pub(super) fn mark(&mut self, feed: FeedId, point: Uuid, detach: bool, reply: Reply<()>) {
        let io = self.engine.mark(feed, detach, &mut self.out);
        match io {
            None => self.answer(reply, Err(LaneError::NoFeed)),
            Some(io) => {
                let mark = Mark {
                    feed,
                    point,
                    detach,
                    reply,
                };
                self.marks.insert(io, mark);
            }
        }
        self.take_out();
    }

    /// An operation has ended that may be a mark.
    pub(super) fn mark_done(&mut self, io: IoId, result: Result<(), IoError>) {
        // Each operation ends here, and marks are rare: not even a hash.
        if self.marks.is_empty() {
            return;
        }
        let Some(mark) = self.marks.remove(&io) else {
            return;
        };
        if result.is_ok() && mark.detach {
            self.outlets.remove(&mark.feed);
        }
        self.answer(mark.reply, result.map_err(Into::into));
    }

    pub(super) fn feed_attach(&mut self, feed: FeedId, outlet: Box<dyn FeedOutlet>) {
        if self.outlets.insert(feed, outlet).is_some() {
            // The old connection was not taken off: what it had in flight is not known.
            self.meters.feed_cut(feed);
            self.engine.feed_offline(feed, &mut self.out);
            self.copies.retain(|_, (of, _)| *of != feed);
        }
        self.engine.feed_online(feed, &mut self.out);
        self.take_out();
    }

    pub(super) fn feed_offline(&mut self, feed: FeedId) {
        self.outlets.remove(&feed);
        self.meters.feed_cut(feed);
        self.copies.retain(|_, (of, _)| *of != feed);
        self.engine.feed_offline(feed, &mut self.out);
        self.take_out();
        let lost: Vec<IoId> = self
            .marks
            .iter()
            .filter(|(_, mark)| mark.feed == feed)
            .map(|(io, _)| *io)
            .collect();
        for io in lost {
            self.mark_done(io, Err(IoError::new(IoErrorKind::Gone)));
        }
    }

    /// Answers once the log is clean; `since`: when that was asked for.
    pub(super) fn clean_log(&mut self, since: Instant, reply: Reply<()>) {
        let barrier = self.engine.clean_log(&mut self.out);
        self.take_out();
        let what = barrier.map_or(Durable::Clean, Durable::Maps);
        self.durables.push((since, what, reply));
    }

    /// Answers once what the maps say now is in the log.
    pub(super) fn when_durable(&mut self, reply: Reply<()>) {
        self.take_out();
        let barrier = self.engine.maps_barrier();
        self.durables
            .push((Instant::now(), Durable::Maps(barrier), reply));
    }

    pub(super) fn check_durables(&mut self) {
        if self.durables.is_empty() {
            return;
        }
        for (since, what, reply) in std::mem::take(&mut self.durables) {
            if let Durable::Clean = what {
                match since.elapsed() > CLEAN_MAX {
                    true => self.answer(reply, Ok(())),
                    false => self.clean_log(since, reply),
                }
                continue;
            }
            let done = match what {
                Durable::Clean => false,
                Durable::Maps(barrier) => self.engine.maps_written(barrier),
                Durable::Restore => self.engine.restore_bytes() == 0,
            };
            if done {
                self.answer(reply, Ok(()));
            } else if since.elapsed() > DURABLE_MAX {
                self.answer(reply, Err(LaneError::LogStuck));
            } else {
                self.durables.push((since, what, reply));
            }
        }
    }
}
