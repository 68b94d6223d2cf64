//! How far this side's log has come, for the peer to remember: so a side that goes back to an older copy of
//! its disks is recognised, even where that copy is of the same session.
//!
//! The log is made to go on before the peer is told, and only where something has flowed: what flows after
//! the moment of a copy is followed, within [`STAMP_EVERY`], by a log that is further than the copy's.

use super::super::Feeds;
use super::super::entry::FeedEntry;
use crate::lane::LaneHandle;
use feedplex::session::Event;
use feedplex::wire::control::{Message, Stamp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// At most so often the log is made to go on.
const STAMP_EVERY: Duration = Duration::from_secs(1);

/// So often what has been seen of the peer's log is committed: a commit is dear.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What a session has told and kept so far.
pub struct Stamping {
    told: Instant,
    kept: Instant,
    /// Bytes that had flowed when the log was last made to go on.
    moved: Option<u64>,
    telling: Option<JoinHandle<()>>,
}

impl Stamping {
    /// A session begins.
    pub fn new() -> Self {
        Self {
            told: Instant::now(),
            kept: Instant::now(),
            moved: None,
            telling: None,
        }
    }

    /// `moved` bytes have flowed so far.
    pub fn look(
        &mut self,
        feeds: &Arc<Feeds>,
        entry: &Arc<FeedEntry>,
        lane: &LaneHandle,
        events: &mpsc::UnboundedSender<Event>,
        moved: u64,
    ) {
        if self.kept.elapsed() >= KEEP_EVERY {
            self.kept = Instant::now();
            let (feeds, entry) = (feeds.clone(), entry.clone());
            tokio::spawn(async move { feeds.keep_seen(&entry) });
        }
        let Some(before) = self.moved else {
            self.moved = Some(moved);
            return;
        };
        let busy = self.telling.as_ref().is_some_and(|t| !t.is_finished());
        if before == moved || busy || self.told.elapsed() < STAMP_EVERY {
            return;
        }
        (self.told, self.moved) = (Instant::now(), Some(moved));
        let (lane, events) = (lane.clone(), events.clone());
        self.telling = Some(tokio::spawn(async move {
            match lane.touch_log().await {
                Ok(stamp) => {
                    // The session may be over.
                    let _gone = events.send(Event::Relay(Message::Stamp(Stamp { stamp })));
                }
                Err(error) => tracing::debug!(%error, "the log does not go on"),
            }
        }));
    }
}
