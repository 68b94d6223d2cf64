//! What listings say about feeds and points.

use super::Feeds;
use super::entry::{FeedEntry, Status};
use crate::api::{LvName, Row, Value};
use crate::daemon::rows::{row, text};
use feedplex::session::FeedState;
use std::sync::Arc;
use volmgr::model::{Direction, Feed, FeedMode, OnDisconnect, Point, Volume};

/// The state's name for people and scripts.
pub fn state_name(state: FeedState) -> &'static str {
    match state {
        FeedState::Connecting => "connecting",
        FeedState::FullSync => "full-sync",
        FeedState::Resync => "resync",
        FeedState::Live => "live",
        FeedState::Behind => "behind",
        FeedState::Disconnected => "disconnected",
        FeedState::Paused => "paused",
        FeedState::Split => "split",
        FeedState::Refused => "refused",
    }
}

/// The state of that name.
pub fn state_of_name(name: &str) -> Option<FeedState> {
    FeedState::ALL
        .iter()
        .copied()
        .find(|state| state_name(*state) == name)
}

/// A feed with its volume, as it runs here if it does, and the volume's size in bytes.
type Found = (LvName, Volume, Feed, Option<Arc<FeedEntry>>, u64);

/// Every feed, running here or only recorded.
fn all(feeds: &Feeds) -> Vec<Found> {
    let mut found = Vec::new();
    for view in feeds.node.groups.views() {
        for volume in &view.group.volumes {
            for feed in &volume.feeds {
                let name = LvName {
                    vg: view.group.name.clone(),
                    lv: volume.name.clone(),
                };
                let size = view.group.bytes_of(volume);
                let entry = feeds.entry(feed.uuid);
                found.push((name, volume.clone(), feed.clone(), entry, size));
            }
        }
    }
    found
}

pub(super) fn status_of(feed: &Feed, entry: Option<&Arc<FeedEntry>>, size: u64) -> Status {
    match entry {
        Some(entry) => entry.status(),
        None => Status {
            state: Feeds::resting_state(feed),
            reason: "the volume is not active".into(),
            dirty: 0,
            size,
            rate: 0,
            attempts: 0,
        },
    }
}

/// Part that both sides have, in percent.
fn percent(status: &Status) -> f64 {
    if status.size == 0 {
        return 100.0;
    }
    let have = status.size.saturating_sub(status.dirty) as f64;
    let percent = 100.0 * have / status.size as f64;
    // Never 100 while something is missing.
    if status.dirty > 0 {
        percent.min(99.99)
    } else {
        percent
    }
}

pub(super) fn consistent(feed: &Feed, status: &Status) -> &'static str {
    let good = match feed.direction {
        // What the source knows of the sink.
        Direction::Out => matches!(status.state, FeedState::Live | FeedState::Split),
        Direction::In => feed.consistent && (feed.settled || status.state == FeedState::Live),
    };
    if good { "yes" } else { "no" }
}

/// Rows of `feeds`.
pub fn feeds(feeds: &Feeds, lv: Option<&LvName>, peer: Option<&str>) -> Vec<Row> {
    all(feeds)
        .into_iter()
        .filter(|(name, _, feed, _, _)| {
            lv.is_none_or(|lv| lv == name) && peer.is_none_or(|peer| peer == feed.peer)
        })
        .map(|(name, _, feed, entry, size)| {
            let status = status_of(&feed, entry.as_ref(), size);
            let limit = entry.as_ref().map_or(0, |entry| entry.limiter.rate());
            let moved = entry
                .map(|entry| entry.counters.values())
                .unwrap_or_default();
            let syncing = matches!(status.state, FeedState::FullSync | FeedState::Resync);
            let eta = match (syncing, status.rate) {
                (false, _) | (true, 0) => Value::Empty,
                (true, rate) => Value::Seconds(status.dirty.div_ceil(rate)),
            };
            let path = match (moved.payload_kernel_bytes, moved.payload_copied_bytes) {
                (0, 0) => "",
                (_, 0) => "kernel",
                (0, _) => "copied",
                _ => "mixed",
            };
            let mut reasons = Vec::new();
            if feed.holds_writes() && status.state != FeedState::Live {
                reasons.push("writes wait for the peer (feedpause lets them go on)".to_owned());
            }
            if !status.reason.is_empty() {
                reasons.push(status.reason.clone());
            }
            if !moved.reasons.is_empty() {
                let list: Vec<String> = moved.reasons.iter().map(ToString::to_string).collect();
                reasons.push(format!("copied: {}", list.join(", ")));
            }
            row([
                ("lv_name", text(&name.lv)),
                ("vg_name", text(&name.vg)),
                ("peer_name", text(&feed.peer)),
                ("peer_lv", text(&feed.peer_lv)),
                (
                    "feed_direction",
                    text(match feed.direction {
                        Direction::Out => "out",
                        Direction::In => "in",
                    }),
                ),
                ("feed_state", text(state_name(status.state))),
                (
                    "feed_mode",
                    text(match feed.mode {
                        FeedMode::Async => "async",
                        FeedMode::Sync => "sync",
                    }),
                ),
                (
                    "feed_on_disconnect",
                    text(match (feed.mode, feed.on_disconnect) {
                        (FeedMode::Async, _) => "",
                        (FeedMode::Sync, OnDisconnect::Degrade) => "degrade",
                        (FeedMode::Sync, OnDisconnect::Block) => "block",
                    }),
                ),
                ("feed_sync_percent", Value::Percent(percent(&status))),
                ("feed_rate", Value::Rate(status.rate)),
                (
                    "feed_limit",
                    match limit {
                        0 => Value::Empty,
                        limit => Value::Rate(limit),
                    },
                ),
                (
                    "feed_verified",
                    match feed.verify.last {
                        0 => Value::Empty,
                        time => Value::Time(time),
                    },
                ),
                (
                    "feed_verify_every",
                    match feed.verify.every {
                        0 => Value::Empty,
                        seconds => Value::Seconds(seconds),
                    },
                ),
                ("feed_eta", eta),
                ("feed_dirty", Value::Size(status.dirty)),
                ("feed_path", text(path)),
                (
                    "payload_kernel_bytes",
                    Value::Size(moved.payload_kernel_bytes),
                ),
                (
                    "payload_copied_bytes",
                    Value::Size(moved.payload_copied_bytes),
                ),
                ("feed_consistent", text(consistent(&feed, &status))),
                ("feed_reason", text(reasons.join("; "))),
            ])
        })
        .collect()
}

/// Rows of `points`.
pub async fn points(feeds: &Feeds, lv: Option<&LvName>, peer: Option<&str>) -> Vec<Row> {
    let mut rows = Vec::new();
    for view in feeds.node.groups.views() {
        for volume in &view.group.volumes {
            let name = LvName {
                vg: view.group.name.clone(),
                lv: volume.name.clone(),
            };
            let wanted = |p: &&Point| peer.is_none_or(|peer| peer == p.peer);
            let points: Vec<&Point> = volume.points.iter().filter(wanted).collect();
            if lv.is_some_and(|lv| *lv != name) || points.is_empty() {
                continue;
            }
            let changed = feeds.changed_since(&name, volume, &points).await;
            for (point, changed) in points.into_iter().zip(changed) {
                let held = if volume.holds(point) { "yes" } else { "no" };
                rows.push(row([
                    ("point_name", text(&point.name)),
                    ("lv_name", text(&name.lv)),
                    ("vg_name", text(&name.vg)),
                    ("point_time", Value::Time(point.time)),
                    ("point_uuid", text(point.uuid.to_string())),
                    ("point_changed", changed.map_or(Value::Empty, Value::Size)),
                    ("point_held", text(held)),
                    ("peer_name", text(&point.peer)),
                ]));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_name() {
        for state in FeedState::ALL {
            assert_eq!(state_of_name(state_name(*state)), Some(*state));
        }
        assert_eq!(state_of_name("alive"), None);
    }

    #[test]
    fn a_percent_of_100_means_nothing_is_missing() {
        let mut status = Status {
            state: FeedState::Live,
            reason: String::new(),
            dirty: 1,
            size: 1 << 50,
            rate: 0,
            attempts: 0,
        };
        assert!(percent(&status) < 100.0);
        status.dirty = 0;
        assert_eq!(percent(&status), 100.0);
    }
}
