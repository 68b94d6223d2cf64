//! The volume engine: the data path of one active volume, without I/O.
//!
//! Requests and completions go in, [`Action`]s come out; whoever drives it performs them.
//!
//! One mechanism serves stale plexes, feeds that are cut off and points in time: the *tracked
//! target* ([`track`]), a map of the regions that the target misses. What a target may miss after
//! a crash is its map in the log plus everything in the dirty-region log ([`cycle`] says when a
//! region may leave that log).
//!
//! | file | subject |
//! | --- | --- |
//! | `write` | order, log, fan-out, acknowledgement |
//! | `read`, `flush` | the other requests |
//! | `compare` | the same range of several plexes |
//! | `rewrite` | plexes made equal to one that is believed |
//! | `media` | plexes whose disks fail reads |
//! | `plex` | a plex that fails, that is taken off, that comes back |
//! | `copy` | copies held against writes: resync, recovery, read repair, hot regions |
//! | `feed` | live operations, bulk copies, marks |
//! | `heat` | regions written so often that copying them is in vain |
//! | `inline` | hot regions in a feed's live stream |
//! | `held` | writes that wait for the other side of a feed |
//! | `point` | what changed since a point in time |
//! | `restore` | a volume that is in use while its content is still coming |
//! | `whole` | a volume that is being filled passes nothing on as consistent |
//! | `cycle` | flushing, writing maps, clearing the dirty-region log |
//! | `config` | starting, and changes of the layout |

mod api;
mod compare;
mod config;
mod copy;
mod cycle;
mod feed;
mod flush;
mod heat;
mod held;
mod inline;
mod inspect;
mod layout;
mod logstore;
mod mapping;
mod media;
mod order;
mod plex;
mod point;
mod read;
mod restore;
mod rewrite;
mod slab;
mod track;
mod transfer;
mod whole;
mod write;

pub use api::*;
pub use config::{EngineConfig, EngineError, Stats};
pub use layout::*;
pub(crate) use mapping::segments;
pub use media::Media;

use crate::model::PlexState;
use blockio::{ByteRange, IoError, IoErrorKind, Op, Origin, PayloadId, Request};
use compare::Compare;
use copy::Copy;
use cycle::Cycle;
use feed::Feed;
use flush::Flush;
use logstore::{LogStore, PageKey};
use order::Order;
use plex::Plex;
use read::Read;
use regionmap::RegionMap;
use restore::Restore;
use rewrite::Rewrite;
use slab::{Key, Slab};
use std::collections::{BTreeMap, VecDeque};
use write::Write;

/// What comes out of the engine.
type Out<'a> = &'a mut Vec<Action>;

/// What an action in flight belongs to.
#[derive(Debug)]
enum Tag {
    Read {
        read: Key,
        plex: PlexId,
        range: ByteRange,
        tried: u64,
    },
    Write {
        write: Key,
        plex: PlexId,
        range: ByteRange,
    },
    Flush {
        flush: Key,
        disk: DiskId,
    },
    Compare {
        compare: Key,
        plex: PlexId,
        range: ByteRange,
    },
    RewriteRead {
        rewrite: Key,
        plex: PlexId,
    },
    RewriteWrite {
        rewrite: Key,
        plex: PlexId,
        range: ByteRange,
    },
    CycleFlush {
        disk: DiskId,
    },
    CopyRead {
        copy: Key,
        plex: PlexId,
        range: ByteRange,
        tried: u64,
    },
    CopyWrite {
        copy: Key,
        plex: PlexId,
        range: ByteRange,
    },
    Log {
        page: PageKey,
        copy: u32,
    },
    Commit {
        plex: PlexId,
        state: PlexState,
        gates: bool,
    },
    Live {
        feed: FeedId,
        range: ByteRange,
        write: Option<Key>,
    },
    LiveFlush {
        feed: FeedId,
        flush: Option<Key>,
    },
    Inline {
        feed: FeedId,
        range: ByteRange,
        bounce: PayloadId,
    },
    Bulk {
        feed: FeedId,
        range: ByteRange,
        /// When it began, in the engine's milliseconds.
        since_ms: u64,
    },
    Mark {
        feed: FeedId,
    },
}

/// Whoever holds, or waits for, a range of the volume.
#[derive(Debug)]
enum Holder {
    Write(Write),
    Copy(Copy),
    Compare(Compare),
    Rewrite(Rewrite),
}

/// The engine of one volume.
///
/// Every action with an [`IoId`] is answered once by [`Engine::io_done`]; unknown ids are ignored.
#[derive(Debug)]
pub struct Engine {
    size: u64,
    region_size: u64,
    fed: bool,
    /// The content is a moment of one write order: see [`Engine::set_whole`].
    whole: bool,
    /// Those who do not want clients to write just now.
    frozen: u32,
    /// What is still to come from a feed while the volume is in use.
    restore: Option<Restore>,
    config: EngineConfig,
    plexes: Vec<Plex>,
    feeds: Vec<Feed>,
    /// Regions in the dirty-region log, or about to be.
    drl: RegionMap,
    /// Those of them that are in it for certain.
    drl_durable: RegionMap,
    /// Regions where active plexes may differ after a crash; reads of them go to the first one.
    recover: RegionMap,
    recover_cursor: u64,
    recover_busy: Vec<ByteRange>,
    log: LogStore,
    /// What the log holds in slots that belong to nothing in the layout.
    spare: BTreeMap<u32, RegionMap>,
    tags: Slab<Tag>,
    holders: Slab<Holder>,
    order: Order,
    reads: Slab<Read>,
    flushes: Slab<Flush>,
    /// Writes that hold their range and wait for the dirty-region log.
    wait_log: Vec<Key>,
    /// Writes and flushes that are done but for a plex's state that is not durable yet.
    wait_commit: Vec<plex::Gated>,
    /// Commits in flight that acknowledgements must wait for.
    gates: u32,
    /// Commits to try again.
    retry_commits: Vec<(PlexId, PlexState, bool)>,
    backlog: VecDeque<Request>,
    repairs: VecDeque<(PlexId, ByteRange)>,
    bounce_free: Vec<PayloadId>,
    /// Ends of the last writes, to recognise sequential writers.
    streams: [u64; 4],
    cycle: Option<Cycle>,
    now_ms: u64,
    last_cycle_ms: u64,
    /// A copy failed: no new ones until the next tick.
    copy_backoff: bool,
    stopping: bool,
    closing: bool,
    final_cycle_done: bool,
    stats: Stats,
}

impl Engine {
    /// Takes a request; its completion comes as [`Action::Complete`].
    pub fn submit(&mut self, request: Request, out: Out<'_>) {
        self.accept(request, out);
        self.pump(out);
    }

    fn accept(&mut self, request: Request, out: Out<'_>) {
        let refuse = |kind| Err(IoError::new(kind));
        let verdict = if self.stopping {
            refuse(IoErrorKind::Cancelled)
        } else if request.range.end() > self.size
            || matches!(request.op, Op::Read | Op::Write)
                && request.payload.is_none()
                && !request.range.is_empty()
        {
            refuse(IoErrorKind::Invalid)
        } else if (self.fed || self.frozen > 0)
            && request.op.modifies()
            && request.origin == Origin::Client
        {
            refuse(IoErrorKind::ReadOnly)
        } else if !self.plexes.iter().any(Plex::is_active) {
            refuse(IoErrorKind::Medium)
        } else if request.op == Op::Prefetch || request.op != Op::Flush && request.range.is_empty()
        {
            Ok(())
        } else {
            let request = match request.op {
                Op::Flush => request,
                _ => match self.wait_for_restore(request, out) {
                    Some(request) => request,
                    None => return,
                },
            };
            match request.op {
                Op::Read => self.start_read(request, out),
                Op::Flush => self.start_flush(request, out),
                _ if self.holders.len() >= self.config.max_in_flight
                    || !self.backlog.is_empty() =>
                {
                    self.backlog.push_back(request);
                }
                _ => self.start_write(request, out),
            }
            return;
        };
        out.push(Action::Complete {
            ticket: request.ticket,
            result: verdict,
        });
    }

    /// An action was performed.
    pub fn io_done(&mut self, io: IoId, result: Result<(), IoError>, out: Out<'_>) {
        let Some(tag) = self.tags.remove(io.0) else {
            return;
        };
        match tag {
            Tag::Read {
                read,
                plex,
                range,
                tried,
            } => {
                self.read_done(read, plex, range, tried, result, out);
            }
            Tag::Write { write, plex, range } => self.write_done(write, plex, range, result, out),
            Tag::Flush { flush, disk } => self.flush_done(flush, disk, result, out),
            Tag::Compare {
                compare,
                plex,
                range,
            } => self.compare_done(compare, plex, range, result, out),
            Tag::RewriteRead { rewrite, plex } => {
                self.rewrite_read_done(rewrite, plex, result, out);
            }
            Tag::RewriteWrite {
                rewrite,
                plex,
                range,
            } => self.rewrite_write_done(rewrite, plex, range, result, out),
            Tag::CycleFlush { disk } => self.cycle_flush_done(disk, result, out),
            Tag::CopyRead {
                copy,
                plex,
                range,
                tried,
            } => {
                self.copy_read_done(copy, plex, range, tried, result, out);
            }
            Tag::CopyWrite { copy, plex, range } => {
                self.copy_write_done(copy, plex, range, result, out);
            }
            Tag::Log { page, copy } => self.log_done(page, copy, result, out),
            Tag::Commit { plex, state, gates } => {
                self.commit_done(plex, state, gates, result, out);
            }
            Tag::Live { feed, range, write } => {
                self.live_done(io, feed, range, write, result, out);
            }
            Tag::LiveFlush { feed, flush } => self.live_flush_done(io, feed, flush, result, out),
            Tag::Inline {
                feed,
                range,
                bounce,
            } => {
                self.inline_done(io, feed, range, bounce, result, out);
            }
            Tag::Bulk {
                feed,
                range,
                since_ms,
            } => self.bulk_done(io, feed, range, since_ms, result, out),
            Tag::Mark { feed } => self.mark_done(io, feed, result, out),
        }
        self.pump(out);
    }

    /// Time has passed; call it several times a second. `now_ms` counts milliseconds from any
    /// moment and never goes back.
    pub fn tick(&mut self, now_ms: u64, out: Out<'_>) {
        self.now_ms = self.now_ms.max(now_ms);
        self.copy_backoff = false;
        for feed in &mut self.feeds {
            feed.backoff = false;
        }
        self.tick_restore(out);
        for (plex, state, gates) in std::mem::take(&mut self.retry_commits) {
            self.emit_commit(plex, state, gates, "the commit before failed", out);
        }
        if self.now_ms - self.last_cycle_ms >= self.config.clear_interval_ms {
            self.start_cycle(out);
        }
        self.pump(out);
    }

    /// Refuses writes of clients, until there have been as many [`Engine::thaw`]s: for whoever looks
    /// whether the volume is in use, or what is in it, and then makes it a sink. Writes under way go
    /// on.
    pub fn freeze(&mut self) {
        self.frozen += 1;
    }

    /// One who froze the volume is done.
    pub fn thaw(&mut self) {
        self.frozen = self.frozen.saturating_sub(1);
    }

    /// Refuses new requests from now on and starts no new copies; what is in flight goes on.
    pub fn set_stop(&mut self) {
        self.stopping = true;
    }

    /// No request, copy, commit or log update is in flight; after [`Engine::close`]: all is done.
    /// Operations of feeds do not count.
    pub fn is_idle(&self) -> bool {
        self.quiet()
            && self.cycle.is_none()
            && (!self.closing || self.final_cycle_done)
            && self.log.is_idle()
    }

    fn quiet(&self) -> bool {
        self.holders.len() == 0
            && self.reads.len() == 0
            && self.flushes.len() == 0
            && self.backlog.is_empty()
            && self.restore.as_ref().is_none_or(Restore::is_quiet)
            && self.gates == 0
    }

    /// Closes the volume in good order: stops, gives up the feeds' operations in flight (they
    /// become dirty), then flushes, writes all maps and empties the dirty-region log, so that the
    /// next start has nothing to recover. Done when [`Engine::is_idle`].
    pub fn close(&mut self, out: Out<'_>) {
        self.stopping = true;
        self.closing = true;
        self.repairs.clear();
        self.give_up_restore(out);
        for feed in self.feeds.iter().map(|f| f.id).collect::<Vec<_>>() {
            self.feed_offline(feed, out);
        }
        self.pump(out);
    }

    /// Starts whatever can start.
    fn pump(&mut self, out: Out<'_>) {
        self.pump_restore(out);
        while self.holders.len() < self.config.max_in_flight {
            let Some(request) = self.backlog.pop_front() else {
                break;
            };
            if self.plexes.iter().any(Plex::is_active) {
                self.start_write(request, out);
            } else {
                let result = Err(IoError::new(IoErrorKind::Medium));
                let ticket = request.ticket;
                out.push(Action::Complete { ticket, result });
            }
        }
        if !self.stopping {
            self.pump_copies(out);
            self.pump_feeds(out);
            self.pump_activation(out);
        }
        self.pump_cycle(out);
        self.pump_log(out);
    }

    /// Lets those go on who waited for a range.
    fn release(&mut self, range: ByteRange, out: Out<'_>) {
        self.order.release(range);
        while let Some(key) = self.order.next_ready() {
            match self.holders.get(key) {
                Some(Holder::Write(_)) => self.write_ready(key, out),
                Some(Holder::Copy(_)) => self.copy_ready(key, out),
                Some(Holder::Compare(_)) => self.compare_ready(key, out),
                Some(Holder::Rewrite(_)) => self.rewrite_ready(key, out),
                None => debug_assert!(false, "a range was granted to nobody"),
            }
        }
    }

    /// Are there copies of the data, here or at a peer, that could differ after a crash?
    fn needs_log(&self) -> bool {
        self.plexes.len() > 1 || !self.feeds.is_empty()
    }

    fn tag(&mut self, tag: Tag) -> IoId {
        IoId(self.tags.insert(tag))
    }

    fn plex(&self, id: PlexId) -> Option<&Plex> {
        self.plexes.iter().find(|p| p.id == id)
    }

    fn plex_mut(&mut self, id: PlexId) -> Option<&mut Plex> {
        self.plexes.iter_mut().find(|p| p.id == id)
    }
}
