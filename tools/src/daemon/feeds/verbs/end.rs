//! `feedpause`, `feedresume`, `feeddetach`: how feeds stop.

use super::super::Feeds;
use super::super::entry::FeedEntry;
use super::super::rows::state_name;
use super::{ANSWER_TIMEOUT, END_TIMEOUT, find, record_of, remove_record};
use crate::api::{Failure, LvName};
use crate::daemon::verbs::{Ctx, fail, find_volume, wrong};
use feedplex::session::{Event, FeedState};
use uuid::Uuid;
use volmgr::model::{Direction, FeedIntent};

pub(super) async fn pause(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
) -> Result<(), Failure> {
    let what = "cannot pause";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    if matches!(feed.intent, FeedIntent::Split { .. }) {
        return Err(fail(
            lv,
            what,
            "the feed has ended at a point",
            "feedattach",
        ));
    }
    if ctx.would(&format!("pause the feed of {lv} with {peer}")) {
        return Ok(());
    }
    if !entry.send(Event::Pause) {
        entry.set_enabled(false);
        set_intent(feeds, &entry, FeedIntent::Paused, lv, what).await?;
        entry.update(|status| {
            status.state = FeedState::Paused;
            status.reason.clear();
        });
        return Ok(());
    }
    let object = format!("{lv} {peer}");
    until(&entry, FeedState::Paused, &object, what).await
}

async fn set_intent(
    feeds: &Feeds,
    entry: &FeedEntry,
    intent: FeedIntent,
    lv: &LvName,
    what: &str,
) -> Result<(), Failure> {
    feeds
        .commit_change(entry, |volume| {
            let found = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
            if let Some(feed) = found {
                feed.intent = intent;
            }
        })
        .map_err(|why| fail(lv, what, why, ""))?;
    // Whether writes wait for the peer is part of it.
    feeds
        .reconfigure(entry)
        .await
        .map_err(|why| fail(lv, what, why, ""))
}

async fn until(
    entry: &FeedEntry,
    state: FeedState,
    object: &str,
    what: &str,
) -> Result<(), Failure> {
    let reached = entry.wait_for(|status| (status.state == state).then_some(Ok(())));
    match tokio::time::timeout(ANSWER_TIMEOUT, reached).await {
        Ok(result) => result,
        Err(_) => Err(fail(
            object,
            what,
            format!("it is still {}", state_name(entry.status().state)),
            "see feeds",
        )),
    }
}

pub(super) async fn resume(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
) -> Result<(), Failure> {
    let what = "cannot resume";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    // The pause may be the peer's; then only this side's attempts have to begin again.
    let waits = matches!(entry.status().state, FeedState::Refused | FeedState::Paused);
    if feed.intent != FeedIntent::Paused && !waits {
        return Err(fail(lv, what, "the feed is not paused", "see feeds"));
    }
    if ctx.would(&format!("resume the feed of {lv} with {peer}")) {
        return Ok(());
    }
    if feed.intent == FeedIntent::Paused {
        set_intent(feeds, &entry, FeedIntent::Attached, lv, what).await?;
    }
    entry.update(|status| {
        status.state = FeedState::Disconnected;
        status.reason.clear();
    });
    entry.resume();
    entry.wake.notify_one();
    Ok(())
}

pub(super) async fn detach(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    point: Option<&str>,
) -> Result<(), Failure> {
    let what = "cannot detach";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    let time = crate::daemon::events::now();
    let name = point.map_or_else(|| format!("point-{time}"), str::to_owned);
    volmgr::names::check(&name).map_err(|error| {
        wrong(
            lv,
            what,
            format!("{name:?}: {error}"),
            "choose another name",
        )
    })?;
    let (_, volume) = find_volume(&feeds.node, lv, what)?;
    if let Some(taken) = volume
        .points
        .iter()
        .find(|point| point.name == name && point.feed != feed.uuid)
    {
        return Err(fail(
            lv,
            what,
            format!("point {name} is held by {}", taken.peer),
            "choose another name",
        ));
    }
    if feed.direction == Direction::In {
        return Err(fail(
            lv,
            what,
            format!("{peer} is the source now"),
            "feedswap first, or detach it over there",
        ));
    }
    if matches!(feed.intent, FeedIntent::Split { .. }) {
        return Err(fail(lv, what, "the feed has ended already", "see points"));
    }
    if feed.restore.is_some() {
        return Err(fail(
            lv,
            what,
            format!("{peer} restores from it while in use"),
            format!("`feedswap` on {peer} makes that side the source again"),
        ));
    }
    let status = entry.status();
    // One that is behind for a moment catches up by itself, and ends when it has.
    let ends = matches!(
        status.state,
        FeedState::Live | FeedState::Behind | FeedState::Resync
    );
    if !ends {
        return Err(fail(
            lv,
            what,
            format!("the feed is {}, not live", state_name(status.state)),
            "feedwait first; --force forgets it as it is",
        ));
    }
    if ctx.would(&format!("end the feed of {lv} with {peer} at point {name}")) {
        return Ok(());
    }
    let refused = entry.expect_refusal();
    entry.send(Event::Detach {
        point: Uuid::new_v4(),
        name: name.clone(),
        time,
    });
    let object = format!("{lv} {peer}");
    let ended = entry.wait_for(|status| match status.state {
        FeedState::Split => Some(Ok(())),
        FeedState::Refused => Some(Err(fail(&object, what, &status.reason, "see events"))),
        _ => None,
    });
    tokio::select! {
        result = tokio::time::timeout(END_TIMEOUT, ended) => match result {
            Ok(result) => result?,
            Err(_) => {
                return Err(fail(
                    &object,
                    "detach is not finished",
                    format!("the feed is {}", state_name(entry.status().state)),
                    "it goes on by itself when the peer is back: feedwait --state split",
                ));
            }
        },
        Ok(refused) = refused => return Err(fail(&object, what, refused.text, "see feeds")),
        () = ctx.out.client_gone() => return Ok(()),
    }
    feeds
        .node
        .event("feed-detached", &object, &format!("at point {name}"));
    ctx.out.message(format!(
        "Feed of {lv} with {peer} ended at point \"{name}\"."
    ));
    Ok(())
}

/// `feeddetach --force`: forgets the feed here, whatever the peer has.
pub(super) async fn forget(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
) -> Result<(), Failure> {
    let what = "cannot forget the feed";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    feeds.look_idle(&entry).await;
    let missing = entry.status().dirty;
    if feed.missing_slot().is_some() && missing > 0 && !ctx.yes {
        return Err(fail(
            lv,
            what,
            format!(
                "{} of it are still only at {peer}",
                crate::daemon::rows::human(missing)
            ),
            "feedwait brings them here; -y gives them up",
        ));
    }
    if ctx.would(&format!("forget the feed of {lv} with {peer}")) {
        return Ok(());
    }
    entry.set_enabled(false);
    entry.send(Event::Stop);
    let object = format!("{lv} {peer}");
    let Some(_exclusive) = entry.exclusive(ANSWER_TIMEOUT).await else {
        return Err(fail(&object, what, "its session does not end", "try again"));
    };
    remove_record(feeds, &entry).map_err(|why| fail(&object, what, why, ""))?;
    feeds
        .reconfigure(&entry)
        .await
        .map_err(|why| fail(&object, what, why, ""))?;
    feeds.remove(entry.uuid);
    if feed.direction == Direction::In && !feed.consistent {
        ctx.out.warning(format!(
            "{lv} is not consistent: its feed had not caught up"
        ));
    }
    feeds.node.event("feed-forgotten", &object, "by --force");
    ctx.out
        .message(format!("Feed of {lv} with {peer} forgotten."));
    Ok(())
}
