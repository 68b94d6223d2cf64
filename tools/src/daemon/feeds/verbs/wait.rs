//! `feedwait`: until a feed is in a state, with progress.

use super::super::Feeds;
use super::super::entry::{FeedEntry, Status};
use super::super::rows::{state_name, state_of_name};
use super::find;
use crate::api::{Failure, LvName, Progress};
use crate::daemon::verbs::{Ctx, fail, wrong};
use feedplex::session::FeedState;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a volume that is wanted active is waited for.
const ACTIVATION: Duration = Duration::from_secs(10);

fn progress(status: &Status, total: u64) -> Option<Progress> {
    let what = match status.state {
        FeedState::FullSync => "full-sync",
        FeedState::Resync => "resync",
        _ => return None,
    };
    Some(Progress {
        what: what.into(),
        done: total.saturating_sub(status.dirty),
        total,
        rate: status.rate,
    })
}

/// The feed, waited for while its volume is being activated: a daemon that has just started answers
/// before it serves its volumes.
async fn appearing(
    feeds: &Feeds,
    lv: &LvName,
    peer: &str,
    what: &str,
) -> Result<Arc<FeedEntry>, Failure> {
    let began = Instant::now();
    loop {
        let found = find(feeds, lv, peer, what);
        let expected = feeds.node.volume(lv).is_some_and(|(_, volume)| {
            volume.active && volume.feeds.iter().any(|feed| feed.peer == peer)
        });
        if found.is_ok() || !expected || began.elapsed() > ACTIVATION {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn wait(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    state: &str,
    timeout_secs: Option<u64>,
) -> Result<(), Failure> {
    let what = "cannot wait";
    let wanted = state_of_name(state).ok_or_else(|| {
        wrong(
            lv,
            what,
            format!("{state} is no state of a feed"),
            "live, split, paused, disconnected, resync, full-sync, behind, refused",
        )
    })?;
    let entry = appearing(feeds, lv, peer, what).await?;
    let object = format!("{lv} {peer}");
    let began = Instant::now();
    let limit = timeout_secs.map(Duration::from_secs);
    let mut watch = entry.watch();
    let mut total = 0;
    loop {
        let status = watch.borrow_and_update().clone();
        if status.state == wanted {
            if let Some(last) = progress(&status, total) {
                ctx.out.progress(last);
            }
            return Ok(());
        }
        if status.state == FeedState::Refused {
            return Err(fail(
                &object,
                "waiting for the feed",
                &status.reason,
                "see feeds",
            ));
        }
        let over = matches!(status.state, FeedState::Split | FeedState::Paused);
        if over && wanted == FeedState::Live {
            return Err(fail(
                &object,
                "waiting for the feed",
                format!("it is {}", state_name(status.state)),
                "feedattach or feedresume",
            ));
        }
        total = total.max(status.dirty);
        if let Some(progress) = progress(&status, total) {
            ctx.out.progress(progress);
        }
        let pause = Duration::from_millis(200);
        let left = match limit {
            Some(limit) => match limit.checked_sub(began.elapsed()) {
                Some(left) => left.min(pause),
                None => {
                    return Err(fail(
                        &object,
                        "waiting for the feed",
                        format!(
                            "it is {} after {} s",
                            state_name(status.state),
                            limit.as_secs()
                        ),
                        "see feeds",
                    ));
                }
            },
            None => pause,
        };
        tokio::select! {
            // Either way the status is looked at again.
            _ = tokio::time::timeout(left, watch.changed()) => {}
            () = ctx.out.client_gone() => return Ok(()),
        }
        if entry.is_gone() {
            return Err(fail(
                &object,
                "waiting for the feed",
                "it has been removed",
                "",
            ));
        }
    }
}
