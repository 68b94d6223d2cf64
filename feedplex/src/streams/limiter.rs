//! One rate for all the bulk streams of a feed.

use super::{ReceiverConfig, lock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How much may be sent at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(50);

/// How much is sent at a time under a limit, as time at that rate. What one piece costs a processor, a disk or a link at
/// full speed is what a request of an application may have to wait for.
const PIECE: Duration = Duration::from_millis(2);

/// Smallest piece in bytes; below it a sink copies instead of splicing.
const PIECE_MIN: u64 = ReceiverConfig::SPLICE_MIN;

/// Longest wait before looking again whether the waiting stream was stopped.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A token bucket in bytes, which goes into debt: who finds it positive may send, however much,
/// and those who come later wait until that is paid.
#[derive(Debug)]
pub struct RateLimiter {
    state: Mutex<Bucket>,
    changed: Condvar,
    spent: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    /// Bytes.
    level: f64,
    filled: Instant,
}

impl RateLimiter {
    /// A limiter at this rate in bytes per second; 0 for none.
    pub fn new(rate: u64) -> Self {
        Self {
            state: Mutex::new(Bucket {
                rate,
                level: 0.0,
                filled: Instant::now(),
            }),
            changed: Condvar::new(),
            spent: AtomicU64::new(0),
        }
    }

    /// Changes the rate (bytes per second, 0 for none), for those who wait now, too.
    pub fn set_rate(&self, rate: u64) {
        let mut bucket = lock(&self.state);
        *bucket = Bucket {
            rate,
            level: 0.0,
            filled: Instant::now(),
        };
        drop(bucket);
        self.changed.notify_all();
    }

    /// The rate in bytes per second; 0 is no limit.
    pub fn rate(&self) -> u64 {
        lock(&self.state).rate
    }

    /// Bytes to be sent at a time at this rate, at most `most`: a power of two, so that pieces end where blocks and
    /// regions do.
    pub(super) fn piece(&self, most: u64) -> u64 {
        let rate = self.rate();
        if rate == 0 {
            return most;
        }
        let bytes = (rate as f64 * PIECE.as_secs_f64()) as u64;
        let rounded = bytes.checked_next_power_of_two().unwrap_or(most);
        rounded.max(PIECE_MIN).min(most)
    }

    /// Bytes that were let through so far.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Waits until this many bytes may be sent. Returns `false` at once when `stopped` says so.
    pub(super) fn acquire(&self, bytes: u64, stopped: impl Fn() -> bool) -> bool {
        let mut bucket = lock(&self.state);
        loop {
            if stopped() {
                return false;
            }
            if bucket.rate == 0 {
                self.spent.fetch_add(bytes, Ordering::Relaxed);
                return true;
            }
            bucket.fill(Instant::now());
            if bucket.level >= 0.0 {
                bucket.level -= bytes as f64;
                self.spent.fetch_add(bytes, Ordering::Relaxed);
                return true;
            }
            let wait = Duration::try_from_secs_f64(-bucket.level / bucket.rate as f64)
                .unwrap_or(LOOK_AGAIN)
                .clamp(Duration::from_millis(1), LOOK_AGAIN);
            (bucket, _) = self
                .changed
                .wait_timeout(bucket, wait)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let rate = self.rate as f64;
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + passed * rate).min(BURST.as_secs_f64() * rate);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roughly_the_rate() {
        let limiter = RateLimiter::new(10_000_000);
        let start = Instant::now();
        for _ in 0..30 {
            assert!(limiter.acquire(100_000, || false));
        }
        assert_eq!(limiter.spent(), 3_000_000);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(220), "{took:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }

    #[test]
    fn what_is_limited_goes_in_small_pieces() {
        const MIB: u64 = 1 << 20;
        let limiter = RateLimiter::new(0);
        assert_eq!(limiter.piece(MIB), MIB);
        for (rate, piece) in [
            (1, 64 << 10),
            (16 * MIB, 64 << 10),
            (58 * MIB, 128 << 10),
            (200 * MIB, 512 << 10),
            (u64::MAX, MIB),
        ] {
            limiter.set_rate(rate);
            assert_eq!(limiter.piece(MIB), piece, "at {rate} bytes a second");
        }
        limiter.set_rate(1);
        assert_eq!(limiter.piece(4096), 4096, "no more than a stream sends");
    }

    #[test]
    fn no_limit_does_not_wait_and_a_change_wakes() {
        let limiter = RateLimiter::new(1);
        assert!(
            limiter.acquire(1 << 40, || false),
            "the first goes into debt"
        );
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| limiter.acquire(1, || false));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            limiter.set_rate(0);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(limiter.rate(), 0);
    }

    #[test]
    fn stopping_ends_the_wait() {
        let limiter = RateLimiter::new(1);
        assert!(limiter.acquire(1 << 40, || false));
        let start = Instant::now();
        assert!(!limiter.acquire(1, || start.elapsed() > Duration::from_millis(50)));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
