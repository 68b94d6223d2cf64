//! What was given to a stream and is not durable at the sink yet.
//!
//! A token goes in once ([`AckTracker::open`] or [`AckTracker::open_with_sequence`]) and is told
//! done once: by an acknowledgement, by a failure of its own, or by the end of the stream.

use super::{SendError, lock};
use blockio::IoError;
use std::collections::VecDeque;
use std::sync::Mutex;
use thiserror::Error;

/// Called with a token and its end; `Ok` is: durable at the sink.
pub type TokenDone = Box<dyn Fn(u64, Result<(), IoError>) + Send + Sync>;

/// The peer acknowledged what cannot be: the feed has to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the peer acknowledged frame {acknowledged}, the last sent is {sent}")]
pub struct AckError {
    /// By the peer.
    pub acknowledged: u64,
    /// The highest sequence number given out.
    pub sent: u64,
}

/// Tokens of one data stream, and its sequence numbers.
pub struct AckTracker {
    state: Mutex<State>,
    on_done: TokenDone,
}

struct State {
    /// The last sequence number given out; they start at 1.
    sent: u64,
    /// Acknowledged as durable.
    durable: u64,
    /// In the order of opening, which is the order of their sequence numbers, too.
    entries: VecDeque<Entry>,
    closed: bool,
}

struct Entry {
    token: u64,
    /// Of its last frame; `None` while not all of its frames have been numbered.
    sequence: Option<u64>,
}

impl AckTracker {
    /// A tracker for a new stream.
    pub fn new(on_done: TokenDone) -> Self {
        Self {
            state: Mutex::new(State {
                sent: 0,
                durable: 0,
                entries: VecDeque::new(),
                closed: false,
            }),
            on_done,
        }
    }

    /// Takes a token on whose frames are numbered later.
    pub fn open(&self, token: u64) -> Result<(), SendError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendError::Closed);
        }
        state.entries.push_back(Entry {
            token,
            sequence: None,
        });
        Ok(())
    }

    /// Takes a token on that is one frame, and numbers it.
    pub fn open_with_sequence(&self, token: u64) -> Result<u64, SendError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendError::Closed);
        }
        state.sent += 1;
        let sequence = state.sent;
        state.entries.push_back(Entry {
            token,
            sequence: Some(sequence),
        });
        Ok(sequence)
    }

    /// Numbers a frame.
    pub fn next_sequence(&self) -> u64 {
        let mut state = lock(&self.state);
        state.sent += 1;
        state.sent
    }

    /// The token's last frame has been sent.
    pub fn seal(&self, token: u64, sequence: u64) {
        let mut state = lock(&self.state);
        if let Some(entry) = state
            .entries
            .iter_mut()
            .find(|e| e.token == token && e.sequence.is_none())
        {
            entry.sequence = Some(sequence);
        }
        // The acknowledgement may have been faster than this call.
        let done = state.take_durable();
        drop(state);
        self.tell(done);
    }

    /// The token failed by itself; the stream goes on.
    pub fn fail(&self, token: u64, error: IoError) {
        let mut state = lock(&self.state);
        let found = state
            .entries
            .iter()
            .position(|e| e.token == token && e.sequence.is_none());
        if let Some(index) = found {
            state.entries.remove(index);
        }
        let done = state.take_durable();
        drop(state);
        if found.is_some() {
            (self.on_done)(token, Err(error));
        }
        self.tell(done);
    }

    /// The sink says that every frame up to `durable` is durable.
    pub fn acknowledged(&self, durable: u64) -> Result<(), AckError> {
        let mut state = lock(&self.state);
        if durable > state.sent {
            return Err(AckError {
                acknowledged: durable,
                sent: state.sent,
            });
        }
        // Acknowledgements that overtook each other are no harm.
        state.durable = state.durable.max(durable);
        let done = state.take_durable();
        drop(state);
        self.tell(done);
        Ok(())
    }

    /// The stream has ended: every token left ends with this error, and no new one is taken.
    /// More than once is once.
    pub fn close(&self, error: IoError) {
        let mut state = lock(&self.state);
        state.closed = true;
        let left = std::mem::take(&mut state.entries);
        drop(state);
        for entry in left {
            (self.on_done)(entry.token, Err(error));
        }
    }

    /// Tokens that have not been told done.
    pub fn outstanding(&self) -> usize {
        lock(&self.state).entries.len()
    }

    /// The last sequence number given out; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        lock(&self.state).sent
    }

    fn tell(&self, done: Vec<u64>) {
        for token in done {
            (self.on_done)(token, Ok(()));
        }
    }
}

impl State {
    /// Removes the tokens that are durable. Those behind one whose frames are not all numbered
    /// have higher numbers than have been acknowledged, or none.
    fn take_durable(&mut self) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(entry) = self.entries.front() {
            match entry.sequence {
                Some(sequence) if sequence <= self.durable => done.push(entry.token),
                _ => break,
            }
            self.entries.pop_front();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockio::IoErrorKind;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;

    type Told = Arc<Mutex<Vec<(u64, bool)>>>;

    fn tracker() -> (AckTracker, Told) {
        let told = Told::default();
        let log = told.clone();
        let tracker = AckTracker::new(Box::new(move |token, result| {
            lock(&log).push((token, result.is_ok()));
        }));
        (tracker, told)
    }

    #[test]
    fn an_acknowledgement_faster_than_the_seal() {
        let (tracker, told) = tracker();
        tracker.open(7).unwrap();
        let sequence = tracker.next_sequence();
        tracker.acknowledged(sequence).unwrap();
        assert!(lock(&told).is_empty());
        tracker.seal(7, sequence);
        assert_eq!(*lock(&told), [(7, true)]);
    }

    #[test]
    fn a_peer_cannot_acknowledge_what_was_not_sent() {
        let (tracker, told) = tracker();
        tracker.open_with_sequence(1).unwrap();
        assert_eq!(
            tracker.acknowledged(2),
            Err(AckError {
                acknowledged: 2,
                sent: 1
            })
        );
        assert!(lock(&told).is_empty());
    }

    proptest! {
        /// Whatever the order of acknowledgements, failures and the cut: each token once, and
        /// `Ok` only up to what was acknowledged.
        #[test]
        fn each_token_is_told_once(
            steps in proptest::collection::vec((0u8..4, 0u64..40), 0..60),
        ) {
            let (tracker, told) = tracker();
            let gone = IoError::new(IoErrorKind::Gone);
            let mut sequences = HashMap::new();
            let mut acknowledged = 0;
            let mut failed = Vec::new();
            for (token, (step, number)) in steps.iter().enumerate() {
                let token = token as u64;
                match step {
                    0 => {
                        sequences.insert(token, tracker.open_with_sequence(token).unwrap());
                    }
                    1 => {
                        tracker.open(token).unwrap();
                        tracker.next_sequence();
                        let sequence = tracker.next_sequence();
                        sequences.insert(token, sequence);
                        tracker.seal(token, sequence);
                    }
                    2 => {
                        tracker.open(token).unwrap();
                        tracker.next_sequence();
                        failed.push(token);
                        tracker.fail(token, gone);
                    }
                    _ => {
                        if tracker.acknowledged(*number).is_ok() {
                            acknowledged = acknowledged.max(*number);
                        }
                    }
                }
            }
            tracker.close(gone);
            tracker.close(gone);
            prop_assert_eq!(tracker.open(99), Err(SendError::Closed));
            let mut told = lock(&told).clone();
            told.sort_unstable();
            let mut expected: Vec<_> = sequences
                .iter()
                .map(|(token, sequence)| (*token, *sequence <= acknowledged))
                .chain(failed.iter().map(|token| (*token, false)))
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(told, expected);
        }
    }
}
