//! How fast a session copies beside the applications of its volume: what [`Pacer`] decides, twice a second.

use super::super::entry::FeedEntry;
use crate::api::{BUCKETS_MICROS, Meter, OpCount};
use crate::lane::LaneHandle;
use feedplex::streams::{Pacer, Sample};
use std::time::{Duration, Instant};
use volmgr::model::Feed;

/// The controller of a session, and what it saw last.
pub struct Pace {
    pacer: Pacer,
    then: Instant,
    clients: Meter,
    copied: u64,
}

impl Pace {
    /// A session begins.
    pub fn new() -> Self {
        Self {
            pacer: Pacer::default(),
            then: Instant::now(),
            clients: Meter::default(),
            copied: 0,
        }
    }

    /// Some time has passed.
    pub fn look(&mut self, entry: &FeedEntry, feed: &Feed, lane: &LaneHandle) {
        let copied = entry.limiter.spent();
        let clients = lane.meters().clients;
        let moved = clients.since(&self.clients);
        let waited = moved.op("read").plus(&moved.op("write"));
        let sample = Sample {
            took: self.then.elapsed(),
            ops: waited.timed(),
            slowest: slowest(&waited),
            written: moved.op("write").bytes,
            copied: copied.saturating_sub(self.copied),
        };
        (self.then, self.clients, self.copied) = (Instant::now(), clients, copied);
        let free = self.pacer.step(&sample);
        let wanted = match (free.filter(|_| !feed.full_speed), feed.rate) {
            (None, limit) => limit,
            (Some(rate), 0) => rate,
            (Some(rate), limit) => rate.min(limit),
        };
        if entry.limiter.rate() != wanted {
            entry.limiter.set_rate(wanted);
        }
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
