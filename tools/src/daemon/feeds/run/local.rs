//! What a session knows of this side, and how it changes this side's record.

use super::super::Feeds;
use super::super::entry::FeedEntry;
use super::super::record::{self, Ask};
use crate::lane::LaneHandle;
use feedplex::generation::Role;
use feedplex::session::{FreshIds, LocalFeed, MapChange, RecordChange, Rights, SessionConfig};
use feedplex::wire::control::Handshake;
use feedplex::wire::preamble::Token;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::engine::FeedId;
use volmgr::model::Direction;
use volmgr::plan;

/// Carries out a change of a feed's record, with the maps before and after it.
pub(super) async fn commit(
    feeds: &Arc<Feeds>,
    entry: &Arc<FeedEntry>,
    lane: &LaneHandle,
    change: &RecordChange,
    peer: Option<&Handshake>,
) -> Result<(), String> {
    let failed = |error: crate::lane::LaneError| error.to_string();
    if matches!(change, RecordChange::Session { .. }) && entry.provisional().is_some() {
        // Without epochs, which no session takes for known: the map comes before they do.
        feeds.commit_provisional(entry).await?;
    }
    let (_, volume) = feeds.node.volume(&entry.lv()).ok_or("the volume is gone")?;
    record::check(&volume, entry.uuid, change)?;
    if ends_tracking(change) {
        // From here on nobody tracks for the peer what a power cut takes back here, and the peer has
        // all of it durable: so it has to be durable here, too.
        lane.quiesce().await.map_err(failed)?;
    }
    let recorded = feeds.record(entry);
    if recorded.is_some_and(|(_, feed)| record::begins_tracking(&feed, change)) {
        lane.clean_log().await.map_err(failed)?;
    }
    if let Some((volume, _)) = feeds.record(entry)
        && let Some(point) = record::point_to_keep(&volume, entry.uuid, change)
        && let Err(why) = keep_point(feeds, entry, lane, point).await
    {
        // The backup is worth more than the list of what changed since the point before it.
        tracing::warn!(why, "what changed since a point is not tracked any more");
    }
    let map = match change {
        RecordChange::Session { map, .. } | RecordChange::Confirmed { map, .. } => *map,
        _ => MapChange::Keep,
    };
    let id: FeedId = feeds.feed_id(entry).ok_or("the feed's record is gone")?;
    let mut missing = None;
    match map {
        MapChange::AllDirty => lane.set_all_dirty(id).await.map_err(failed)?,
        MapChange::Missing | MapChange::AllMissing => {
            // What a client wrote before the roles changed is in the map, or on its way there.
            lane.quiesce().await.map_err(failed)?;
            let (volume, _) = feeds.record(entry).ok_or("the feed's record is gone")?;
            let slot = plan::free_slot(&volume).map_err(|error| error.to_string())?;
            let all = map == MapChange::AllMissing;
            lane.prepare_restore(slot, id, all).await.map_err(failed)?;
            missing = Some(slot);
        }
        MapChange::Keep | MapChange::Clear => {}
    }
    let restoring = feeds
        .record(entry)
        .and_then(|(_, feed)| feed.missing_slot());
    if restoring.is_some() && matches!(change, RecordChange::Consistent { .. }) {
        // Consistent says that nothing is missing: the map must say so first.
        lane.restore_ended().await.map_err(failed)?;
    }
    feeds.commit_change(entry, |volume| {
        record::apply(volume, entry.uuid, change);
        let record = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
        if let (Some(record), Some(peer)) = (record, peer) {
            record::learn(record, peer, change);
        }
        if let Some(map_slot) = missing {
            record::begin_restore(volume, entry.uuid, map_slot);
        }
    })?;
    // Before the first write that comes of it, and before the other side hears that it is committed.
    let whole = feeds
        .record(entry)
        .and_then(|(volume, _)| record::whole_after(&volume, entry.uuid, change));
    if let Some(whole) = whole {
        lane.set_whole(whole).await.map_err(failed)?;
    }
    if let (RecordChange::Session { .. }, Some(peer)) = (change, peer) {
        entry.agreed_on(peer.stamp);
    }
    if map == MapChange::Clear || missing.is_some() {
        lane.clear_feed_map(id).await.map_err(failed)?;
    }
    feeds.reconfigure(entry).await?;
    entry.committed();
    Ok(())
}

/// Does the volume become a sink with this?
fn ends_tracking(change: &RecordChange) -> bool {
    matches!(
        change,
        RecordChange::Swapped { .. }
            | RecordChange::Session {
                role: Role::Sink,
                ..
            }
    )
}

/// The feed goes on from a point: what changed here since gets a map of its own.
async fn keep_point(
    feeds: &Arc<Feeds>,
    entry: &Arc<FeedEntry>,
    lane: &LaneHandle,
    point: Uuid,
) -> Result<(), String> {
    let (volume, feed) = feeds.record(entry).ok_or("the feed's record is gone")?;
    if let Some(oldest) = record::point_to_drop(&volume) {
        feeds.commit_change(entry, |volume| volume.points.retain(|p| p.uuid != oldest))?;
        feeds.reconfigure(entry).await?;
    }
    let (volume, _) = feeds.record(entry).ok_or("the feed's record is gone")?;
    let slot = plan::free_slot(&volume).map_err(|error| error.to_string())?;
    let text = |error: crate::lane::LaneError| error.to_string();
    lane.track_point(slot, FeedId(feed.map_slot))
        .await
        .map_err(text)?;
    let kept = feeds.commit_change(entry, |volume| record::keep_point(volume, point, slot));
    if kept.is_err() {
        lane.untrack_point(slot).await.map_err(text)?;
    }
    kept
}

impl Feeds {
    /// What every session needs.
    pub(in crate::daemon::feeds) fn session_config(&self) -> SessionConfig {
        SessionConfig {
            node: self.node.identity.uuid,
            name: self.node.identity.name.clone(),
            fingerprint: self.node.key.fingerprint().to_string(),
            run: self.run,
            fresh: FreshIds {
                epoch: Uuid::new_v4(),
                session: Uuid::new_v4(),
                token: {
                    let mut token = [0u8; 32];
                    token[..16].copy_from_slice(Uuid::new_v4().as_bytes());
                    token[16..].copy_from_slice(Uuid::new_v4().as_bytes());
                    Token(token)
                },
                generations: [Uuid::new_v4(), Uuid::new_v4()],
            },
            streams: self.node.config.feeds.streams(),
            wall_time: crate::daemon::events::now(),
        }
    }

    /// Would an attempt make the volume here a sink? Not anew where it is in use while it is restored.
    pub(in crate::daemon::feeds) fn turns_sink(&self, entry: &FeedEntry, ask: &Ask) -> bool {
        self.record(entry).is_some_and(|(_, feed)| {
            (feed.direction == Direction::In) != ask.swap && feed.missing_slot().is_none()
        })
    }

    /// This side's feed as recorded, for a session.
    pub(in crate::daemon::feeds) async fn local_feed(
        &self,
        entry: &FeedEntry,
        lane: &LaneHandle,
        ask: &Ask,
    ) -> Result<LocalFeed, String> {
        let (view, volume) = self.node.volume(&entry.lv()).ok_or("the volume is gone")?;
        let recorded = volume.feeds.iter().find(|feed| feed.uuid == entry.uuid);
        let feed = match (recorded.cloned(), entry.provisional()) {
            (Some(feed), _) => feed,
            (None, Some(feed)) => feed,
            (None, None) => return Err("the feed is gone".into()),
        };
        let map = recorded.and_then(super::super::progress_map);
        let dirty_bytes = if let Some(map) = map {
            let (feeds, _) = lane
                .dirty(vec![map], Vec::new())
                .await
                .map_err(|error| error.to_string())?;
            feeds.first().copied().unwrap_or(0)
        } else {
            0
        };
        let rights = match ask.consent {
            true => Rights {
                feed: true,
                read: true,
            },
            false => self.rights(&entry.peer, &entry.lv()),
        };
        let mut facts = record::facts(&view.group, &volume, &feed, ask, false, dirty_bytes > 0);
        if feed.rest_stamp.is_none() {
            facts.stamp = lane.log_stamp().await.map_err(|error| error.to_string())?;
        }
        facts.seen = facts.seen.max(entry.seen());
        Ok(LocalFeed {
            facts,
            rights,
            dirty_bytes,
            restoring: feed.missing_slot().is_some(),
        })
    }

    /// What a peer may do with a volume here.
    pub(in crate::daemon::feeds) fn rights(&self, peer: &str, lv: &crate::api::LvName) -> Rights {
        use feedplex::access::{Right, Rules};
        let rules = self
            .node
            .peers
            .get(peer)
            .and_then(|peer| Rules::parse(&peer.allow).ok())
            .unwrap_or_default();
        let name = lv.to_string();
        Rights {
            feed: rules.allows(Right::Feed, &name),
            read: rules.allows(Right::Read, &name),
        }
    }
}
