//! What a lane counts. The lane's thread is the only writer, so counting is a load and a store without a
//! lock; anybody may read at any time. Tables change only when the volume's layout does.

use super::disk::Disks;
use crate::api::{BUCKETS_MICROS, Meter, OPS, OpCount};
use blockio::{ByteRange, IoError, Op};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use uuid::Uuid;
use volmgr::engine::{DiskId, DiskOp, FeedId, IoId, Piece, PlexId, VolumeLayout};

/// A number with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one kind of operation.
#[derive(Debug, Default)]
pub(super) struct OpMeter {
    ops: Counter,
    bytes: Counter,
    errors: Counter,
    nanos: Counter,
    buckets: [Counter; BUCKETS_MICROS.len() + 1],
}

impl OpMeter {
    /// An operation of this many bytes has ended.
    pub fn ended(&self, bytes: u64, well: bool, took: Duration) {
        self.untimed(bytes, well);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.add(nanos);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound * 1_000 < nanos);
        self.buckets[bucket].add(1);
    }

    /// The same for one of which nobody knows how long it took.
    fn untimed(&self, bytes: u64, well: bool) {
        self.ops.add(1);
        if well {
            self.bytes.add(bytes);
        } else {
            self.errors.add(1);
        }
    }

    pub fn count(&self) -> OpCount {
        OpCount {
            ops: self.ops.get(),
            bytes: self.bytes.get(),
            errors: self.errors.get(),
            nanos: self.nanos.get(),
            buckets: self.buckets.iter().map(Counter::get).collect(),
        }
    }
}

/// Counters of all kinds of operations of something.
#[derive(Debug, Default)]
pub(super) struct Meters {
    by_op: [OpMeter; OPS.len()],
}

impl Meters {
    pub fn op(&self, kind: OpKind) -> &OpMeter {
        &self.by_op[kind as usize]
    }

    pub fn values(&self) -> Meter {
        Meter {
            by_op: self.by_op.iter().map(OpMeter::count).collect(),
        }
    }
}

/// A kind of operation, by its place in [`OPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Read,
    Write,
    Flush,
    Discard,
    Zero,
}

impl OpKind {
    /// The kind of a request; reading ahead is not counted.
    pub fn of_request(op: Op) -> Option<Self> {
        Some(match op {
            Op::Read => Self::Read,
            Op::Write => Self::Write,
            Op::Flush => Self::Flush,
            Op::Discard => Self::Discard,
            Op::WriteZeroes => Self::Zero,
            Op::Prefetch => return None,
        })
    }

    /// The kind of a disk's operation.
    pub fn of_disk(op: DiskOp) -> Option<Self> {
        Some(match op {
            DiskOp::Read => Self::Read,
            DiskOp::Write => Self::Write,
            DiskOp::Flush => Self::Flush,
            DiskOp::Discard => Self::Discard,
            DiskOp::WriteZeroes => Self::Zero,
            DiskOp::Prefetch => return None,
        })
    }
}

/// What may be read from outside.
#[derive(Debug, Default)]
pub(super) struct SharedMeters {
    /// Requests of clients.
    pub clients: Meters,
    /// Those of clients that have come; the others count what has ended.
    begun: Counter,
    /// What a feed writes into the volume.
    pub fed: Meters,
    tables: RwLock<Tables>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    disks: Vec<(Uuid, PathBuf, Arc<Meters>)>,
    plexes: BTreeMap<PlexId, Arc<Meters>>,
}

/// A lane's counters as they are now.
#[derive(Clone, Debug, Default)]
pub struct MeterValues {
    /// Requests of clients.
    pub clients: Meter,
    /// What a feed wrote.
    pub fed: Meter,
    /// By physical volume; one that went and came back is there twice.
    pub disks: Vec<(Uuid, PathBuf, Meter)>,
    /// By plex.
    pub plexes: BTreeMap<PlexId, Meter>,
}

impl SharedMeters {
    /// A client's request has come.
    pub fn client_begins(&self) {
        self.begun.add(1);
    }

    /// Requests of clients that have come and that have ended.
    pub fn client_requests(&self) -> (u64, u64) {
        // In this order none has ended that has not come.
        let ended = self.clients.by_op.iter().map(|op| op.ops.get()).sum();
        (self.begun.get().max(ended), ended)
    }

    /// The counters now.
    pub fn values(&self) -> MeterValues {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        MeterValues {
            clients: self.clients.values(),
            fed: self.fed.values(),
            disks: tables
                .disks
                .iter()
                .map(|(pv, path, meters)| (*pv, path.clone(), meters.values()))
                .collect(),
            plexes: tables
                .plexes
                .iter()
                .map(|(plex, meters)| (*plex, meters.values()))
                .collect(),
        }
    }
}

/// The lane's own view: where to count what.
pub(super) struct LaneMeters {
    pub shared: Arc<SharedMeters>,
    disks: Vec<DiskPlaces>,
    feeds: HashMap<FeedId, FeedMeter>,
    /// Feed operations on their way.
    flying: HashMap<IoId, Flying>,
}

struct DiskPlaces {
    meters: Arc<Meters>,
    /// Which plex has which bytes: start, end, counters; sorted.
    plexes: Vec<(u64, u64, Arc<Meters>)>,
}

struct Flying {
    feed: FeedId,
    live: bool,
    bytes: u64,
    since: Instant,
}

struct FeedMeter {
    live: OpMeter,
    copy: OpMeter,
    /// The other side was last seen with everything up to this moment.
    in_step: Instant,
}

/// What a lane knows about a feed's progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedLag {
    /// Live operations, from here to durable over there.
    pub live: OpCount,
    /// Copies, the same.
    pub copy: OpCount,
    /// Bytes that the other side is known to miss.
    pub dirty: u64,
    /// Bytes of live writes that are not known to be durable over there.
    pub flying_bytes: u64,
    /// Age of the oldest change that is not known to be durable over there.
    pub lag: Duration,
}

impl LaneMeters {
    pub fn new(layout: &VolumeLayout, disks: &Disks, shared: Arc<SharedMeters>) -> Self {
        let mut meters = Self {
            shared,
            disks: Vec::new(),
            feeds: HashMap::new(),
            flying: HashMap::new(),
        };
        meters.layout(layout, disks);
        meters
    }

    /// The volume has another layout: new disks and plexes get counters, the others keep theirs.
    pub fn layout(&mut self, layout: &VolumeLayout, disks: &Disks) {
        let mut tables = self
            .shared
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for disk in disks.iter().skip(tables.disks.len()) {
            let meters = Arc::new(Meters::default());
            tables
                .disks
                .push((disk.spec.pv, disk.spec.path.clone(), meters));
        }
        self.disks = tables
            .disks
            .iter()
            .map(|(.., meters)| DiskPlaces {
                meters: Arc::clone(meters),
                plexes: Vec::new(),
            })
            .collect();
        for plex in &layout.plexes {
            let meters = Arc::clone(tables.plexes.entry(plex.id).or_default());
            for piece in &plex.map {
                let places = match piece {
                    Piece::Concat(place) => std::slice::from_ref(place),
                    Piece::Striped { columns, .. } => columns.as_slice(),
                };
                for place in places {
                    if let Some(disk) = self.disks.get_mut(place.disk.0 as usize) {
                        let range = place.range;
                        disk.plexes
                            .push((range.start(), range.end(), Arc::clone(&meters)));
                    }
                }
            }
        }
        for disk in &mut self.disks {
            disk.plexes.sort_by_key(|(start, ..)| *start);
        }
        *self
            .shared
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner) = tables;
    }

    /// A disk's operation has ended; `took` where somebody looked at the clock.
    pub fn disk(
        &self,
        disk: DiskId,
        op: DiskOp,
        range: ByteRange,
        result: Result<(), IoError>,
        took: Option<Duration>,
    ) {
        let (Some(kind), Some(places)) = (OpKind::of_disk(op), self.disks.get(disk.0 as usize))
        else {
            return;
        };
        let count = |meters: &Meters| match took {
            Some(took) => meters.op(kind).ended(range.len(), result.is_ok(), took),
            None => meters.op(kind).untimed(range.len(), result.is_ok()),
        };
        count(&places.meters);
        if let Some(plex) = places.plex(range) {
            count(plex);
        }
    }

    /// An operation leaves for a feed.
    pub fn feed_sent(&mut self, io: IoId, feed: FeedId, live: bool, bytes: u64) {
        let since = Instant::now();
        self.feeds
            .entry(feed)
            .or_insert_with(|| FeedMeter::new(since));
        self.flying.insert(
            io,
            Flying {
                feed,
                live,
                bytes,
                since,
            },
        );
    }

    /// An operation has ended that may be a feed's.
    pub fn feed_ended(&mut self, io: IoId, well: bool) {
        if self.flying.is_empty() {
            return;
        }
        if let Some(flying) = self.flying.remove(&io)
            && let Some(feed) = self.feeds.get(&flying.feed)
        {
            let meter = if flying.live { &feed.live } else { &feed.copy };
            meter.ended(flying.bytes, well, flying.since.elapsed());
        }
    }

    /// The feed is cut off: what was on its way is given up.
    pub fn feed_cut(&mut self, feed: FeedId) {
        let lost: Vec<IoId> = self
            .flying
            .iter()
            .filter(|(_, flying)| flying.feed == feed)
            .map(|(io, _)| *io)
            .collect();
        for io in lost {
            self.feed_ended(io, false);
        }
    }

    /// Now and then: who is in step?
    pub fn tick(&mut self, dirty: impl Fn(FeedId) -> u64) {
        if self.feeds.is_empty() {
            return;
        }
        let now = Instant::now();
        for (id, feed) in &mut self.feeds {
            if dirty(*id) == 0 {
                feed.in_step = oldest(&self.flying, *id).unwrap_or(now);
            }
        }
    }

    /// What is known about a feed's progress.
    pub fn lag(&mut self, feed: FeedId, dirty: u64) -> FeedLag {
        let now = Instant::now();
        let flying_bytes = self
            .flying
            .values()
            .filter(|flying| flying.feed == feed && flying.live)
            .map(|flying| flying.bytes)
            .sum();
        let oldest = oldest(&self.flying, feed);
        let known = self
            .feeds
            .entry(feed)
            .or_insert_with(|| FeedMeter::new(now));
        let since = match dirty {
            0 => oldest.unwrap_or(now),
            _ => known.in_step,
        };
        FeedLag {
            live: known.live.count(),
            copy: known.copy.count(),
            dirty,
            flying_bytes,
            lag: now.saturating_duration_since(since),
        }
    }
}

/// When the oldest live operation of this feed that is on its way has left.
fn oldest(flying: &HashMap<IoId, Flying>, feed: FeedId) -> Option<Instant> {
    flying
        .values()
        .filter(|flying| flying.feed == feed && flying.live)
        .map(|flying| flying.since)
        .min()
}

impl FeedMeter {
    fn new(now: Instant) -> Self {
        Self {
            live: OpMeter::default(),
            copy: OpMeter::default(),
            in_step: now,
        }
    }
}

impl DiskPlaces {
    /// The plex that has the range's first byte; a range without bytes belongs to the only plex there is.
    fn plex(&self, range: ByteRange) -> Option<&Arc<Meters>> {
        let (_, _, first) = self.plexes.first()?;
        if self
            .plexes
            .iter()
            .all(|(.., meters)| Arc::ptr_eq(meters, first))
        {
            // The log is on the disk, too, and in no plex.
            let inside = |(start, end, _): &&(u64, u64, Arc<Meters>)| {
                range.is_empty() || (*start <= range.start() && range.start() < *end)
            };
            return self.plexes.iter().find(inside).map(|_| first);
        }
        let at = self
            .plexes
            .partition_point(|(start, ..)| *start <= range.start());
        let (_, end, meters) = self.plexes.get(at.checked_sub(1)?)?;
        (!range.is_empty() && range.start() < *end).then_some(meters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_one_bucket() {
        let meter = OpMeter::default();
        for micros in [0, 50, 51, 10_000_000, 10_000_001] {
            meter.ended(512, true, Duration::from_micros(micros));
        }
        meter.ended(512, false, Duration::from_micros(60));
        let count = meter.count();
        assert_eq!((count.ops, count.errors, count.bytes), (6, 1, 5 * 512));
        assert_eq!(count.timed(), 6);
        assert_eq!(count.buckets[0], 2, "a bound belongs to its bucket");
        assert_eq!(count.buckets[1], 2);
        assert_eq!(count.buckets[BUCKETS_MICROS.len() - 1], 1);
        assert_eq!(count.buckets[BUCKETS_MICROS.len()], 1);
    }

    #[test]
    fn disk_io_is_counted_for_the_plex_that_has_the_place() {
        let plexes = [Arc::new(Meters::default()), Arc::new(Meters::default())];
        let two = DiskPlaces {
            meters: Arc::default(),
            plexes: vec![
                (100, 200, Arc::clone(&plexes[0])),
                (300, 400, Arc::clone(&plexes[1])),
            ],
        };
        let of = |places: &DiskPlaces, start, len| {
            let found = places.plex(ByteRange::new(start, len))?;
            plexes.iter().position(|plex| Arc::ptr_eq(plex, found))
        };
        assert_eq!(of(&two, 100, 10), Some(0));
        assert_eq!(of(&two, 399, 1), Some(1));
        assert_eq!(of(&two, 200, 10), None, "the log");
        assert_eq!(of(&two, 0, 0), None, "a flush of both");
        let one = DiskPlaces {
            meters: Arc::default(),
            plexes: vec![(100, 200, Arc::clone(&plexes[1]))],
        };
        assert_eq!(of(&one, 0, 0), Some(1), "a flush of the only one");
        assert_eq!(of(&one, 50, 10), None);
    }

    #[test]
    fn a_feed_lags_by_its_oldest_write() {
        let (feed, other) = (FeedId(0), FeedId(1));
        let mut meters = LaneMeters {
            shared: Arc::default(),
            disks: Vec::new(),
            feeds: HashMap::new(),
            flying: HashMap::new(),
        };
        meters.feed_sent(IoId(1), feed, true, 4096);
        meters.feed_sent(IoId(2), other, true, 100);
        std::thread::sleep(Duration::from_millis(5));
        meters.feed_sent(IoId(3), feed, false, 8192);
        let lag = meters.lag(feed, 0);
        assert_eq!(lag.flying_bytes, 4096);
        assert!(lag.lag >= Duration::from_millis(5));
        meters.feed_ended(IoId(1), true);
        assert_eq!(meters.lag(feed, 0).lag, Duration::ZERO);
        meters.feed_cut(feed);
        let lag = meters.lag(feed, 0);
        assert_eq!((lag.live.ops, lag.live.errors), (1, 0));
        assert_eq!((lag.copy.ops, lag.copy.errors), (1, 1));
        // It misses something: since it was last seen in step.
        meters.tick(|_| 0);
        std::thread::sleep(Duration::from_millis(5));
        meters.tick(|_| 1);
        assert!(meters.lag(feed, 1).lag >= Duration::from_millis(5));
    }
}
