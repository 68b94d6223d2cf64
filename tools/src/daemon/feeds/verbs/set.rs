//! `feedset`: how a feed goes on, changed while it does.

use super::super::Feeds;
use super::{find, record_of};
use crate::api::{Command, Failure, LvName};
use crate::daemon::verbs::{Ctx, fail, wrong};

pub(super) async fn set(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Feedset {
        rate,
        adaptive,
        verify_every,
        verify_rate,
        ..
    } = command
    else {
        return Err(wrong("request", "cannot set", "not feedset", ""));
    };
    let what = "cannot set";
    let entry = find(feeds, lv, peer, what)?;
    let mut wanted = record_of(feeds, &entry, lv, what)?;
    wanted.rate = rate.unwrap_or(wanted.rate);
    wanted.full_speed = adaptive.map_or(wanted.full_speed, |adaptive| !adaptive);
    wanted.verify.every = verify_every.unwrap_or(wanted.verify.every);
    wanted.verify.rate = verify_rate.unwrap_or(wanted.verify.rate);
    if ctx.would(&format!("change the feed of {lv} with {peer}")) {
        return Ok(());
    }
    feeds
        .commit_change(&entry, |volume| {
            let record = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
            if let Some(feed) = record {
                (feed.rate, feed.full_speed) = (wanted.rate, wanted.full_speed);
                feed.verify.every = wanted.verify.every;
                feed.verify.rate = wanted.verify.rate;
            }
        })
        .map_err(|why| fail(lv, what, why, ""))?;
    // The session that runs looks at the record twice a second; a rate that the admin names holds at once.
    entry.limiter.set_rate(wanted.rate);
    ctx.out
        .message(format!("Feed of {lv} with {peer} changed."));
    Ok(())
}
