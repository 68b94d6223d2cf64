//! Delegated writes: the engine orders, logs and accounts for them, somebody else moves the bytes.
//!
//! ```text
//!  begin --> Waiting --disk actions--> Granted --results--> Reported --Complete--> gone
//!                                         |                    ^
//!                                         +--given up--> Equalising
//! ```
//!
//! A delegated write that was given up half way has left its plexes with different parts of it.
//! *Equalising* copies the range as the first whole plex has it now to the others: each block is
//! then old or new on all of them, as after any write that a crash interrupted.

use super::command::{Done, GrantSegment, WriteGrant};
use super::thread::{Lane, Requester, Tag};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op as DeviceOp, Origin, Payload, PayloadId};
use ringio::{BufMut, Completed, MAX_SLICE, Op, Source, Target};
use std::fs::{File, OpenOptions};
use std::sync::Arc;
use volmgr::engine::{DiskIo, DiskOp, IoId};

type GrantReply = Box<dyn FnOnce(Result<WriteGrant, IoError>) + Send>;

/// What one plex gets of the write.
#[derive(Default)]
struct Part {
    ios: Vec<IoId>,
    segments: Vec<GrantSegment>,
    /// Bytes of the range that the segments cover.
    covered: u64,
    /// Bytes of it that the plex does not want.
    gaps: u64,
}

/// A delegated write.
pub(super) struct Grant {
    range: ByteRange,
    payload: PayloadId,
    parts: Vec<Part>,
    /// Until it is granted.
    reply: Option<GrantReply>,
    /// Once it is reported.
    done: Option<Done>,
    abandoned: bool,
    /// The engine wanted none of it and is done with it.
    unwanted: bool,
    /// Where the gaps go.
    nowhere: Arc<File>,
}

/// One copy of equalising: from the first place to all others, which hold the same bytes.
pub(super) struct Copy {
    len: usize,
    from: (Arc<File>, u64),
    to: Vec<(Arc<File>, u64)>,
}

/// Equalising under way.
pub(super) struct Equalise {
    grant: u64,
    copies: std::vec::IntoIter<Copy>,
    /// Targets of the current copy that are still to be written.
    to: Vec<(Arc<File>, u64)>,
    error: Option<IoError>,
    /// The plex that is copied from.
    source: usize,
}

impl Lane {
    pub(super) fn grants_len(&self) -> usize {
        self.grants.len()
    }

    pub(super) fn begin_grant(&mut self, range: ByteRange, reply: GrantReply) {
        let nowhere = OpenOptions::new().write(true).read(true).open("/dev/null");
        let (Ok(nowhere), Ok(len)) = (nowhere, usize::try_from(range.len())) else {
            return reply(Err(IoError::new(IoErrorKind::Invalid)));
        };
        self.next_grant += 1;
        let id = self.next_grant;
        let payload = self.payloads.add_elsewhere(len, id);
        self.grants.insert(
            id,
            Grant {
                range,
                payload,
                parts: Vec::new(),
                reply: Some(reply),
                done: None,
                abandoned: false,
                unwanted: false,
                nowhere: Arc::new(nowhere),
            },
        );
        self.submit_with(
            Requester::Grant { id },
            DeviceOp::Write,
            range,
            Flags::empty(),
            Origin::Feed,
            Some(payload),
        );
    }

    /// A disk action of a delegated write. The engine emits a plex's pieces in order.
    pub(super) fn delegate(&mut self, id: u64, io: DiskIo, payload: Payload) {
        let invalid = Err(IoError::new(IoErrorKind::Invalid));
        let file = self.disks.get(io.at.disk).map(|disk| &disk.buffered);
        let (Some(grant), Some(file)) = (self.grants.get_mut(&id), file) else {
            self.results.push_back((io.io, invalid));
            return;
        };
        if io.op != DiskOp::Write || grant.reply.is_none() {
            // Bytes that are in a socket can be written once, now.
            self.results.push_back((io.io, invalid));
            return;
        }
        let starts_plex = grant
            .parts
            .last()
            .is_none_or(|part| payload.skip < part.covered);
        if starts_plex {
            grant.parts.push(Part::default());
        }
        let nowhere = Arc::clone(&grant.nowhere);
        if let Some(part) = grant.parts.last_mut() {
            part.pad(payload.skip, &nowhere);
            part.ios.push(io.io);
            part.segments.push(GrantSegment {
                file: Arc::clone(file),
                range: io.at.range,
            });
            part.covered += io.at.range.len();
        }
        // The receiver moves the bytes: how long that takes is not known here.
        self.meters
            .disk(io.at.disk, io.op, io.at.range, Ok(()), None);
        self.granted.push(id);
    }

    /// The engine has said all it wants of these writes: tell who waits for them.
    pub(super) fn hand_out_grants(&mut self) -> bool {
        let mut any = false;
        for id in std::mem::take(&mut self.granted) {
            let Some(grant) = self.grants.get_mut(&id) else {
                continue;
            };
            // Each disk action has put the id there; the first one here counts.
            let Some(reply) = grant.reply.take() else {
                continue;
            };
            any = true;
            let len = grant.range.len();
            for part in &mut grant.parts {
                part.pad(len, &grant.nowhere);
            }
            reply(Ok(WriteGrant {
                id,
                range: grant.range,
                plexes: grant
                    .parts
                    .iter()
                    .map(|part| part.segments.clone())
                    .collect(),
            }));
        }
        any
    }

    /// The one who was granted the write reports.
    pub(super) fn grant_ended(
        &mut self,
        id: u64,
        results: Option<Vec<Result<(), IoError>>>,
        done: Done,
    ) {
        let Some(grant) = self.grants.get_mut(&id) else {
            return done.call(Err(IoError::new(IoErrorKind::Invalid)));
        };
        if grant.done.is_some() {
            return done.call(Err(IoError::new(IoErrorKind::Invalid)));
        }
        if grant.unwanted {
            if let Some(grant) = self.grants.remove(&id) {
                self.payloads.remove(grant.payload);
            }
            return done.call(match results {
                Some(_) => Ok(()),
                None => Err(IoError::new(IoErrorKind::Cancelled)),
            });
        }
        grant.done = Some(done);
        match results {
            Some(results) => self.report(id, &results),
            None => {
                grant.abandoned = true;
                // What an online restore was to get by it has not come.
                self.engine.spoil(grant.range);
                self.equalise(id);
            }
        }
    }

    /// Tells the engine each plex's result; a plex without one has failed.
    fn report(&mut self, id: u64, results: &[Result<(), IoError>]) {
        let Some(grant) = self.grants.get(&id) else {
            return;
        };
        for (number, part) in grant.parts.iter().enumerate() {
            let result = results
                .get(number)
                .copied()
                .unwrap_or(Err(IoError::new(IoErrorKind::Medium)));
            self.results.extend(part.ios.iter().map(|io| (*io, result)));
        }
    }

    /// The request has been completed.
    pub(super) fn grant_done(&mut self, id: u64, result: Result<(), IoError>) {
        if result.is_ok() && self.grants.get(&id).is_some_and(|g| g.reply.is_some()) {
            return self.grant_unwanted(id);
        }
        let Some(grant) = self.grants.remove(&id) else {
            return;
        };
        self.payloads.remove(grant.payload);
        if let Some(reply) = grant.reply {
            // Refused before it came to any disk.
            return reply(Err(result.err().unwrap_or(IoError::new(IoErrorKind::Gone))));
        }
        if let Some(done) = grant.done {
            done.call(if grant.abandoned {
                result.and(Err(IoError::new(IoErrorKind::Cancelled)))
            } else {
                result
            });
        }
    }

    /// The engine wants nothing of it: its bytes have to leave the socket all the same.
    fn grant_unwanted(&mut self, id: u64) {
        let Some(grant) = self.grants.get_mut(&id) else {
            return;
        };
        grant.unwanted = true;
        let len = grant.range.len();
        if let Some(reply) = grant.reply.take() {
            let nowhere = GrantSegment {
                file: Arc::clone(&grant.nowhere),
                range: ByteRange::new(0, len),
            };
            reply(Ok(WriteGrant {
                id,
                range: grant.range,
                plexes: vec![vec![nowhere]],
            }));
        }
    }

    fn equalise(&mut self, id: u64) {
        let Some(grant) = self.grants.get(&id) else {
            return;
        };
        // The plex that wants most of it; where an online restore drops a part, no plex wants all.
        let parts = grant.parts.iter().enumerate();
        let source = parts.min_by_key(|(_, part)| part.gaps);
        let source = source.map_or(0, |(number, _)| number);
        let copies = copies(grant, source);
        self.next_copy(Equalise {
            grant: id,
            copies: copies.into_iter(),
            to: Vec::new(),
            error: None,
            source,
        });
    }

    fn next_copy(&mut self, mut job: Equalise) {
        let plexes = self
            .grants
            .get(&job.grant)
            .map_or(0, |grant| grant.parts.len());
        if let Some(error) = job.error {
            // One plex keeps what it has; what cannot be made equal to it has failed.
            let mut results = vec![Err(error); plexes];
            if let Some(source) = results.get_mut(job.source) {
                *source = Ok(());
            }
            return self.report(job.grant, &results);
        }
        let Some(copy) = job.copies.next() else {
            return self.report(job.grant, &vec![Ok(()); plexes]);
        };
        let (file, at) = copy.from;
        job.to = copy.to;
        match BufMut::standalone(copy.len) {
            Ok(buf) => {
                let op = Op::Read {
                    file: file.into(),
                    at,
                    into: Target::Pool(buf),
                    done: 0,
                };
                self.ring.push(op, Tag::Equalise(job));
            }
            Err(_) => {
                job.error = Some(IoError::from_errno(libc::ENOMEM));
                self.next_copy(job);
            }
        }
    }

    pub(super) fn equalise_completed(&mut self, completed: Completed<Tag>, mut job: Equalise) {
        let moved = match completed.result {
            Ok(0) => Err(IoError::new(IoErrorKind::Medium)),
            Ok(moved) => Ok(moved as usize),
            Err(error) => Err(error),
        };
        let buf = match (completed.op, moved) {
            (_, Err(error)) => {
                job.error = Some(error);
                return self.next_copy(job);
            }
            (
                Op::Read {
                    file,
                    at,
                    into,
                    done,
                },
                Ok(moved),
            ) if done + moved < into.len() => {
                let done = done + moved;
                let op = Op::Read {
                    file,
                    at,
                    into,
                    done,
                };
                self.ring.push(op, Tag::Equalise(job));
                return;
            }
            (
                Op::Read {
                    into: Target::Pool(buf),
                    ..
                },
                Ok(_),
            ) => buf.freeze(),
            (
                Op::Write {
                    file,
                    at,
                    from,
                    done,
                    dsync,
                },
                Ok(moved),
            ) if done + moved < from.len() => {
                let done = done + moved;
                let op = Op::Write {
                    file,
                    at,
                    from,
                    done,
                    dsync,
                };
                self.ring.push(op, Tag::Equalise(job));
                return;
            }
            (
                Op::Write {
                    from: Source::Pool(buf),
                    ..
                },
                Ok(_),
            ) => buf,
            (other, Ok(_)) => unreachable!("equalising does not {other:?}"),
        };
        let Some((file, at)) = job.to.pop() else {
            return self.next_copy(job);
        };
        let op = Op::Write {
            file: file.into(),
            at,
            from: Source::Pool(buf),
            done: 0,
            dsync: false,
        };
        self.ring.push(op, Tag::Equalise(job));
    }
}

impl Part {
    /// Covers what is missing up to `until` with nothing.
    fn pad(&mut self, until: u64, nowhere: &Arc<File>) {
        if until > self.covered {
            self.gaps += until - self.covered;
            self.segments.push(GrantSegment {
                file: Arc::clone(nowhere),
                range: ByteRange::new(0, until - self.covered),
            });
            self.covered = until;
        }
    }

    /// Where byte `at` of the range lies, and how many follow it in the same segment.
    fn place(&self, at: u64) -> Option<(&Arc<File>, u64, u64)> {
        let mut before = 0;
        for segment in &self.segments {
            let len = segment.range.len();
            if at < before + len {
                let skip = at - before;
                return Some((&segment.file, segment.range.start() + skip, len - skip));
            }
            before += len;
        }
        None
    }
}

/// The copies that make all plexes equal to this one.
fn copies(grant: &Grant, source: usize) -> Vec<Copy> {
    let mut copies = Vec::new();
    if grant.parts.len() < 2 {
        return copies;
    }
    let mut at = 0;
    while at < grant.range.len() {
        let Some((file, start, mut len)) = grant.parts[source].place(at) else {
            break;
        };
        let mut to = Vec::new();
        for (number, part) in grant.parts.iter().enumerate() {
            if number == source {
                continue;
            }
            let Some((file, start, run)) = part.place(at) else {
                continue;
            };
            len = len.min(run);
            if !Arc::ptr_eq(file, &grant.nowhere) {
                to.push((Arc::clone(file), start));
            }
        }
        let len = len.min(MAX_SLICE as u64);
        if Arc::ptr_eq(file, &grant.nowhere) {
            // Nobody wants this part.
            at += len;
            continue;
        }
        copies.push(Copy {
            len: len as usize,
            from: (Arc::clone(file), start),
            to,
        });
        at += len;
    }
    copies
}
