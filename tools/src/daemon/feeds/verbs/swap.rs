//! `feedswap`: the roles are exchanged, on a live feed or from a point.

use super::super::Feeds;
use super::super::entry::FeedEntry;
use super::super::record::Ask;
use super::super::rows::state_name;
use super::{END_TIMEOUT, find, live, next_attempt, record_of};
use crate::api::{Command, Failure, LvName};
use crate::daemon::active;
use crate::daemon::verbs::{Ctx, fail, find_volume, wrong};
use feedplex::session::{Event, FeedState};
use std::sync::Arc;
use uuid::Uuid;
use volmgr::model::{Direction, Feed, FeedIntent};

/// The point at which roles are exchanged.
pub fn swap_point() -> (Uuid, String, u64) {
    let time = crate::daemon::events::now();
    (Uuid::new_v4(), format!("swap-{time}"), time)
}

pub(super) async fn swap(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Feedswap {
        point,
        online,
        discard_local,
        while_open,
        ..
    } = command
    else {
        return Err(wrong("request", "cannot swap", "not feedswap", ""));
    };
    let what = "cannot swap";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    let object = format!("{lv} {peer}");
    let becomes_sink = feed.direction == Direction::Out;
    let (_, volume) = find_volume(&feeds.node, lv, what)?;
    let open = |users: u64| {
        fail(
            lv,
            what,
            format!("the volume is open ({users} user(s))"),
            "close it; --while-open overwrites it under its users",
        )
    };
    // Until this verb ends, or the session that takes the exchange over.
    let _frozen = match feeds.node.lane(lv) {
        Some(lane) if becomes_sink => {
            let frozen = match while_open {
                true => lane.freeze().await.map(Ok),
                false => active::freeze_unused(&feeds.node, volume.uuid, &lane).await,
            };
            let frozen = frozen.map_err(|error| fail(lv, what, error.to_string(), ""))?;
            Some(frozen.map_err(open)?)
        }
        _ => None,
    };
    match feed.intent {
        FeedIntent::Split { point: ended } => {
            check_point(feeds, &entry, lv, ended, point.as_deref(), what)?;
            let ask = Ask {
                swap: true,
                online: *online,
                discard_local: *discard_local,
                ..Ask::default()
            };
            swap_split(feeds, ctx, &entry, &feed, ask, lv, &object).await
        }
        FeedIntent::Attached if *online => Err(fail(
            lv,
            what,
            match feed.restore {
                Some(_) => format!("it is being restored from {peer} already"),
                None => format!("it is attached to {peer}: there is nothing to restore"),
            },
            match feed.restore {
                Some(_) => "use it; feedwait",
                None => "feeddetach --point NAME makes a point that --online brings back",
            },
        )),
        FeedIntent::Attached => {
            if point.is_some() && !becomes_sink {
                return Err(fail(
                    lv,
                    what,
                    format!("it is being restored from {peer} already"),
                    "feedwait",
                ));
            }
            swap_attached(feeds, ctx, &entry, &feed, *discard_local, lv, &object).await
        }
        FeedIntent::Paused => Err(fail(lv, what, "the feed is paused", "feedresume first")),
        FeedIntent::Detaching { .. } => Err(fail(
            lv,
            what,
            "the feed is on its way to a point",
            "feedwait --state split first",
        )),
    }
}

/// The sink holds one point: only that one can flow back.
fn check_point(
    feeds: &Feeds,
    entry: &FeedEntry,
    lv: &LvName,
    ended: Uuid,
    wanted: Option<&str>,
    what: &str,
) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let (volume, _) = feeds
        .record(entry)
        .ok_or_else(|| fail(lv, what, "the feed is gone", ""))?;
    let held = volume.points.iter().find(|point| point.uuid == ended);
    match held {
        Some(point) if point.name == wanted => Ok(()),
        Some(point) => Err(fail(
            lv,
            what,
            format!(
                "{} does not hold point {wanted}, but {}",
                entry.peer, point.name
            ),
            "see points",
        )),
        None => Err(fail(lv, what, format!("no point {wanted}"), "see points")),
    }
}

async fn swap_split(
    feeds: &Feeds,
    ctx: &Ctx,
    entry: &Arc<FeedEntry>,
    feed: &Feed,
    ask: Ask,
    lv: &LvName,
    object: &str,
) -> Result<(), Failure> {
    let what = "cannot swap";
    if ask.online && feed.direction == Direction::In {
        return Err(fail(
            lv,
            what,
            "it is the copy: what would be restored is over there",
            format!("feedswap --online on {}", entry.peer),
        ));
    }
    if !feed.initiator {
        return Err(fail(
            lv,
            what,
            format!("its feed with {} was attached over there", entry.peer),
            "swap it on that node",
        ));
    }
    feeds.look_idle(entry).await;
    let dirty = entry.status().dirty;
    if feed.direction == Direction::Out && dirty > 0 && !ask.discard_local {
        return Err(fail(
            lv,
            what,
            format!(
                "{} changed here since the point",
                crate::daemon::rows::human(dirty)
            ),
            "--discard-local throws that away",
        ));
    }
    if ctx.would(&format!(
        "exchange the roles of {lv} and its copy at {}",
        entry.peer
    )) {
        return Ok(());
    }
    let before = entry.ask(ask, None);
    entry.wake.notify_one();
    let result = next_attempt(entry, object, what, before).await;
    if result.is_err()
        && feeds
            .record(entry)
            .is_some_and(|(_, feed)| matches!(feed.intent, FeedIntent::Split { .. }))
    {
        entry.set_enabled(false);
        entry.update(|status| status.state = FeedState::Split);
    }
    result?;
    told(feeds, ctx, entry, lv, object);
    Ok(())
}

async fn swap_attached(
    feeds: &Feeds,
    ctx: &Ctx,
    entry: &Arc<FeedEntry>,
    feed: &Feed,
    discard_local: bool,
    lv: &LvName,
    object: &str,
) -> Result<(), Failure> {
    let what = "cannot swap";
    let status = entry.status();
    let consent = Ask {
        consent: true,
        ..Ask::default()
    };
    if status.state == FeedState::Refused && feed.initiator {
        // The peer may have gone ahead with an exchange that was asked for here before a crash; or the two
        // sides' content is not one history, and the admin says that this side's may go.
        let given_up = discard_local && feed.direction == Direction::Out;
        let ask = Ask {
            swap: given_up,
            discard_local: given_up,
            ..consent
        };
        let before = entry.ask(ask, None);
        entry.wake.notify_one();
        next_attempt(entry, object, what, before).await?;
        told(feeds, ctx, entry, lv, object);
        return Ok(());
    }
    if !live(ctx, entry, lv, what).await? {
        return Ok(());
    }
    if ctx.would(&format!(
        "exchange the roles of {lv} and its copy at {}",
        entry.peer
    )) {
        return Ok(());
    }
    let refused = entry.expect_refusal();
    let event = if feed.direction == Direction::Out {
        let (point, name, time) = swap_point();
        Event::Swap { point, name, time }
    } else {
        // The new roles come with the next connection.
        entry.ask_next(consent);
        Event::AskSwap
    };
    entry.send(event);
    let was = feed.direction;
    let swapped = entry.wait_for(|status| {
        let now = feeds.record(entry).map(|(_, feed)| feed.direction);
        match (now, status.state) {
            (Some(now), FeedState::Live | FeedState::Resync) if now != was => Some(Ok(())),
            (_, FeedState::Refused) => Some(Err(fail(object, what, &status.reason, "see events"))),
            _ => None,
        }
    });
    tokio::select! {
        result = tokio::time::timeout(END_TIMEOUT, swapped) => match result {
            Ok(result) => result?,
            Err(_) => {
                return Err(fail(
                    object,
                    "the swap is not finished",
                    format!("the feed is {}", state_name(entry.status().state)),
                    "see feeds on both sides",
                ));
            }
        },
        Ok(refused) = refused => return Err(fail(object, what, refused.text, "see feeds")),
    }
    told(feeds, ctx, entry, lv, object);
    Ok(())
}

fn told(feeds: &Feeds, ctx: &Ctx, entry: &FeedEntry, lv: &LvName, object: &str) {
    let direction = feeds.record(entry).map(|(_, feed)| feed.direction);
    let restoring = feeds
        .record(entry)
        .is_some_and(|(_, feed)| feed.missing_slot().is_some());
    let text = match direction {
        Some(Direction::In) if restoring => {
            format!("{lv} is in use from now on, with what {} has", entry.peer)
        }
        Some(Direction::In) => format!("{lv} is now fed by {}", entry.peer),
        _ => format!("{lv} is now the source for {}", entry.peer),
    };
    feeds.node.event("feed-swapped", object, &text);
    ctx.out.message(format!("{text}."));
}
