//! Feeds and points in time of a volume.

use super::{PlanError, check_name, free_slot, volume_index};
use crate::model::{Feed, Group, Point, Volume};
use uuid::Uuid;

/// Adds a feed; its map slot is chosen here, whatever `feed.map_slot` says.
pub fn add_feed(group: &Group, volume: &str, mut feed: Feed) -> Result<Group, PlanError> {
    edit(group, volume, |v| {
        let same_peer = |f: &Feed| f.uuid == feed.uuid || f.peer == feed.peer;
        if let Some(other) = v.feeds.iter().find(|f| same_peer(f)) {
            return Err(PlanError::Exists {
                what: "feed",
                name: format!("{} to {}", v.name, other.peer),
            });
        }
        feed.map_slot = free_slot(v)?;
        v.feeds.push(feed);
        Ok(())
    })
}

/// Takes a feed off.
pub fn remove_feed(group: &Group, volume: &str, feed: Uuid) -> Result<Group, PlanError> {
    edit(group, volume, |v| {
        let before = v.feeds.len();
        v.feeds.retain(|f| f.uuid != feed);
        gone(before, v.feeds.len(), "feed", feed.to_string())
    })
}

/// Changes a feed. Its UUID and map slot stay what they were.
pub fn update_feed(
    group: &Group,
    volume: &str,
    feed: Uuid,
    change: impl FnOnce(&mut Feed),
) -> Result<Group, PlanError> {
    edit(group, volume, |v| {
        let found = v.feeds.iter_mut().find(|f| f.uuid == feed);
        let found = found.ok_or_else(|| PlanError::NotFound {
            what: "feed",
            name: feed.to_string(),
        })?;
        let map_slot = found.map_slot;
        change(found);
        found.uuid = feed;
        found.map_slot = map_slot;
        Ok(())
    })
}

/// Adds a named point in time.
pub fn add_point(group: &Group, volume: &str, point: Point) -> Result<Group, PlanError> {
    check_name(&point.name)?;
    edit(group, volume, |v| {
        if v.points.iter().any(|p| p.name == point.name) {
            return Err(PlanError::Exists {
                what: "point",
                name: point.name,
            });
        }
        v.points.push(point);
        Ok(())
    })
}

/// Forgets a named point in time.
pub fn remove_point(group: &Group, volume: &str, name: &str) -> Result<Group, PlanError> {
    edit(group, volume, |v| {
        let before = v.points.len();
        v.points.retain(|p| p.name != name);
        gone(before, v.points.len(), "point", name.to_owned())
    })
}

fn gone(before: usize, after: usize, what: &'static str, name: String) -> Result<(), PlanError> {
    match before == after {
        true => Err(PlanError::NotFound { what, name }),
        false => Ok(()),
    }
}

fn edit(
    group: &Group,
    volume: &str,
    change: impl FnOnce(&mut Volume) -> Result<(), PlanError>,
) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let index = volume_index(&next, volume)?;
    change(&mut next.volumes.at_mut(index))?;
    Ok(next)
}
