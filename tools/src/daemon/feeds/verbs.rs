//! The verbs of feeds.

mod attach;
mod end;
mod set;
mod swap;
mod wait;

pub use swap::swap_point;

use super::Feeds;
use super::entry::FeedEntry;
use super::rows::state_name;
use crate::api::{Command, Failure, LvName};
use crate::daemon::verbs::{Ctx, fail, find_volume, wrong};
use feedplex::session::FeedState;
use std::sync::Arc;
use std::time::Duration;
use volmgr::model::Feed;
use volmgr::plan;

/// How long a first answer of the peer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an end in good order may take once it has been ordered.
const END_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a verb.
pub async fn run(feeds: &Feeds, ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Feedattach { lv, peer, .. } => attach::attach(feeds, ctx, lv, peer, command).await,
        Command::Feedwait {
            lv,
            peer,
            state,
            timeout_secs,
        } => wait::wait(feeds, ctx, lv, peer, state, *timeout_secs).await,
        Command::Feedpause { lv, peer } => end::pause(feeds, ctx, lv, peer).await,
        Command::Feedresume { lv, peer } => end::resume(feeds, ctx, lv, peer).await,
        Command::Feeddetach {
            lv,
            peer,
            point,
            force,
        } => match force {
            true => end::forget(feeds, ctx, lv, peer).await,
            false => end::detach(feeds, ctx, lv, peer, point.as_deref()).await,
        },
        Command::Feedswap { lv, peer, .. } => swap::swap(feeds, ctx, lv, peer, command).await,
        Command::Feedset { lv, peer, .. } => set::set(feeds, ctx, lv, peer, command).await,
        Command::Feedverify {
            lv,
            peer,
            repair,
            rate,
        } => super::verify::feedverify(feeds, ctx, lv, peer, *repair, *rate).await,
        _ => Err(wrong("request", "cannot begin", "not a feed verb", "")),
    }
}

/// For what takes a live feed. One that is behind, or copies what it missed, will be live by itself: that is waited for.
/// False where nobody waits for the answer any more.
pub(in crate::daemon::feeds) async fn live(
    ctx: &Ctx,
    entry: &FeedEntry,
    lv: &LvName,
    what: &str,
) -> Result<bool, Failure> {
    let refuse = |state| {
        let text = format!("the feed is {}, not live", state_name(state));
        fail(lv, what, text, "feedwait first")
    };
    let live = entry.wait_for(|status| match status.state {
        FeedState::Live => Some(Ok(())),
        FeedState::Behind | FeedState::Resync => None,
        state => Some(Err(refuse(state))),
    });
    tokio::select! {
        result = tokio::time::timeout(END_TIMEOUT, live) => match result {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(refuse(entry.status().state)),
        },
        () = ctx.out.client_gone() => Ok(false),
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

fn remove_record(feeds: &Feeds, entry: &FeedEntry) -> Result<(), String> {
    let lv = entry.lv();
    feeds
        .node
        .commit(&lv.vg, |group| {
            let next = plan::remove_feed(group, &lv.lv, entry.uuid)?;
            plan::update_volume(&next, &lv.lv, |volume| {
                volume.points.retain(|point| point.feed != entry.uuid);
                volume.role = super::record::volume_role(volume);
            })
        })
        .map(|_| ())
        .map_err(|error| error.to_string())
}
