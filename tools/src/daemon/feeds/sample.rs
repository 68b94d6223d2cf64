//! Numbers of feeds, for metrics and `top`.

use super::rows::{consistent, state_name, status_of};
use super::{Feeds, progress_map};
use crate::api::{FeedSample, LvName};
use crate::lane::FeedLag;
use volmgr::engine::FeedId;
use volmgr::model::{Direction, FeedIntent, FeedMode};

/// The feeds of a volume, with what its lane knows of them.
pub fn samples(feeds: &Feeds, lv: &LvName, lags: &[(FeedId, FeedLag)]) -> Vec<FeedSample> {
    let Some((view, volume)) = feeds.node.volume(lv) else {
        return Vec::new();
    };
    let size = view.group.bytes_of(&volume);
    volume
        .feeds
        .iter()
        .map(|feed| {
            let entry = feeds.entry(feed.uuid);
            let status = status_of(feed, entry.as_ref(), size);
            let moved = entry
                .map(|entry| entry.counters.values())
                .unwrap_or_default();
            let lag = lags
                .iter()
                .find(|(id, _)| progress_map(feed) == Some(*id))
                .map(|(_, lag)| lag.clone());
            // A backup that ended at a point is as it should be, whatever has changed since.
            let may_lag = feed.direction == Direction::Out
                && !matches!(feed.intent, FeedIntent::Split { .. });
            let known = lag.as_ref().filter(|_| may_lag);
            FeedSample {
                peer: feed.peer.clone(),
                direction: match feed.direction {
                    Direction::Out => "out".into(),
                    Direction::In => "in".into(),
                },
                state: state_name(status.state).into(),
                reason: status.reason.clone(),
                point: match feed.intent {
                    FeedIntent::Split { point } => {
                        let named = volume.points.iter().find(|known| known.uuid == point);
                        named.map(|point| point.name.clone()).unwrap_or_default()
                    }
                    _ => String::new(),
                },
                peer_lv: feed.peer_lv.clone(),
                mode: match feed.mode {
                    FeedMode::Async => "async".into(),
                    FeedMode::Sync => "sync".into(),
                },
                consistent: consistent(feed, &status) == "yes",
                dirty: lag.as_ref().map_or(status.dirty, |lag| lag.dirty),
                lag_bytes: known.map(|lag| lag.dirty + lag.flying_bytes),
                lag_millis: known.map(|lag| u64::try_from(lag.lag.as_millis()).unwrap_or(u64::MAX)),
                rate: status.rate,
                size,
                live: lag.as_ref().map(|lag| lag.live.clone()).unwrap_or_default(),
                copy: lag.map(|lag| lag.copy).unwrap_or_default(),
                kernel_bytes: moved.payload_kernel_bytes,
                copied_bytes: moved.payload_copied_bytes,
                zero_bytes: moved.zero_bytes,
                frames: moved.frames,
            }
        })
        .collect()
}
