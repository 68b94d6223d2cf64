//! The verbs of feeds.

use super::Feeds;
use super::entry::{FeedEntry, Status};
use super::record::{self, Ask};
use super::rows::{state_name, state_of_name};
use crate::api::{Command, Failure, LvName, Progress};
use crate::daemon::verbs::{Ctx, fail, find_volume, wrong};
use feedplex::session::{Event, FeedState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use volmgr::model::{Direction, Feed, FeedIntent, FeedMode};
use volmgr::plan;

/// How long a first answer of the peer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an end in good order may take once it has been ordered.
const END_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a verb.
pub async fn run(feeds: &Feeds, ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Feedattach { lv, peer, .. } => attach(feeds, ctx, lv, peer, command).await,
        Command::Feedwait {
            lv,
            peer,
            state,
            timeout_secs,
        } => wait(feeds, ctx, lv, peer, state, *timeout_secs).await,
        Command::Feedpause { lv, peer } => pause(feeds, ctx, lv, peer).await,
        Command::Feedresume { lv, peer } => resume(feeds, ctx, lv, peer).await,
        Command::Feeddetach {
            lv,
            peer,
            point,
            force,
        } => match force {
            true => forget(feeds, ctx, lv, peer).await,
            false => detach(feeds, ctx, lv, peer, point.as_deref()).await,
        },
        Command::Feedswap { lv, peer, .. } => swap(feeds, ctx, lv, peer, command).await,
        Command::Feedverify { lv, peer, repair } => {
            super::verify::feedverify(feeds, ctx, lv, peer, *repair).await
        }
        _ => Err(wrong("request", "cannot begin", "not a feed verb", "")),
    }
}

/// The feed of a volume with a peer.
pub fn find(feeds: &Feeds, lv: &LvName, peer: &str, what: &str) -> Result<Arc<FeedEntry>, Failure> {
    let (_, volume) = find_volume(&feeds.node, lv, what)?;
    let record = volume.feeds.iter().find(|feed| feed.peer == peer);
    let Some(record) = record else {
        return Err(fail(
            lv,
            what,
            format!("it has no feed with {peer}"),
            "feedattach makes one",
        ));
    };
    feeds.entry(record.uuid).ok_or_else(|| {
        fail(
            lv,
            what,
            "the volume is not active",
            format!("lvchange -ay {lv}"),
        )
    })
}

/// The point at which roles are exchanged.
pub fn swap_point() -> (Uuid, String, u64) {
    let time = crate::daemon::events::now();
    (Uuid::new_v4(), format!("swap-{time}"), time)
}

fn record_of(
    feeds: &Feeds,
    entry: &FeedEntry,
    object: &LvName,
    what: &str,
) -> Result<Feed, Failure> {
    let (_, feed) = feeds
        .record(entry)
        .ok_or_else(|| fail(object, what, "the feed is gone", ""))?;
    Ok(feed)
}

/// Waits for the outcome of the next attempt to connect: flowing, or why not.
async fn next_attempt(
    entry: &FeedEntry,
    object: &str,
    what: &str,
    before: u64,
) -> Result<(), Failure> {
    let outcome = entry.wait_for(|status| match status.state {
        FeedState::FullSync | FeedState::Resync | FeedState::Live => Some(Ok(())),
        _ if status.attempts > before => Some(Err(fail(
            object,
            what,
            &status.reason,
            "see events on both sides",
        ))),
        _ => None,
    });
    match tokio::time::timeout(ANSWER_TIMEOUT, outcome).await {
        Ok(result) => result,
        Err(_) => Err(fail(object, what, "the peer does not answer", "see feeds")),
    }
}

async fn attach(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Feedattach {
        target,
        mode,
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
    let mode = match mode.as_deref() {
        None | Some("async") => FeedMode::Async,
        Some("sync") => FeedMode::Sync,
        Some(other) => {
            return Err(wrong(
                lv,
                what,
                format!("{other} is no mode"),
                "async or sync",
            ));
        }
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
    if let Some(feed) = known {
        check_again(lv, peer, feed, what)?;
    } else if let Some(other) = volume
        .feeds
        .iter()
        .find(|feed| feed.direction == Direction::In && !super::is_tracked(feed))
    {
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
            if let Some(rate) = rate {
                entry.limiter.set_rate(*rate);
                commit_rate(feeds, &entry, *rate, lv, what)?;
            }
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
            let rate = rate.unwrap_or(0);
            let feed = record::provisional(
                Uuid::new_v4(),
                peer,
                &target,
                Direction::Out,
                true,
                mode,
                rate,
            );
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
fn check_again(lv: &LvName, peer: &str, feed: &Feed, what: &str) -> Result<(), Failure> {
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

fn remove_record(feeds: &Feeds, entry: &FeedEntry) -> Result<(), String> {
    let lv = entry.lv();
    feeds
        .node
        .commit(&lv.vg, |group| {
            let next = plan::remove_feed(group, &lv.lv, entry.uuid)?;
            plan::update_volume(&next, &lv.lv, |volume| {
                volume.points.retain(|point| point.feed != entry.uuid);
                volume.role = volmgr::model::Role::Normal;
            })
        })
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn commit_rate(
    feeds: &Feeds,
    entry: &FeedEntry,
    rate: u64,
    lv: &LvName,
    what: &str,
) -> Result<(), Failure> {
    feeds
        .commit_change(entry, |volume| {
            let found = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
            if let Some(feed) = found {
                feed.rate = rate;
            }
        })
        .map_err(|why| fail(lv, what, why, ""))
}

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

async fn wait(
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
    let entry = find(feeds, lv, peer, what)?;
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

async fn pause(feeds: &Feeds, ctx: &Ctx, lv: &LvName, peer: &str) -> Result<(), Failure> {
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
        set_intent(feeds, &entry, FeedIntent::Paused, lv, what)?;
        entry.update(|status| {
            status.state = FeedState::Paused;
            status.reason.clear();
        });
        return Ok(());
    }
    let object = format!("{lv} {peer}");
    until(&entry, FeedState::Paused, &object, what).await
}

fn set_intent(
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

async fn resume(feeds: &Feeds, ctx: &Ctx, lv: &LvName, peer: &str) -> Result<(), Failure> {
    let what = "cannot resume";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
    if feed.intent != FeedIntent::Paused && entry.status().state != FeedState::Refused {
        return Err(fail(lv, what, "the feed is not paused", "see feeds"));
    }
    if ctx.would(&format!("resume the feed of {lv} with {peer}")) {
        return Ok(());
    }
    if feed.intent == FeedIntent::Paused {
        set_intent(feeds, &entry, FeedIntent::Attached, lv, what)?;
    }
    entry.update(|status| {
        status.state = FeedState::Disconnected;
        status.reason.clear();
    });
    entry.set_enabled(true);
    entry.wake.notify_one();
    Ok(())
}

async fn detach(
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
    let status = entry.status();
    if status.state != FeedState::Live {
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
async fn forget(feeds: &Feeds, ctx: &Ctx, lv: &LvName, peer: &str) -> Result<(), Failure> {
    let what = "cannot forget the feed";
    let entry = find(feeds, lv, peer, what)?;
    let feed = record_of(feeds, &entry, lv, what)?;
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

async fn swap(
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
    if *online {
        return Err(fail(
            lv,
            what,
            "a volume cannot be used while it is being restored yet",
            "leave out --online",
        ));
    }
    let lane = feeds
        .node
        .lane(lv)
        .ok_or_else(|| fail(lv, what, "the volume is not active", "lvchange -ay"))?;
    let becomes_sink = feed.direction == Direction::Out;
    if becomes_sink && lane.opens() > 0 && !while_open {
        return Err(fail(
            lv,
            what,
            format!("the volume is open ({} connection(s))", lane.opens()),
            "close it; --while-open overwrites it under its users",
        ));
    }
    match feed.intent {
        FeedIntent::Split { point: ended } => {
            check_point(feeds, &entry, lv, ended, point.as_deref(), what)?;
            swap_split(feeds, ctx, &entry, &feed, *discard_local, lv, &object).await
        }
        FeedIntent::Attached => {
            if point.is_some() && !becomes_sink {
                return Err(fail(
                    lv,
                    what,
                    format!("it is being restored from {peer} already"),
                    "feedwait",
                ));
            }
            swap_attached(feeds, ctx, &entry, &feed, lv, &object).await
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
    discard_local: bool,
    lv: &LvName,
    object: &str,
) -> Result<(), Failure> {
    let what = "cannot swap";
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
    if feed.direction == Direction::Out && dirty > 0 && !discard_local {
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
    let before = entry.status().attempts;
    let ask = Ask {
        swap: true,
        discard_local,
        ..Ask::default()
    };
    entry.ask(ask, None);
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
    lv: &LvName,
    object: &str,
) -> Result<(), Failure> {
    let what = "cannot swap";
    let status = entry.status();
    if status.state != FeedState::Live {
        return Err(fail(
            lv,
            what,
            format!("the feed is {}, not live", state_name(status.state)),
            "feedwait first",
        ));
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
    let text = match direction {
        Some(Direction::In) => format!("{lv} is now fed by {}", entry.peer),
        _ => format!("{lv} is now the source for {}", entry.peer),
    };
    feeds.node.event("feed-swapped", object, &text);
    ctx.out.message(format!("{text}."));
}
