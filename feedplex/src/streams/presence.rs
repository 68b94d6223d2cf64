//! Whether an application is there now: pure decisions from what is seen of its requests, about twenty times a second.
//!
//! A copy that yields must not go on yielding to somebody who has left: most resyncs are shorter than the time that the
//! controller's own intervals take to be sure. It must not go to full speed in each pause of an application that
//! works in bursts either; so the longest pause that one has come back from lately says how long to wait.

use std::time::Duration;

/// Silence after which nobody is there, where no longer pause is known.
const SILENCE: Duration = Duration::from_millis(200);

/// The longest pause that is waited for: in one as long as that a copy may as well go on, for what it costs the next burst is little
/// beside it.
const PAUSE_MAX: Duration = Duration::from_millis(750);

/// A pause is remembered so long.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Looks that are further apart say nothing about pauses.
const LOOKS_APART: Duration = Duration::from_millis(150);

/// What is known of the applications of one volume. Times are since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// At the last look: when it was, and the requests that had begun.
    looked: Option<(Duration, u64)>,
    /// When a request was last under way or had come since the look before.
    busy: Duration,
    /// The longest pause of late that ended with a request, and when it did.
    pause: Option<(Duration, Duration)>,
}

impl Presence {
    /// `begun` requests have come so far and `ended` of them have ended. Is somebody there?
    pub fn look(&mut self, now: Duration, begun: u64, ended: u64) -> bool {
        let before = self.looked.replace((now, begun));
        let Some((then, begun_before)) = before else {
            self.busy = now;
            return true;
        };
        if begun != begun_before || begun != ended {
            let pause = now.saturating_sub(self.busy);
            if now.saturating_sub(then) <= LOOKS_APART && pause <= PAUSE_MAX {
                self.remember(now, pause);
            }
            self.busy = now;
        }
        now.saturating_sub(self.busy) < self.enough(now)
    }

    fn remember(&mut self, now: Duration, pause: Duration) {
        let longer = |(known, seen)| pause >= known || now.saturating_sub(seen) > REMEMBERED;
        if self.pause.is_none_or(longer) {
            self.pause = Some((pause, now));
        }
    }

    /// Silence after which nobody is there.
    fn enough(&self, now: Duration) -> Duration {
        let known = self
            .pause
            .filter(|(_, seen)| now.saturating_sub(*seen) <= REMEMBERED);
        let pause = known.map_or(Duration::ZERO, |(pause, _)| pause);
        pause.saturating_mul(2).max(SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: u64 = 50;

    /// Looks every [`LOOK`] ms from `from` to `to`, a request coming (and ending) at each of these moments; when somebody was there.
    fn looks(
        presence: &mut Presence,
        from: u64,
        to: u64,
        requests: impl Fn(u64) -> u64,
    ) -> Vec<(u64, bool)> {
        (from..to)
            .step_by(LOOK as usize)
            .map(|ms| {
                let count = requests(ms);
                (ms, presence.look(Duration::from_millis(ms), count, count))
            })
            .collect()
    }

    #[test]
    fn who_has_worked_steadily_and_stops_is_gone_soon() {
        let mut presence = Presence::default();
        let seen = looks(&mut presence, 0, 2000, |ms| ms.min(1000));
        let gone = seen.iter().find(|(_, there)| !there).map(|(ms, _)| *ms);
        assert_eq!(gone, Some(1000 + SILENCE.as_millis() as u64));
        assert!(
            seen.iter()
                .filter(|(ms, _)| *ms > 1200)
                .all(|(_, there)| !there)
        );
    }

    #[test]
    fn pauses_of_one_who_works_in_bursts_are_waited_for_once_they_are_known() {
        let mut presence = Presence::default();
        // A request at each half second.
        let seen = looks(&mut presence, 0, 10_000, |ms| ms / 500);
        assert!(
            seen.iter().any(|(ms, there)| *ms < 500 && !there),
            "not known yet"
        );
        assert!(
            seen.iter()
                .filter(|(ms, _)| *ms >= 500)
                .all(|(_, there)| *there)
        );
        // It ends: twice the pause is enough.
        let seen = looks(&mut presence, 10_000, 15_000, |_| 19);
        let gone = seen.iter().find(|(_, there)| !there).map(|(ms, _)| *ms);
        assert_eq!(gone, Some(9_500 + 1_000));
    }

    #[test]
    fn a_pause_is_forgotten_and_long_ones_are_not_waited_for() {
        let mut presence = Presence::default();
        let ms = Duration::from_millis;
        looks(&mut presence, 0, 6_000, |ms| ms / 1_000);
        assert_eq!(presence.enough(ms(6_000)), SILENCE);
        looks(&mut presence, 6_000, 8_000, |ms| ms / 700);
        assert_eq!(presence.enough(ms(8_000)), ms(1_400));
        looks(&mut presence, 8_000, 40_000, |ms| ms);
        assert_eq!(presence.enough(ms(40_000)), SILENCE);
    }

    #[test]
    fn who_waits_for_a_slow_disk_is_there() {
        let mut presence = Presence::default();
        for ms in (0..5_000).step_by(LOOK as usize) {
            assert!(presence.look(Duration::from_millis(ms), 7, 6), "{ms}");
        }
        let ms = |ms| Duration::from_millis(ms);
        assert!(presence.look(ms(5_000), 7, 7), "just ended");
        assert!(!presence.look(ms(5_300), 7, 7));
    }

    #[test]
    fn looks_far_apart_teach_no_pauses() {
        let mut presence = Presence::default();
        for s in 0..20 {
            presence.look(Duration::from_secs(s), s, s);
        }
        assert_eq!(presence.enough(Duration::from_secs(20)), SILENCE);
    }
}
