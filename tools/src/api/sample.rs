//! Numbers about everything that moves: what `top` and the metrics are made of. Counters only grow while a
//! volume is served, and begin at 0 when it is activated; rates are differences of two samples.

use serde::{Deserialize, Serialize};

/// Kinds of operations, in the order of [`Meter`]'s lists.
pub const OPS: [&str; 5] = ["read", "write", "flush", "discard", "zero"];

/// Upper bounds of the latency histogram's buckets in microseconds; one more bucket has no bound.
pub const BUCKETS_MICROS: [u64; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// Counters of one kind of operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCount {
    /// Operations that have ended, well or badly.
    pub ops: u64,
    /// Bytes of those that ended well.
    pub bytes: u64,
    /// Those that ended badly.
    pub errors: u64,
    /// Time that the timed ones took together, in nanoseconds.
    pub nanos: u64,
    /// Timed operations by latency: not cumulative, bounds as in [`BUCKETS_MICROS`], the last without.
    pub buckets: Vec<u64>,
}

impl OpCount {
    /// What happened since an earlier sample. A counter that began anew counts from 0.
    pub fn since(&self, earlier: &Self) -> Self {
        let begun_anew = self.ops < earlier.ops;
        let base = |old: u64| if begun_anew { 0 } else { old };
        Self {
            ops: self.ops - base(earlier.ops),
            bytes: self.bytes.saturating_sub(base(earlier.bytes)),
            errors: self.errors.saturating_sub(base(earlier.errors)),
            nanos: self.nanos.saturating_sub(base(earlier.nanos)),
            buckets: self
                .buckets
                .iter()
                .enumerate()
                .map(|(at, now)| {
                    let old = earlier.buckets.get(at).copied().unwrap_or(0);
                    now.saturating_sub(base(old))
                })
                .collect(),
        }
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        let longest = self.buckets.len().max(other.buckets.len());
        let bucket = |list: &[u64], at: usize| list.get(at).copied().unwrap_or(0);
        Self {
            ops: self.ops.saturating_add(other.ops),
            bytes: self.bytes.saturating_add(other.bytes),
            errors: self.errors.saturating_add(other.errors),
            nanos: self.nanos.saturating_add(other.nanos),
            buckets: (0..longest)
                .map(|at| bucket(&self.buckets, at).saturating_add(bucket(&other.buckets, at)))
                .collect(),
        }
    }

    /// Operations that were timed.
    pub fn timed(&self) -> u64 {
        let all = self.buckets.iter();
        all.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Mean latency in microseconds; `None` where nothing was timed.
    pub fn mean_micros(&self) -> Option<u64> {
        (self.nanos / 1_000).checked_div(self.timed())
    }

    /// Upper bound of the bucket below which this part (0 to 1) of the operations ended, in
    /// microseconds; that of the last bounded bucket for those beyond it; `None` where nothing was timed.
    pub fn quantile_micros(&self, part: f64) -> Option<u64> {
        let timed = self.timed();
        if timed == 0 {
            return None;
        }
        let wanted = (part * timed as f64).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        let at = self.buckets.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        let last = BUCKETS_MICROS.len() - 1;
        Some(BUCKETS_MICROS[at.unwrap_or(last).min(last)])
    }
}

/// Counters of something, by kind of operation as in [`OPS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// One for each of [`OPS`].
    pub by_op: Vec<OpCount>,
}

impl Meter {
    /// The counters of this kind of operation; zero for one that is not there.
    pub fn op(&self, name: &str) -> OpCount {
        OPS.iter()
            .position(|op| *op == name)
            .and_then(|at| self.by_op.get(at))
            .cloned()
            .unwrap_or_default()
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        let none = OpCount::default();
        let at = |list: &[OpCount], at: usize| list.get(at).cloned().unwrap_or_default();
        Self {
            by_op: (0..self.by_op.len().max(other.by_op.len()))
                .map(|op| at(&self.by_op, op).plus(other.by_op.get(op).unwrap_or(&none)))
                .collect(),
        }
    }

    /// All kinds together.
    pub fn total(&self) -> OpCount {
        self.by_op
            .iter()
            .fold(OpCount::default(), |sum, op| sum.plus(op))
    }

    /// What happened since an earlier sample.
    pub fn since(&self, earlier: &Self) -> Self {
        let none = OpCount::default();
        let by_op = self.by_op.iter().enumerate();
        Self {
            by_op: by_op
                .map(|(at, op)| op.since(earlier.by_op.get(at).unwrap_or(&none)))
                .collect(),
        }
    }
}

/// One plex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlexSample {
    /// `plex0`, …
    pub name: String,
    /// Its state.
    pub state: String,
    /// Bytes that it misses.
    pub dirty: u64,
    /// Reads that failed lately: halved every hour, none when it comes into service.
    pub read_errors: u64,
    /// Ranges rewritten from another plex because they could not be read.
    pub read_repairs: u64,
    /// What its disks did for it.
    pub meter: Meter,
}

/// What one disk did for one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSample {
    /// Path of the disk.
    pub path: String,
    /// What it did, the volume's log included.
    pub meter: Meter,
}

/// One feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedSample {
    /// The peer.
    pub peer: String,
    /// `out` or `in`.
    pub direction: String,
    /// Its state.
    pub state: String,
    /// Why, where there is something to say.
    pub reason: String,
    /// The point in time at which it ended; else empty.
    pub point: String,
    /// The volume over there.
    pub peer_lv: String,
    /// `async` or `sync`.
    pub mode: String,
    /// The other side, or this one where the direction is `in`, is a consistent copy.
    pub consistent: bool,
    /// Bytes that the other side is known to miss.
    pub dirty: u64,
    /// The same and what is on its way and not durable there yet; `None` where it cannot lag.
    pub lag_bytes: Option<u64>,
    /// Age of the oldest write that is not durable at the other side, in milliseconds, as far as this
    /// daemon has seen; `None` where it cannot lag.
    pub lag_millis: Option<u64>,
    /// Bytes per second now.
    pub rate: u64,
    /// Bytes of the volume.
    pub size: u64,
    /// Live writes: from leaving the volume to being durable at the other side.
    pub live: OpCount,
    /// Copies of a full sync or a resync: the same.
    pub copy: OpCount,
    /// Payload that no application buffer held, in bytes.
    pub kernel_bytes: u64,
    /// Payload that went through one, in bytes.
    pub copied_bytes: u64,
    /// Zeroes that were named instead of moved, in bytes.
    pub zero_bytes: u64,
    /// Frames of any kind.
    pub frames: u64,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSample {
    /// Group.
    pub vg: String,
    /// Volume.
    pub lv: String,
    /// It is served.
    pub active: bool,
    /// Its data path answers; false for an active volume is a reason to be woken.
    pub answers: bool,
    /// `ok`, `resync`, `degraded` or `failed`.
    pub health: String,
    /// Bytes.
    pub size: u64,
    /// Clients and users.
    pub open: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Bytes in which plexes may differ after an unclean stop.
    pub recovering: u64,
    /// What clients asked for.
    pub clients: Meter,
    /// What a feed wrote into it.
    pub fed: Meter,
    /// Its plexes.
    pub plexes: Vec<PlexSample>,
    /// Its disks.
    pub disks: Vec<DiskSample>,
    /// Its feeds.
    pub feeds: Vec<FeedSample>,
}

/// All volumes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_millis: u64,
    /// The node.
    pub node: String,
    /// Its volumes.
    pub volumes: Vec<VolumeSample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ops: u64, buckets: &[(usize, u64)]) -> OpCount {
        let mut list = vec![0; BUCKETS_MICROS.len() + 1];
        for (at, count) in buckets {
            list[*at] = *count;
        }
        OpCount {
            ops,
            nanos: ops * 1_000_000,
            buckets: list,
            ..OpCount::default()
        }
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let latency = count(100, &[(0, 50), (3, 49), (15, 1)]);
        assert_eq!(latency.quantile_micros(0.5), Some(50));
        assert_eq!(latency.quantile_micros(0.51), Some(500));
        assert_eq!(latency.quantile_micros(0.99), Some(500));
        assert_eq!(latency.quantile_micros(1.0), Some(10_000_000));
        assert_eq!(latency.mean_micros(), Some(1_000));
        assert_eq!(OpCount::default().quantile_micros(0.5), None);
        assert_eq!(OpCount::default().mean_micros(), None);
    }

    /// No counter gets there, but a daemon can say so.
    #[test]
    fn sums_end_at_the_largest_number() {
        let most = OpCount {
            ops: u64::MAX,
            ..count(0, &[(0, u64::MAX), (3, 2)])
        };
        let twice = most.plus(&most);
        assert_eq!((twice.ops, twice.buckets[0]), (u64::MAX, u64::MAX));
        assert_eq!(twice.timed(), u64::MAX);
        assert_eq!(twice.quantile_micros(0.99), Some(50));
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_zero() {
        let before = count(100, &[(0, 100)]);
        let after = count(130, &[(0, 110), (1, 20)]);
        let since = after.since(&before);
        assert_eq!(
            (since.ops, since.buckets[0], since.buckets[1]),
            (30, 10, 20)
        );
        let anew = count(3, &[(1, 3)]).since(&before);
        assert_eq!((anew.ops, anew.buckets[0], anew.buckets[1]), (3, 0, 3));
    }
}
