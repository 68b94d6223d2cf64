//! How far a receiving stream has got.
//!
//! * *applied*: the highest number such that every frame up to it is done.
//! * *durable*: the highest number such that every frame up to it is done and durable: because a
//!   flush came after it, or because it said so itself (`FUA`, or nothing to store).
//!
//! Neither passes a frame that failed; a failed frame ends the stream.

use super::lock;
use super::sequences::SequenceSet;
use crate::device::DoneFn;
use blockio::{IoError, mutant};
use std::sync::{Arc, Condvar, Mutex};

/// Progress of one receiving stream, shared by its thread, its device's completions and whoever
/// acknowledges on the control stream.
pub struct StreamProgress {
    state: Mutex<State>,
    /// Applied has grown, or the stream ends.
    moved: Condvar,
    on_change: Box<dyn Fn(Moved) + Send + Sync>,
}

/// What has happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// [`StreamProgress::applied`] may have grown, which nobody waits to hear of.
    Applied,
    /// Every frame up to this one is durable.
    Durable(u64),
    /// The stream has failed.
    Failed,
}

#[derive(Default)]
struct State {
    applied: u64,
    /// Done, above `applied`.
    ahead: SequenceSet,
    /// Done, not known to be durable.
    volatile: SequenceSet,
    failure: Option<IoError>,
    /// The stream is over: nobody waits in here any more.
    ended: bool,
    /// Who sleeps in [`StreamProgress::wait_applied`]: to wake nobody is a system call, too.
    asleep: u32,
    /// Ends the stream's thread when an operation fails.
    on_failure: Option<Box<dyn Fn() + Send>>,
}

impl StreamProgress {
    /// Of a new stream. `on_change` is called, from any thread, whenever something has moved; it should only wake somebody.
    pub fn new(on_change: impl Fn(Moved) + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::new(State::default()),
            moved: Condvar::new(),
            on_change: Box::new(on_change),
        }
    }

    /// Every frame up to this one is done.
    pub fn applied(&self) -> u64 {
        lock(&self.state).applied
    }

    /// Every frame up to this one is durable; never more than [`Self::applied`].
    pub fn durable(&self) -> u64 {
        lock(&self.state).durable()
    }

    /// The error that ended the stream, if an operation on the volume did.
    pub fn failure(&self) -> Option<IoError> {
        lock(&self.state).failure
    }

    /// A flush of the volume succeeded that was submitted when [`Self::applied`] was (at least)
    /// this: everything up to it is durable.
    pub fn flushed(&self, applied: u64) {
        let mut state = lock(&self.state);
        let through = applied.min(state.applied);
        state.volatile.remove_through(through);
        let durable = state.durable();
        drop(state);
        (self.on_change)(Moved::Durable(durable));
    }

    /// What the stream's thread has to have called when an operation fails.
    pub(super) fn set_on_failure(&self, stop: impl Fn() + Send + 'static) {
        lock(&self.state).on_failure = Some(Box::new(stop));
    }

    /// A frame is done. `durable` says whether that includes being durable.
    pub fn complete(&self, sequence: u64, durable: bool) {
        let mut state = lock(&self.state);
        debug_assert!(sequence > state.applied, "frame {sequence} is done twice");
        let before = state.durable();
        if !durable {
            state.volatile.insert(sequence);
        }
        state.ahead.insert(sequence);
        let next = state.applied + 1;
        if let Some(last) = state.ahead.take_run_at(next) {
            state.applied = last;
        }
        let durable = state.durable();
        let moved = match durable > before {
            true => Moved::Durable(durable),
            false => Moved::Applied,
        };
        let asleep = state.asleep > 0;
        drop(state);
        if asleep {
            self.moved.notify_all();
        }
        (self.on_change)(moved);
    }

    /// A frame failed: the stream ends, and nothing from this frame on is ever acknowledged.
    pub fn fail(&self, error: IoError) {
        let mut state = lock(&self.state);
        let first = state.failure.is_none();
        state.failure.get_or_insert(error);
        state.ended = true;
        if first && let Some(stop) = &state.on_failure {
            stop();
        }
        drop(state);
        self.moved.notify_all();
        (self.on_change)(Moved::Failed);
    }

    /// For the device: the completion of one frame.
    pub(super) fn done(self: &Arc<Self>, sequence: u64, durable: bool) -> DoneFn {
        let progress = self.clone();
        Box::new(move |result| match result {
            Ok(()) => progress.complete(sequence, durable),
            Err(error) => progress.fail(error),
        })
    }

    /// Waits until every frame up to this one is applied; `false` if the stream ends instead.
    pub(super) fn wait_applied(&self, through: u64) -> bool {
        let mut state = lock(&self.state);
        state.asleep += 1;
        let mut state = self
            .moved
            .wait_while(state, |s| s.applied < through && !s.ended)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        state.asleep -= 1;
        state.applied >= through && !state.ended
    }

    /// The stream is over; ends [`Self::wait_applied`].
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.moved.notify_all();
    }
}

impl State {
    fn durable(&self) -> u64 {
        match self.volatile.first() {
            Some(_) if mutant("received-counts-as-durable") => self.applied,
            Some(first) => self.applied.min(first - 1),
            None => self.applied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockio::IoErrorKind;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn waiting_ends_when_all_before_is_done_or_the_stream_is_over() {
        let progress = StreamProgress::new(|_| {});
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| progress.wait_applied(2));
            progress.complete(2, false);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waiting.is_finished());
            progress.complete(1, false);
            assert!(waiting.join().unwrap());
            let waiting = scope.spawn(|| progress.wait_applied(3));
            progress.end();
            assert!(!waiting.join().unwrap());
        });
    }

    #[test]
    fn a_failure_stops_the_stream_once_and_is_not_passed() {
        let progress = Arc::new(StreamProgress::new(|_| {}));
        let stopped = Arc::new(AtomicU32::new(0));
        let count = stopped.clone();
        progress.set_on_failure(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        progress.done(1, true)(Ok(()));
        progress.done(2, true)(Err(IoError::new(IoErrorKind::Medium)));
        progress.done(3, true)(Ok(()));
        progress.done(4, true)(Err(IoError::new(IoErrorKind::NoSpace)));
        assert_eq!((progress.applied(), progress.durable()), (1, 1));
        assert_eq!(progress.failure(), Some(IoError::new(IoErrorKind::Medium)));
        assert_eq!(stopped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_waits_for_what_is_durable_hears_of_nothing_else() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let progress = StreamProgress::new(move |moved| lock(&log).push(moved));
        progress.complete(1, false);
        // Behind one that is not durable.
        progress.complete(2, true);
        progress.flushed(2);
        progress.complete(4, true);
        progress.complete(3, true);
        use Moved::{Applied, Durable};
        assert_eq!(
            *lock(&told),
            [Applied, Applied, Durable(2), Applied, Durable(4)]
        );
    }

    #[test]
    fn a_flush_counts_only_for_what_was_applied() {
        let progress = StreamProgress::new(|_| {});
        progress.complete(1, false);
        progress.complete(3, false);
        progress.flushed(5);
        assert_eq!(progress.durable(), 1);
        progress.complete(2, true);
        assert_eq!((progress.applied(), progress.durable()), (3, 2));
    }

    proptest! {
        #[test]
        fn like_a_list_of_flags(
            order in Just((1u64..=24).collect::<Vec<_>>()).prop_shuffle(),
            durable in proptest::collection::vec(any::<bool>(), 24),
            flush_after in proptest::collection::vec(any::<bool>(), 24),
        ) {
            let progress = StreamProgress::new(|_| {});
            let mut done = [false; 25];
            let mut safe = [false; 25];
            for (step, &sequence) in order.iter().enumerate() {
                let index = usize::try_from(sequence).unwrap();
                progress.complete(sequence, durable[step]);
                done[index] = true;
                safe[index] = durable[step];
                let applied = (1..25).take_while(|n| done[*n]).count();
                prop_assert_eq!(progress.applied(), applied as u64);
                if flush_after[step] {
                    progress.flushed(applied as u64);
                    safe[1..=applied].fill(true);
                }
                let expected = (1..25).take_while(|n| done[*n] && safe[*n]).count();
                prop_assert_eq!(progress.durable(), expected as u64);
            }
        }
    }
}
