//! How fast a copy may go beside the applications' own I/O: pure decisions, twice a second.
//!
//! What an application's slowest requests take while nothing is copied is what they may take, half as much
//! again, while something is. The controller learns the first by looking whenever nothing flows, and by going
//! down to a floor when it has never seen that; it approaches the second from below, by a quarter at a time,
//! and halves the rate when it is exceeded. Where no application does anything the copy goes as fast as it can.
//!
//! The floor grows with what is written, so that a copy ends however busy the applications are.

use std::time::Duration;

/// A request may take so many times what it takes without a copy.
const SLOWER: f64 = 1.5;

/// Below this there is room for more.
const ROOM: f64 = 1.25;

/// Slowest copy, in bytes per second.
const FLOOR: u64 = 16 << 20;

/// Smallest step upwards, in bytes per second.
const STEP: u64 = 4 << 20;

/// Fewer requests than this in an interval say nothing.
const OPS_MIN: u64 = 8;

/// After so many intervals without requests nobody is there.
const QUIET: u32 = 3;

/// Over the limit for so many intervals at the floor: it is not the copy's doing.
const NOT_US: u32 = 4;

/// What happened in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Length of the interval.
    pub took: Duration,
    /// Requests of applications that ended.
    pub ops: u64,
    /// Time that the slowest hundredth of them took.
    pub slowest: Duration,
    /// Bytes that applications wrote.
    pub written: u64,
    /// Bytes that were copied.
    pub copied: u64,
}

/// The controller of one feed.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    /// Bytes per second; none: as fast as it goes.
    rate: Option<u64>,
    /// Seconds that the slowest requests take when nothing is copied.
    calm: Option<f64>,
    quiet: u32,
    over_at_floor: u32,
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let millis = took.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

impl Pacer {
    /// The rate for the next interval in bytes per second, `None` for no limit.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// An interval is over: the rate for the next one.
    pub fn step(&mut self, sample: &Sample) -> Option<u64> {
        if sample.ops < OPS_MIN {
            self.quiet += 1;
            if self.quiet >= QUIET {
                (self.rate, self.over_at_floor) = (None, 0);
            }
            return self.rate;
        }
        self.quiet = 0;
        let slowest = sample.slowest.as_secs_f64();
        let copied = per_second(sample.copied, sample.took);
        let floor = FLOOR.max(per_second(sample.written, sample.took));
        if sample.copied == 0 {
            self.learn(slowest);
            // The next copy begins here.
            self.rate.get_or_insert(floor);
            return self.rate;
        }
        let Some(rate) = self.rate else {
            // Applications have come while a copy ran at full speed: from the floor upwards.
            self.rate = Some(floor);
            return self.rate;
        };
        let Some(calm) = self.calm else {
            // The first interval at the floor: as calm as it gets.
            self.calm = Some(slowest);
            return self.rate;
        };
        if slowest < calm {
            self.learn(slowest);
        }
        let next = if slowest > calm * SLOWER {
            if rate <= floor {
                self.over_at_floor += 1;
                if self.over_at_floor >= NOT_US {
                    self.over_at_floor = 0;
                    self.calm = Some(slowest);
                }
            }
            rate / 2
        } else {
            self.over_at_floor = 0;
            let used = copied.saturating_mul(4) >= rate.saturating_mul(3);
            match slowest < calm * ROOM && used {
                true => rate.saturating_add(STEP.max(rate / 4)),
                false => rate,
            }
        };
        self.rate = Some(next.max(floor));
        self.rate
    }

    fn learn(&mut self, slowest: f64) {
        self.calm = Some(match self.calm {
            Some(calm) => calm + (slowest - calm) / 4.0,
            None => slowest,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk that does 200 MiB/s: the fuller it is, the longer a request takes.
    fn slowest(copying: u64, base_micros: u64) -> Duration {
        let load = (copying as f64 / (200 * MIB) as f64).min(0.95);
        Duration::from_secs_f64(base_micros as f64 / 1e6 / (1.0 - load))
    }

    fn interval(pacer: &mut Pacer, base_micros: u64, ops: u64) -> (u64, Duration) {
        let copying = pacer.rate().unwrap_or(u64::MAX).min(190 * MIB);
        let took = Duration::from_millis(500);
        let slowest = slowest(copying, base_micros);
        pacer.step(&Sample {
            took,
            ops,
            slowest,
            written: 0,
            copied: copying / 2,
        });
        (copying, slowest)
    }

    #[test]
    fn nobody_there_no_limit() {
        let mut pacer = Pacer::default();
        for _ in 0..10 {
            interval(&mut pacer, 500, 0);
        }
        assert_eq!(pacer.rate(), None);
    }

    #[test]
    fn an_application_is_slowed_down_by_half_at_most_and_the_copy_is_still_useful() {
        let mut pacer = Pacer::default();
        let base = Duration::from_micros(500);
        let mut copied = Vec::new();
        let mut slow = 0;
        for n in 0..200 {
            let (rate, slowest) = interval(&mut pacer, 500, 1000);
            if n >= 20 {
                copied.push(rate);
                slow += u32::from(slowest > base.mul_f64(SLOWER * 1.05));
            }
        }
        let mean = copied.iter().sum::<u64>() / copied.len() as u64;
        // A third of the disk is what makes requests half as slow again.
        assert!((30 * MIB..80 * MIB).contains(&mean), "{} MiB/s", mean / MIB);
        assert!(slow <= 60, "over the limit in {slow} of 180 intervals");
    }

    #[test]
    fn what_is_learnt_while_nothing_flows_is_used_at_once() {
        let mut pacer = Pacer::default();
        for _ in 0..20 {
            pacer.step(&Sample {
                took: Duration::from_millis(500),
                ops: 1000,
                slowest: Duration::from_micros(500),
                ..Sample::default()
            });
        }
        assert_eq!(pacer.rate(), Some(FLOOR), "for the next copy");
        let (_, first) = interval(&mut pacer, 500, 1000);
        assert!(first < Duration::from_micros(750), "{first:?}");
        for _ in 0..20 {
            interval(&mut pacer, 500, 1000);
        }
        assert!(pacer.rate() > Some(30 * MIB), "{:?}", pacer.rate());
    }

    #[test]
    fn a_load_that_is_slow_by_itself_does_not_hold_the_copy_at_the_floor() {
        let mut pacer = Pacer::default();
        for _ in 0..50 {
            interval(&mut pacer, 500, 1000);
        }
        // The application now does something ten times as slow.
        for _ in 0..150 {
            interval(&mut pacer, 5000, 1000);
        }
        assert!(pacer.rate() > Some(20 * MIB), "{:?}", pacer.rate());
    }

    #[test]
    fn a_copy_keeps_up_with_what_is_written() {
        let mut pacer = Pacer::default();
        for _ in 0..50 {
            pacer.step(&Sample {
                took: Duration::from_millis(500),
                ops: 1000,
                slowest: Duration::from_millis(pacer.rate().map_or(100, |rate| rate / MIB)),
                written: 30 * MIB,
                copied: 30 * MIB,
            });
        }
        assert!(pacer.rate() >= Some(60 * MIB), "{:?}", pacer.rate());
    }

    #[test]
    fn when_the_applications_have_gone_there_is_no_limit_any_more() {
        let mut pacer = Pacer::default();
        for _ in 0..20 {
            interval(&mut pacer, 500, 1000);
        }
        assert!(pacer.rate().is_some());
        for _ in 0..QUIET {
            interval(&mut pacer, 500, 0);
        }
        assert_eq!(pacer.rate(), None);
    }
}
