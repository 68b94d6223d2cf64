//! How much payload one frame of a bulk stream has.
//!
//! A frame costs both ends some turns of threads, however long it is, so a long one is cheap. While it comes, no other write gets to its
//! range at the sink, and on a slow link a live write waits behind it: so one that took longer than [`LONGEST`] is
//! followed by shorter ones.

use std::time::Duration;

/// A frame that takes longer is followed by a shorter one.
const LONGEST: Duration = Duration::from_millis(20);

/// One that takes less is followed by a longer one.
const SHORTEST: Duration = Duration::from_millis(6);

/// Least bytes; below it a sink copies instead of splicing.
const LEAST: u64 = super::ReceiverConfig::SPLICE_MIN;

/// Bytes at the beginning, when nothing is known of the link.
const FIRST: u64 = 1 << 20;

/// The size of a stream's next frame.
#[derive(Debug)]
pub(super) struct FrameSize {
    bytes: u64,
    most: u64,
}

impl FrameSize {
    /// Sizes up to so many bytes.
    pub(super) fn new(most: u64) -> Self {
        Self {
            bytes: FIRST.min(most),
            most,
        }
    }

    /// Of the next frame, at most.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A frame of so many bytes has been given to the socket, which took so long.
    pub(super) fn took(&mut self, bytes: u64, time: Duration) {
        if time > LONGEST {
            self.bytes = (self.bytes / 2).max(LEAST.min(self.most));
        } else if time < SHORTEST && bytes == self.bytes {
            self.bytes = (self.bytes * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames over a link of a steady rate, in bytes a second.
    fn settled(rate: u64, most: u64) -> u64 {
        let mut size = FrameSize::new(most);
        for _ in 0..20 {
            let bytes = size.bytes();
            size.took(bytes, Duration::from_secs_f64(bytes as f64 / rate as f64));
        }
        size.bytes()
    }

    #[test]
    fn a_frame_is_as_long_as_the_link_is_fast() {
        assert_eq!(settled(1 << 20, 4 << 20), LEAST);
        assert_eq!(settled(100 << 20, 4 << 20), 1 << 20);
        assert_eq!(settled(10 << 30, 4 << 20), 4 << 20);
        assert_eq!(settled(1 << 20, 4096), 4096);
    }

    #[test]
    fn short_frames_say_nothing_of_long_ones() {
        let mut size = FrameSize::new(4 << 20);
        size.took(4096, Duration::ZERO);
        assert_eq!(size.bytes(), FIRST);
    }

    proptest! {
        #[test]
        fn sizes_stay_in_bounds(
            most in 12u32..25,
            times in proptest::collection::vec((0u64..100, any::<bool>()), 0..50),
        ) {
            let most = 1u64 << most;
            let mut size = FrameSize::new(most);
            for (ms, whole) in times {
                let bytes = if whole { size.bytes() } else { 512 };
                size.took(bytes, Duration::from_millis(ms));
                prop_assert!(size.bytes() <= most && size.bytes() >= LEAST.min(most));
                prop_assert!(size.bytes().is_power_of_two());
            }
        }
    }
}
