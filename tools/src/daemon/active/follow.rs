//! What a lane asks of the control plane: commits of plex states, and things to tell.

use super::super::Node;
use super::super::groups::CommitError;
use super::super::verbs::{chain, pvmove};
use crate::api::LvName;
use crate::lane::{LaneEvent, LaneHandle};
use blockio::{IoError, IoErrorKind};
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;
use volmgr::engine::Note;
use volmgr::plan::{self, PlanError};

/// What the lane asks of the control plane, until it ends.
pub(super) async fn follow(
    node: Arc<Node>,
    volume: Uuid,
    lane: LaneHandle,
    mut events: mpsc::Receiver<LaneEvent>,
) {
    while let Some(event) = events.recv().await {
        // The volume may have been renamed since.
        let name = node
            .active
            .lock()
            .get(&volume)
            .map(|active| active.name.clone());
        let Some(name) = name else {
            if let LaneEvent::CommitPlexState { io, .. } = event {
                lane.commit_done(io, Err(IoError::new(IoErrorKind::Gone)));
            }
            continue;
        };
        match event {
            LaneEvent::CommitPlexState {
                io,
                plex,
                state,
                reason,
            } => {
                let result = node.commit(&name.vg, |group| {
                    plan::set_plex_state(group, &name.lv, plex.0, state)
                });
                let text = format!("plex{} is {state:?}: {reason}", plex.0);
                let result = match result {
                    Ok(view) => {
                        node.event("plex-state", &name.to_string(), &text);
                        if view.volume(&name.lv).is_some_and(pvmove::pending) {
                            pvmove::finish_soon(&node, volume);
                        }
                        Ok(())
                    }
                    Err(error) if not_yet(&error) => {
                        // The engine asks again. Who made the copy of the log says it where that fails.
                        tracing::debug!(volume = %name, %error, "not active yet");
                        Err(IoError::new(IoErrorKind::Medium))
                    }
                    Err(error) => {
                        let text = format!("{text}; this could not be committed: {error}");
                        node.event("commit-failed", &name.to_string(), &text);
                        Err(IoError::new(IoErrorKind::Medium))
                    }
                };
                lane.commit_done(io, result);
            }
            LaneEvent::Note(note) => {
                tell(&node, &name, &note);
                if let Some(feeds) = node.feeds() {
                    feeds.note(&name, &note);
                }
            }
            LaneEvent::Stopped { failure } => {
                if let Some(why) = failure {
                    let failed = node.active.lock().remove(&volume);
                    if let Some(block) = failed.and_then(|active| active.block) {
                        let its = Arc::clone(&node);
                        let ended = tokio::task::spawn_blocking(move || block.end(&its, true));
                        if let Ok(Err(error)) = ended.await {
                            node.event("ublk-stuck", &name.to_string(), &chain(&error));
                        }
                    }
                    node.event(
                        "lv-failed",
                        &name.to_string(),
                        &format!("the volume is no longer served: {why}"),
                    );
                }
                return;
            }
        }
    }
}

/// Is it only that the plex's copy of the log is still being made, or that a disk of it has been given up, of which the
/// engine is about to hear?
fn not_yet(error: &CommitError<PlanError>) -> bool {
    matches!(
        error,
        CommitError::Refused(PlanError::LogNotValid { .. } | PlanError::DiskMissing { .. })
    )
}

/// The event log's version of a note.
fn tell(node: &Node, name: &LvName, note: &Note) {
    let object = name.to_string();
    match note {
        Note::PlexError {
            plex,
            op,
            range,
            error,
        } => node.event(
            "plex-error",
            &object,
            &format!("plex{}: {op:?} of {range:?} failed: {error}", plex.0),
        ),
        Note::PlexRetired { plex, errors } => node.event(
            "plex-retired",
            &object,
            &format!(
                "plex{} is out of service: {errors} of its reads failed lately (replace its disk, then plexdetach and \
                 plexattach; plexsync takes it back as it is)",
                plex.0
            ),
        ),
        Note::ReadRepaired { plex, range } => node.event(
            "read-repaired",
            &object,
            &format!("plex{}: {range:?} rewritten from another plex", plex.0),
        ),
        Note::PlexSynced { plex } => node.event(
            "plex-synced",
            &object,
            &format!("plex{} is in step", plex.0),
        ),
        Note::FeedRestored { .. } => node.event(
            "feed-restored",
            &object,
            "nothing is missing any more of what the online restore brings",
        ),
        // The feeds have better words for theirs.
        other => tracing::debug!(object, ?other, "note"),
    }
}
