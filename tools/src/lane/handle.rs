//! The daemon's end of a lane.

use super::command::{Done, FeedWork, LaneCommand, Outcome, Reply};
use super::meter::{MeterValues, SharedMeters};
use super::start::start;
use super::thread::Inbox;
use super::wake::Waker;
use super::{
    DiskSpec, DoneFn, FeedOutlet, LaneError, LaneEvent, LaneSpec, LaneStats, NbdClient, UblkQueues,
    WriteGrant,
};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Limits, Op};
use regionmap::RegionMap;
use ringio::{BufSlice, MAX_SLICE};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use volmgr::engine::{FeedId, IoId, PlexId, VolumeLayout};

/// Commands that may wait for the lane.
const COMMANDS_MAX: usize = 1024;
/// Pieces of work of feed receivers that may wait for the lane.
const WORK_MAX: usize = 256;
/// Events that may wait for the control plane before notes are dropped.
const EVENTS_MAX: usize = 1024;

/// Counts the users of a block device.
pub type UsersFn = Arc<dyn Fn() -> u32 + Send + Sync>;

/// What front ends may be told about the volume, kept up to date by the lane.
pub(super) struct Shared {
    pub limits: std::sync::RwLock<Limits>,
    pub opens: AtomicU32,
    /// Payload of clients copied through this process's memory, in bytes.
    pub copied: AtomicU64,
    pub users: std::sync::Mutex<Option<UsersFn>>,
    pub meters: Arc<SharedMeters>,
    /// Writes are copied into memory of the lane before they are submitted.
    pub stable_copy: AtomicBool,
}

// The channels are the standard library's: when the lane goes, what is still in them is dropped,
// and whoever waits for an answer gets to know. crossbeam's bounded channel keeps such messages
// until the last sender has gone, too, which is never.

/// A running lane. Clones talk to the same one; dropping them does not stop it.
#[derive(Clone)]
pub struct LaneHandle {
    commands: SyncSender<LaneCommand>,
    work: SyncSender<FeedWork>,
    outcomes: Sender<Outcome>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
}

impl LaneHandle {
    /// Starts a lane. Blocks while disks are opened and the log is read.
    pub fn start(spec: LaneSpec) -> Result<(Self, mpsc::Receiver<LaneEvent>), LaneError> {
        let (commands, command_inbox) = sync_channel(COMMANDS_MAX);
        let (work, work_inbox) = sync_channel(WORK_MAX);
        let (outcomes, outcome_inbox) = channel();
        let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
        let waker = Waker::new().map_err(|errno| LaneError::Thread(errno.into()))?;
        let waker = Arc::new(waker);
        let inbox = Inbox {
            commands: command_inbox,
            work: work_inbox,
            outcomes: outcome_inbox,
            waker: Arc::clone(&waker),
            events,
        };
        let shared = start(spec, inbox)?;
        let handle = Self {
            commands,
            work,
            outcomes,
            waker,
            shared,
        };
        Ok((handle, event_inbox))
    }

    /// Size, block sizes, abilities: what a front end announces.
    pub fn limits(&self) -> Limits {
        *self
            .shared
            .limits
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// NBD connections that are open.
    pub fn clients(&self) -> u32 {
        self.shared.opens.load(Ordering::Relaxed)
    }

    /// Payload of clients that went through this process's memory, in bytes, once for each copy.
    pub fn copied_bytes(&self) -> u64 {
        self.shared.copied.load(Ordering::Relaxed)
    }

    /// From the next write on: copy its bytes into memory of the lane before plexes and feeds get
    /// them, so that they all get the same even from a program that changes its buffer meanwhile.
    /// Makes a difference in zero-copy mode only; in the others that copy is made in any case.
    pub fn set_stable_copy(&self, on: bool) {
        self.shared.stable_copy.store(on, Ordering::Relaxed);
    }

    /// Are writes copied first?
    pub fn stable_copy(&self) -> bool {
        self.shared.stable_copy.load(Ordering::Relaxed)
    }

    /// NBD connections that are open, and users of the block device.
    pub fn opens(&self) -> u32 {
        let users = self
            .shared
            .users
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        self.clients() + users.map_or(0, |users| users())
    }

    fn send(&self, command: LaneCommand) -> Result<(), LaneError> {
        self.commands
            .send(command)
            .map_err(|_| LaneError::Stopped)?;
        self.waker.wake();
        Ok(())
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> LaneCommand) -> Result<T, LaneError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| LaneError::Stopped)?
    }

    /// Hands over a client. The connection counts as an open until the client goes.
    pub fn add_nbd(&self, client: NbdClient) -> Result<(), LaneError> {
        self.send(LaneCommand::AddNbd(Box::new(client)))
    }

    /// Serves the queues of a ublk device; answers when the fetching of requests has begun, which
    /// starting the device waits for.
    pub async fn add_ublk(&self, queues: UblkQueues) -> Result<(), LaneError> {
        let queues = Box::new(queues);
        self.ask(|reply| LaneCommand::AddUblk { queues, reply })
            .await
    }

    /// Lets go of the ublk device without its being stopped: whoever serves it next gets the
    /// requests that have not been answered.
    pub async fn drop_ublk(&self) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::DropUblk { reply }).await
    }

    /// Who else uses the volume, besides NBD clients: counted by [`LaneHandle::opens`].
    pub fn set_users(&self, users: Option<UsersFn>) {
        *self
            .shared
            .users
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = users;
    }

    /// Changes the volume under way. `disks` begins with the disks in use.
    pub async fn reconfigure(
        &self,
        layout: VolumeLayout,
        disks: Vec<DiskSpec>,
    ) -> Result<(), LaneError> {
        let layout = Box::new(layout);
        self.ask(|reply| LaneCommand::Reconfigure {
            layout,
            disks,
            reply,
        })
        .await
    }

    /// Answers [`LaneEvent::CommitPlexState`].
    pub fn commit_done(&self, io: IoId, result: Result<(), IoError>) {
        self.outcome(Outcome::Io(io, result));
    }

    /// Answers a feed operation, from any thread.
    pub fn feed_done(&self, io: IoId, result: Result<(), IoError>) {
        self.outcome(Outcome::Io(io, result));
    }

    fn outcome(&self, outcome: Outcome) {
        // A lane that has stopped has given up all its operations.
        if self.outcomes.send(outcome).is_ok() {
            self.waker.wake();
        }
    }

    /// The feed is connected: live operations and copies go to `outlet`.
    pub async fn feed_attach(
        &self,
        feed: FeedId,
        outlet: Box<dyn FeedOutlet>,
    ) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::FeedAttach {
            feed,
            outlet,
            reply,
        })
        .await
    }

    /// The feed is cut off: drops its outlet; what it misses is tracked.
    pub async fn feed_offline(&self, feed: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::FeedOffline { feed, reply })
            .await
    }

    /// Stop sending live operations to a feed that stays connected.
    pub async fn feed_behind(&self, feed: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::FeedBehind { feed, reply })
            .await
    }

    /// Whether the content is a moment of one write order: see [`Engine::set_whole`](volmgr::engine::Engine::set_whole).
    pub async fn set_whole(&self, whole: bool) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::SetWhole { whole, reply })
            .await
    }

    /// Catch up again after the feed fell behind.
    pub async fn feed_resume(&self, feed: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::FeedResume { feed, reply })
            .await
    }

    /// Puts a consistent point into the live stream; answers when the sink has everything before
    /// it durable. With `detach` the feed only tracks from there on.
    pub async fn mark(&self, feed: FeedId, point: Uuid, detach: bool) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::Mark {
            feed,
            point,
            detach,
            reply,
        })
        .await
    }

    /// The other side has nothing: everything is to be sent.
    pub async fn set_all_dirty(&self, feed: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::SetAllDirty { feed, reply })
            .await
    }

    /// The other side has everything that is here now; durable before it counts.
    pub async fn clear_feed_map(&self, feed: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::ClearFeedMap { feed, reply })
            .await
    }

    /// Returns when the log says that a plex with its map in this slot, which nobody has yet, misses
    /// everything; of a slot in use, when it says what its owner misses now.
    pub async fn prepare_slot(&self, slot: u32) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::PrepareSlot { slot, reply })
            .await
    }

    /// The other side of a feed waits for these ranges: they go first.
    pub async fn feed_fetch(&self, feed: FeedId, ranges: Vec<ByteRange>) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::FeedFetch {
            feed,
            ranges,
            reply,
        })
        .await
    }

    /// What an online restore misses, into `slot` of the log, which belongs to nobody: what the map of
    /// `from` says, or everything. Durable when it answers.
    pub async fn prepare_restore(
        &self,
        slot: u32,
        from: FeedId,
        all: bool,
    ) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::PrepareRestore {
            slot,
            from,
            all,
            reply,
        })
        .await
    }

    /// What changed since the point at which `from` stands, and what changes from now on, into `slot` of
    /// the log, which belongs to nobody. Durable when it answers: now a commit may say whose it is.
    pub async fn track_point(&self, slot: u32, from: FeedId) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::TrackPoint { slot, from, reply })
            .await
    }

    /// That commit has failed.
    pub async fn untrack_point(&self, slot: u32) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::UntrackPoint { slot, reply })
            .await
    }

    /// Answers when nothing is missing any more of what an online restore brings, and the log says so.
    pub async fn restore_ended(&self) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::RestoreEnded { reply }).await
    }

    /// What the feed misses.
    pub async fn feed_map(&self, feed: FeedId) -> Result<RegionMap, LaneError> {
        self.ask(|reply| LaneCommand::FeedMap { feed, reply }).await
    }

    /// Adds what the other side knows to be missing; durable when it answers.
    pub async fn merge_feed_map(&self, feed: FeedId, map: RegionMap) -> Result<(), LaneError> {
        let map = Box::new(map);
        self.ask(|reply| LaneCommand::MergeFeedMap { feed, map, reply })
            .await
    }

    /// Waits, but not for long, until the dirty-region log holds nothing that was written before: after a crash that would count as
    /// a change for a feed that begins to track now.
    pub async fn clean_log(&self) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::CleanLog { reply }).await
    }

    /// How far the volume's log has durably come: see [`Self::touch_log`].
    pub async fn log_stamp(&self) -> Result<u64, LaneError> {
        self.ask(|reply| LaneCommand::LogStamp { reply }).await
    }

    /// Lets the log come one further, durably, and says how far it is now. An older copy of the disks has
    /// come less far.
    pub async fn touch_log(&self) -> Result<u64, LaneError> {
        self.ask(|reply| LaneCommand::TouchLog { reply }).await?;
        self.log_stamp().await
    }

    /// Dirty bytes of feeds and plexes, in the order asked for.
    pub async fn dirty(
        &self,
        feeds: Vec<FeedId>,
        plexes: Vec<PlexId>,
    ) -> Result<(Vec<u64>, Vec<u64>), LaneError> {
        self.ask(|reply| LaneCommand::Dirty {
            feeds,
            plexes,
            reply,
        })
        .await
    }

    /// What has been counted, without asking the lane: it may be busy.
    pub fn meters(&self) -> MeterValues {
        self.shared.meters.values()
    }

    /// Requests of clients that have come and that have ended, without asking the lane.
    pub fn client_requests(&self) -> (u64, u64) {
        self.shared.meters.client_requests()
    }

    /// Numbers for reports.
    pub async fn stats(&self) -> Result<LaneStats, LaneError> {
        self.ask(|reply| LaneCommand::Stats { reply }).await
    }

    /// Reads at most [`MAX_SLICE`] bytes into a buffer of the lane: give it back soon.
    pub async fn read_slice(&self, range: ByteRange) -> Result<BufSlice, LaneError> {
        if range.is_empty() || range.len() > MAX_SLICE as u64 {
            return Err(IoError::new(IoErrorKind::Invalid).into());
        }
        self.ask(|reply| LaneCommand::Read { range, reply }).await
    }

    /// Reads a range from each of these plexes at one moment, writes to it being held: what the
    /// n-th has begins at `n * range.len()`. Together at most [`MAX_SLICE`] bytes, in a buffer of the
    /// lane: give it back soon.
    pub async fn read_plexes(
        &self,
        range: ByteRange,
        plexes: Vec<PlexId>,
    ) -> Result<BufSlice, LaneError> {
        let bytes = range.len().checked_mul(plexes.len() as u64);
        if bytes.is_none_or(|bytes| bytes == 0 || bytes > MAX_SLICE as u64) {
            return Err(IoError::new(IoErrorKind::Invalid).into());
        }
        self.ask(|reply| LaneCommand::ReadPlexes {
            range,
            plexes,
            reply,
        })
        .await
    }

    /// Writes what a plex has in a range, at most [`MAX_SLICE`] bytes, to others, writes to it being held. It is durable
    /// after [`LaneHandle::quiesce`].
    pub async fn rewrite(
        &self,
        range: ByteRange,
        from: PlexId,
        to: Vec<PlexId>,
    ) -> Result<(), LaneError> {
        if range.is_empty() || range.len() > MAX_SLICE as u64 {
            return Err(IoError::new(IoErrorKind::Invalid).into());
        }
        let written = self.ask(|reply| LaneCommand::Rewrite {
            range,
            from,
            to,
            reply,
        });
        written.await.map(drop)
    }

    /// Reads a range.
    pub async fn read(&self, range: ByteRange) -> Result<Vec<u8>, LaneError> {
        let mut bytes = Vec::new();
        self.for_each_slice(range, |slice| bytes.extend_from_slice(slice))
            .await?;
        Ok(bytes)
    }

    /// BLAKE3 of a range. The lane reads, the caller's thread hashes.
    pub async fn hash(&self, range: ByteRange) -> Result<[u8; 32], LaneError> {
        let mut hasher = blake3::Hasher::new();
        self.for_each_slice(range, |slice| {
            hasher.update(slice);
        })
        .await?;
        Ok(*hasher.finalize().as_bytes())
    }

    async fn for_each_slice(
        &self,
        range: ByteRange,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), LaneError> {
        let mut at = range.start();
        while at < range.end() {
            let len = (range.end() - at).min(MAX_SLICE as u64);
            let slice = self.read_slice(ByteRange::new(at, len)).await?;
            each(slice.as_ref());
            at += len;
        }
        Ok(())
    }

    /// Writes, zeroes, discards or flushes for the feed that fills this volume, in the order of
    /// the calls where they overlap. Blocks while too much is under way.
    pub fn submit(&self, op: Op, range: ByteRange, flags: Flags, bytes: Vec<u8>, done: DoneFn) {
        let wanted = if op == Op::Write { range.len() } else { 0 };
        if bytes.len() as u64 != wanted || op == Op::Read {
            return done(Err(IoError::new(IoErrorKind::Invalid)));
        }
        let work = FeedWork::Submit {
            op,
            range,
            flags,
            bytes,
            done: Done::new(done),
        };
        // A lane that has stopped drops it, and that says so.
        if self.work.send(work).is_ok() {
            self.waker.wake();
        }
    }

    /// Waits until the feed may write this range itself, and holds overlapping writes from then.
    pub fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError> {
        let (sender, receiver) = sync_channel(1);
        let lane = self.clone();
        let reply = Box::new(move |result: Result<WriteGrant, IoError>| {
            // Nobody waits any more: give the grant back.
            if let Err(error) = sender.send(result)
                && let Ok(grant) = error.0
            {
                lane.abandon_write(grant, Box::new(|_| ()));
            }
        });
        let gone = IoError::new(IoErrorKind::Gone);
        self.work
            .send(FeedWork::Begin { range, reply })
            .map_err(|_| gone)?;
        self.waker.wake();
        receiver.recv().map_err(|_| gone)?
    }

    /// Ends a delegated write with each plex's result; `done` says how the request ended.
    pub fn end_write(&self, grant: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn) {
        let id = grant.id;
        let results = Some(results);
        let done = Done::new(done);
        self.outcome(Outcome::Grant { id, results, done });
    }

    /// Ends a delegated write whose bytes did not all come: the plexes hold different parts of it.
    /// The lane makes them equal again; `done` gets an error in any case.
    pub fn abandon_write(&self, grant: WriteGrant, done: DoneFn) {
        let id = grant.id;
        let results = None;
        let done = Done::new(done);
        self.outcome(Outcome::Grant { id, results, done });
    }

    /// Refuses clients' writes for as long as the guard lives: for whoever looks whether the volume is
    /// in use, and then makes it a sink.
    pub async fn freeze(&self) -> Result<Frozen, LaneError> {
        self.ask(|reply| LaneCommand::Freeze { reply }).await?;
        Ok(Frozen(self.clone()))
    }

    /// Waits until what was submitted is done, and flushes.
    pub async fn quiesce(&self) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::Quiesce { reply }).await
    }

    /// Ends in good order: clients are hung up on after their requests under way, caches flushed,
    /// the log cleaned. Answers when the thread has ended.
    pub async fn stop(&self) -> Result<(), LaneError> {
        self.ask(|reply| LaneCommand::Stop { reply }).await
    }

    /// Ends as a crash would.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        // A lane that has stopped cannot crash any more.
        let _stopped = self.send(LaneCommand::Crash);
    }
}

/// Clients' writes are refused; see [`LaneHandle::freeze`].
pub struct Frozen(LaneHandle);

impl Drop for Frozen {
    fn drop(&mut self) {
        // A lane that has stopped refuses everything.
        let _stopped = self.0.send(LaneCommand::Thaw);
    }
}
