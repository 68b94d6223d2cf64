//! The handle of a stream's thread.

use super::StreamError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;

/// Called once, on the stream's thread, with how it ended. `Ok`, which only a receiver knows, is an
/// end between two frames: the peer closed, or this side stopped it there.
pub type OnEnd = Box<dyn FnOnce(Result<(), StreamError>) + Send>;

/// The thread has not ended in time; its handle is in here.
#[derive(Debug, Error)]
#[error("a stream's thread has not ended in time")]
pub struct StillRunning(pub StreamThread);

/// A running stream.
pub struct StreamThread {
    stop: Arc<dyn Fn() + Send + Sync>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl std::fmt::Debug for StreamThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamThread")
            .field(&self.thread.thread().name())
            .finish()
    }
}

impl StreamThread {
    /// Runs `body` on a thread, then `closing` with its result, then `on_end` with what that made
    /// of it. `stop` must make `body` return soon. A `body` that panics is closed like any other:
    /// nobody waits for ever for something that it was to tell.
    pub(super) fn spawn(
        name: String,
        stop: impl Fn() + Send + Sync + 'static,
        body: impl FnOnce() -> Result<(), StreamError> + Send + 'static,
        closing: impl FnOnce(Result<(), StreamError>) -> Result<(), StreamError> + Send + 'static,
        on_end: OnEnd,
    ) -> io::Result<Self> {
        let (send_ended, ended) = channel();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // Dropped on any way out, a panic included: that is what the receiver waits for.
            let _ended = send_ended;
            // What the body leaves half done is its own and the queues', which are closed.
            let result = catch_unwind(AssertUnwindSafe(body));
            on_end(closing(result.unwrap_or(Err(StreamError::Panicked))));
        })?;
        Ok(Self {
            stop: Arc::new(stop),
            ended,
            thread,
        })
    }

    /// Ends the stream; returns at once.
    pub fn stop(&self) {
        (self.stop)();
    }

    /// Has the thread ended?
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the thread has ended, at most this long.
    pub fn join(self, timeout: Duration) -> Result<(), StillRunning> {
        match self.ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Err(StillRunning(self)),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if let Err(panic) = self.thread.join() {
                    std::panic::resume_unwind(panic);
                }
                Ok(())
            }
        }
    }
}
