//! `feedattach`: a new feed, or one that goes on from its point.

use super::super::Feeds;
use super::super::entry::FeedEntry;
use super::super::record::{self, Ask};
use super::{ANSWER_TIMEOUT, find, next_attempt, remove_record};
use crate::api::{Command, Failure, LvName};
use crate::daemon::verbs::{Ctx, fail, find_volume, wrong};
use feedplex::session::FeedState;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::model::{Direction, Feed, FeedIntent, FeedMode, OnDisconnect};

pub(super) async fn attach(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Feedattach {
        target,
        mode,
        on_disconnect,
        create,
        rate,
        discard_peer,
        ..
    } = command
    else {
        return Err(wrong("request", "cannot attach", "not feedattach", ""));
    };
    let what = "cannot attach";
    let (view, volume) = find_volume(&feeds.node, lv, what)?;
    if feeds.node.peers.get(peer).is_none() {
        return Err(fail(
            lv,
            what,
            format!("no peer {peer}"),
            "peeradd makes it known",
        ));
    }
    let wishes = Wishes {
        mode: match mode.as_deref() {
            None => None,
            Some("async") => Some(FeedMode::Async),
            Some("sync") => Some(FeedMode::Sync),
            Some(other) => {
                return Err(wrong(
                    lv,
                    what,
                    format!("{other} is no mode"),
                    "async or sync",
                ));
            }
        },
        on_disconnect: match on_disconnect.as_deref() {
            None => None,
            Some("degrade") => Some(OnDisconnect::Degrade),
            Some("block") => Some(OnDisconnect::Block),
            Some(other) => {
                return Err(wrong(
                    lv,
                    what,
                    format!("{other} is nothing to do when a peer is away"),
                    "block or degrade",
                ));
            }
        },
        rate: *rate,
    };
    if feeds.node.lane(lv).is_none() {
        return Err(fail(
            lv,
            what,
            "the volume is not active",
            format!("lvchange -ay {lv}"),
        ));
    }
    let target = target.clone().unwrap_or_else(|| lv.clone());
    let ask = Ask {
        create: *create,
        discard_peer: *discard_peer,
        attach: true,
        ..Ask::default()
    };
    let known = volume.feeds.iter().find(|feed| feed.peer == peer);
    let synchronous = wishes.mode.or(known.map(|feed| feed.mode)) == Some(FeedMode::Sync);
    if wishes.on_disconnect == Some(OnDisconnect::Block) && !synchronous {
        return Err(wrong(
            lv,
            what,
            "writes of an async feed wait for nobody",
            "--mode sync --on-disconnect block",
        ));
    }
    if let Some(feed) = known {
        let refused = feeds
            .entry(feed.uuid)
            .is_some_and(|entry| entry.status().state == FeedState::Refused);
        check_again(lv, peer, feed, refused && *discard_peer, what)?;
    } else if let Some(other) = volume.feeds.iter().find(|feed| feed.fills()) {
        // Cascading works; what is refused is a source that is not its own master yet.
        if !other.seeded {
            return Err(fail(
                lv,
                what,
                format!("it is still being filled by {}", other.peer),
                "feedwait first",
            ));
        }
    }
    if ctx.would(&format!("feed {lv} to {target} at {peer}")) {
        return Ok(());
    }
    let object = format!("{lv} {peer}");
    match known {
        Some(feed) => {
            let entry = find(feeds, lv, peer, what)?;
            let before = entry.status().attempts;
            commit_wishes(feeds, &entry, &wishes, lv, what)?;
            entry.ask(ask, None);
            entry.wake.notify_one();
            let resting = Feeds::resting_state(feed);
            let result = next_attempt(&entry, &object, what, before).await;
            if result.is_err() && resting == FeedState::Split {
                // It stays what it was; the reason has been told.
                entry.set_enabled(false);
                entry.update(|status| status.state = FeedState::Split);
            }
            result?;
        }
        None => {
            let mut feed = record::provisional(
                Uuid::new_v4(),
                peer,
                &target.to_string(),
                Direction::Out,
                true,
                wishes.mode.unwrap_or(FeedMode::Async),
                rate.unwrap_or(0),
            );
            feed.on_disconnect = wishes.on_disconnect.unwrap_or_default();
            let size = view.group.bytes_of(&volume);
            let entry = Arc::new(FeedEntry::new(
                lv.clone(),
                &feed,
                size,
                FeedState::Connecting,
            ));
            entry.ask(ask, Some(feed));
            let entry = feeds.add(entry);
            if let Err(failure) = next_attempt(&entry, &object, what, 0).await {
                give_up_first(feeds, &entry, lv).await;
                return Err(failure);
            }
        }
    }
    feeds
        .node
        .event("feed-attached", &object, &format!("to {target}"));
    ctx.out
        .message(format!("Feed of {lv} to {target} at {peer} attached."));
    Ok(())
}

/// A feed that exists may be attached again where it ended or was stopped.
/// `given_up`: it was refused, and the admin says now that what is at the peer may go.
fn check_again(
    lv: &LvName,
    peer: &str,
    feed: &Feed,
    given_up: bool,
    what: &str,
) -> Result<(), Failure> {
    if !feed.initiator {
        return Err(fail(
            lv,
            what,
            format!("its feed with {peer} was attached over there"),
            "attach it again on that node",
        ));
    }
    match (&feed.intent, feed.direction) {
        (FeedIntent::Split { .. }, Direction::Out) => Ok(()),
        (FeedIntent::Split { .. }, Direction::In) => Err(fail(
            lv,
            what,
            format!("the last direction was from {peer}"),
            format!("feedswap {lv} {peer} makes this side the source"),
        )),
        (FeedIntent::Attached, Direction::Out) if given_up => Ok(()),
        (FeedIntent::Paused, _) => Err(fail(lv, what, "the feed is paused", "feedresume")),
        (FeedIntent::Attached | FeedIntent::Detaching { .. }, _) => Err(fail(
            lv,
            what,
            format!("it is attached to {peer} already"),
            "see feeds",
        )),
    }
}

/// A first attempt that failed leaves nothing behind.
async fn give_up_first(feeds: &Feeds, entry: &Arc<FeedEntry>, lv: &LvName) {
    feeds.remove(entry.uuid);
    if entry.exclusive(ANSWER_TIMEOUT).await.is_none() {
        tracing::warn!(%lv, "a refused feed's session does not end");
    }
    if feeds.record(entry).is_some() {
        if let Err(error) = remove_record(feeds, entry) {
            tracing::warn!(%lv, error, "the record of a refused feed is left");
        }
        if let Err(error) = feeds.reconfigure(entry).await {
            tracing::warn!(%lv, error, "the data path still tracks a refused feed");
        }
    }
}

/// How the admin wants a feed to be, where anything was said.
struct Wishes {
    mode: Option<FeedMode>,
    on_disconnect: Option<OnDisconnect>,
    /// Bytes per second.
    rate: Option<u64>,
}

/// A feed that is there already gets what was said this time; the rest stays.
fn commit_wishes(
    feeds: &Feeds,
    entry: &FeedEntry,
    wishes: &Wishes,
    lv: &LvName,
    what: &str,
) -> Result<(), Failure> {
    if let Some(rate) = wishes.rate {
        entry.limiter.set_rate(rate);
    }
    let change = |feed: &mut Feed| {
        feed.mode = wishes.mode.unwrap_or(feed.mode);
        feed.on_disconnect = wishes.on_disconnect.unwrap_or(feed.on_disconnect);
        if feed.mode == FeedMode::Async {
            feed.on_disconnect = OnDisconnect::Degrade;
        }
        feed.rate = wishes.rate.unwrap_or(feed.rate);
    };
    feeds
        .commit_change(entry, |volume| {
            let mut known = volume.feeds.iter_mut();
            known.find(|feed| feed.uuid == entry.uuid).map(change);
        })
        .map_err(|why| fail(lv, what, why, ""))
}
