//! How fast a feed copies beside the applications of its volume: what [`Pacer`] decides, about twice a second, as long as
//! [`Presence`] sees somebody there; also while there is no session, so that the next one knows what it disturbs.

use super::entry::FeedEntry;
use crate::api::{BUCKETS_MICROS, Meter, OpCount};
use crate::lane::LaneHandle;
use feedplex::streams::{Pacer, Presence, Sample};
use std::time::{Duration, Instant};
use volmgr::model::Feed;

/// How often is looked while something is copied.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Shorter intervals say too little.
const INTERVAL_MIN: Duration = Duration::from_millis(480);

/// The controller of a feed, and what it saw last.
pub struct Pace {
    pacer: Pacer,
    presence: Presence,
    /// The moment from which `presence` counts.
    began: Instant,
    before: Option<Before>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pacer: Pacer::default(),
            presence: Presence::default(),
            began: Instant::now(),
            before: None,
        }
    }
}

/// Counters at the last look.
struct Before {
    then: Instant,
    clients: Meter,
    copied: u64,
}

impl Pace {
    /// Some time has passed.
    pub fn look(&mut self, entry: &FeedEntry, feed: &Feed, lane: &LaneHandle) {
        let (begun, ended) = lane.client_requests();
        let there = self.presence.look(self.began.elapsed(), begun, ended);
        let soon = |before: &Before| before.then.elapsed() < INTERVAL_MIN;
        if !self.before.as_ref().is_some_and(soon) {
            self.step(entry, lane);
        }
        let free = self.pacer.rate().filter(|_| there && !feed.full_speed);
        let wanted = match (free, feed.rate) {
            (None, limit) => limit,
            (Some(rate), 0) => rate,
            (Some(rate), limit) => rate.min(limit),
        };
        if entry.limiter.rate() != wanted {
            entry.limiter.set_rate(wanted);
        }
    }

    /// An interval of the controller may be over.
    fn step(&mut self, entry: &FeedEntry, lane: &LaneHandle) {
        let now = Before {
            then: Instant::now(),
            clients: lane.meters().clients,
            copied: entry.limiter.spent(),
        };
        let Some(before) = &self.before else {
            self.before = Some(now);
            return;
        };
        let moved = now.clients.since(&before.clients);
        let waited = moved.op("read").plus(&moved.op("write"));
        let sample = Sample {
            took: now.then.duration_since(before.then),
            ops: waited.timed(),
            slowest: slowest(&waited),
            written: moved.op("write").bytes,
            copied: now.copied.saturating_sub(before.copied),
        };
        self.before = Some(now);
        self.pacer.step(&sample);
    }
}

/// Time below which 99 of 100 operations ended. Within a bucket of the histogram they are taken to be spread
/// evenly: a controller needs to see small changes.
fn slowest(count: &OpCount) -> Duration {
    let wanted = count.timed() as f64 * 0.99;
    let mut seen = 0.0;
    let mut lower = 0;
    for (at, bucket) in count.buckets.iter().enumerate() {
        let upper = BUCKETS_MICROS.get(at).copied().unwrap_or(lower);
        let here = *bucket as f64;
        if here > 0.0 && seen + here >= wanted {
            let part = (wanted - seen) / here;
            let micros = lower as f64 + (upper - lower) as f64 * part;
            return Duration::from_micros(micros as u64);
        }
        seen += here;
        lower = upper;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_moves_within_a_bucket() {
        let mut count = OpCount {
            buckets: vec![0; BUCKETS_MICROS.len() + 1],
            ..OpCount::default()
        };
        assert_eq!(slowest(&count), Duration::ZERO);
        // Between 100 and 250 us.
        count.buckets[2] = 1000;
        assert_eq!(slowest(&count), Duration::from_micros(248));
        // A tenth of them now takes between 250 and 500 us.
        count.buckets[3] = 100;
        assert_eq!(slowest(&count), Duration::from_micros(472));
        // Beyond the last bound all that is known is the bound.
        count.buckets[BUCKETS_MICROS.len()] = 10_000;
        assert_eq!(slowest(&count), Duration::from_secs(10));
    }
}
