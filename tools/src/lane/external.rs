//! Requests that do not come from a client: the feed's, and reads of the control plane.

use super::LaneError;
use super::command::{Done, FeedWork, Reply};
use super::thread::{Lane, Requester};
use blockio::{ByteRange, Flags, IoError, Op, Origin, PayloadId};
use ringio::{BufMut, BufSlice, MAX_SLICE};
use volmgr::engine::PlexId;

/// Requests of the feed under way before the lane takes more.
const IN_FLIGHT_MAX: usize = 64;

/// A request of the feed, cut into what a slice holds.
pub(super) struct Job {
    pieces: usize,
    all_cut: bool,
    result: Result<(), IoError>,
    done: Done,
}

/// A write that is not all submitted yet.
pub(super) struct Cutting {
    job: usize,
    range: ByteRange,
    flags: Flags,
    bytes: Vec<u8>,
    /// Bytes submitted.
    cut: usize,
}

impl Lane {
    /// Takes on work of the feed, in order; says whether it did any.
    pub(super) fn pump_work(&mut self) -> bool {
        if let Some(cutting) = self.cutting.take() {
            return self.cut(cutting);
        }
        if self.jobs.len() + self.grants_len() >= IN_FLIGHT_MAX {
            return false;
        }
        let Ok(work) = self.inbox.work.try_recv() else {
            return false;
        };
        match work {
            FeedWork::Begin { range, reply } => self.begin_grant(range, reply),
            FeedWork::Submit {
                op,
                range,
                flags,
                bytes,
                done,
            } => {
                let job = self.jobs.insert(Job {
                    pieces: 0,
                    all_cut: false,
                    result: Ok(()),
                    done,
                });
                if op == Op::Write && !bytes.is_empty() {
                    return self.cut(Cutting {
                        job,
                        range,
                        flags,
                        bytes,
                        cut: 0,
                    });
                }
                self.jobs[job].pieces += 1;
                self.jobs[job].all_cut = true;
                let payload = None;
                self.submit(
                    Requester::Job { job, payload },
                    op,
                    range,
                    flags,
                    Origin::Feed,
                );
            }
        }
        true
    }

    /// Submits the next piece; without memory, the write waits and all behind it.
    fn cut(&mut self, mut cutting: Cutting) -> bool {
        let len = (cutting.bytes.len() - cutting.cut).min(MAX_SLICE);
        let Some(mut buf) = self.alloc(len, super::thread::Waiter::Feed) else {
            self.cutting = Some(cutting);
            return false;
        };
        let bytes = &cutting.bytes[cutting.cut..cutting.cut + len];
        buf.as_mut().copy_from_slice(bytes);
        let payload = Some(self.payloads.add_ready(buf.freeze()));
        let start = cutting.range.start() + cutting.cut as u64;
        let range = ByteRange::new(start, len as u64);
        cutting.cut += len;
        let job = cutting.job;
        self.jobs[job].pieces += 1;
        self.jobs[job].all_cut = cutting.cut == cutting.bytes.len();
        let flags = cutting.flags;
        if !self.jobs[job].all_cut {
            self.cutting = Some(cutting);
        }
        self.submit(
            Requester::Job { job, payload },
            Op::Write,
            range,
            flags,
            Origin::Feed,
        );
        true
    }

    /// A piece of a job is done.
    pub(super) fn job_done(&mut self, job: usize, result: Result<(), IoError>) {
        let Some(state) = self.jobs.get_mut(job) else {
            return;
        };
        state.pieces -= 1;
        state.result = state.result.and(result);
        if state.all_cut && state.pieces == 0 {
            let state = self.jobs.remove(job);
            state.done.call(state.result);
        }
    }

    /// Memory for a read of the control plane, which reads one piece at a time: it need not queue
    /// for it.
    fn control_payload(&mut self, len: usize) -> Result<PayloadId, LaneError> {
        let buf = match self.pool.alloc(len) {
            Some(buf) => buf,
            None => BufMut::standalone(len)?,
        };
        Ok(self.payloads.add_empty(buf))
    }

    /// A read for the control plane.
    pub(super) fn read_for(&mut self, range: ByteRange, reply: Reply<BufSlice>) {
        match self.control_payload(range.len() as usize) {
            Ok(payload) => self.submit(
                Requester::Read { payload, reply },
                Op::Read,
                range,
                Flags::empty(),
                Origin::Internal,
            ),
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    /// A read of several plexes for the control plane.
    pub(super) fn read_plexes_for(
        &mut self,
        range: ByteRange,
        plexes: Vec<PlexId>,
        reply: Reply<BufSlice>,
    ) {
        match self.control_payload(range.len() as usize * plexes.len()) {
            Ok(payload) => {
                let request = self.request(
                    Requester::Read { payload, reply },
                    Op::Read,
                    range,
                    Flags::empty(),
                    Origin::Internal,
                    Some(payload),
                );
                self.engine.read_plexes(request, plexes, &mut self.out);
                self.take_out();
            }
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    /// Plexes made equal to one of them for the control plane.
    pub(super) fn rewrite_for(
        &mut self,
        range: ByteRange,
        from: PlexId,
        to: Vec<PlexId>,
        reply: Reply<BufSlice>,
    ) {
        match self.control_payload(range.len() as usize) {
            Ok(payload) => {
                let request = self.request(
                    Requester::Read { payload, reply },
                    Op::Write,
                    range,
                    Flags::empty(),
                    Origin::Internal,
                    Some(payload),
                );
                self.engine.rewrite(request, from, to, &mut self.out);
                self.take_out();
            }
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    /// A read for the control plane is done.
    pub(super) fn read_done(
        &mut self,
        payload: PayloadId,
        reply: Reply<BufSlice>,
        result: Result<(), IoError>,
    ) {
        let bytes = result.and_then(|()| self.payloads.share(payload));
        self.answer(reply, bytes.map_err(LaneError::from));
    }
}
