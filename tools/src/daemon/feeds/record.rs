//! Between a feed's record in the group's metadata and what a session knows of it.

use feedplex::generation::{Intent, Lineage, Role};
use feedplex::session::{RecordChange, SinkContent};
use feedplex::wire::control::Handshake;
use uuid::Uuid;
use volmgr::model::{
    Direction, Feed, FeedIntent, FeedMode, Generation, Group, OnDisconnect, Point, Restore,
    Role as VolumeRole, VerifyPlan, Volume,
};

/// Consent and wishes of one attempt to connect; nothing of it is recorded.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The peer may create the volume.
    pub create: bool,
    /// What is at the peer may be thrown away.
    pub discard_peer: bool,
    /// What is here may be thrown away.
    pub discard_local: bool,
    /// Exchange the roles.
    pub swap: bool,
    /// The volume here is to be used while it is being restored.
    pub online: bool,
    /// The exchange of roles that the peer is about to bring was asked for here: it needs no right.
    pub consent: bool,
    /// Begin again where the feed ended at a point or was paused.
    pub attach: bool,
}

/// The role in a direction.
pub fn role_of(direction: Direction) -> Role {
    match direction {
        Direction::Out => Role::Source,
        Direction::In => Role::Sink,
    }
}

fn direction_of(role: Role) -> Direction {
    match role {
        Role::Source => Direction::Out,
        Role::Sink => Direction::In,
    }
}

fn intent_of(intent: &FeedIntent) -> Intent {
    match intent {
        FeedIntent::Attached => Intent::Attached,
        FeedIntent::Paused => Intent::Paused,
        FeedIntent::Detaching { point, name } => Intent::Detaching {
            point: *point,
            name: name.clone(),
        },
        FeedIntent::Split { point } => Intent::Split { point: *point },
    }
}

fn recorded_intent(intent: &Intent) -> FeedIntent {
    match intent {
        Intent::Attached => FeedIntent::Attached,
        Intent::Paused => FeedIntent::Paused,
        Intent::Detaching { point, name } => FeedIntent::Detaching {
            point: *point,
            name: name.clone(),
        },
        Intent::Split { point } => FeedIntent::Split { point: *point },
    }
}

/// What a session tells the peer of this side's record.
///
/// `known` is false for a record that exists only for this attempt. `fresh`: the volume holds
/// nothing. `dirty`: this side's own map is not empty; in an online restore, that of what is missing.
pub fn facts(
    group: &Group,
    volume: &Volume,
    feed: &Feed,
    ask: &Ask,
    fresh: bool,
    dirty: bool,
) -> Handshake {
    Handshake {
        feed: feed.uuid,
        target: feed.peer_lv.clone(),
        create: ask.create,
        volume: volume.uuid,
        name: format!("{}/{}", group.name, volume.name),
        size: volume.extents.saturating_mul(group.extent_size),
        region_size: volume.region_size,
        role: role_of(feed.direction),
        role_epoch: feed.role_epoch,
        swap: ask.swap,
        online: ask.online
            || matches!(
                feed.restore,
                Some(Restore::Preparing | Restore::Taking { .. })
            ),
        sync_mode: feed.mode == FeedMode::Sync,
        block: feed.on_disconnect == OnDisconnect::Block,
        intent: if ask.attach {
            Intent::Attached
        } else {
            intent_of(&feed.intent)
        },
        known: !feed.epochs.is_empty(),
        fresh,
        seeded: feed.seeded,
        consistent: feed.consistent && feed.settled && !(dirty && feed.missing_slot().is_some()),
        dirty,
        discard_peer: ask.discard_peer,
        discard_local: ask.discard_local,
        epochs: feed.epochs.clone(),
        stamp: feed.rest_stamp.unwrap_or(0),
        seen: feed.peer_stamp,
        generation: volume.generation.current,
        history: volume.generation.history.clone(),
    }
}

fn generation_of(lineage: &Lineage) -> Generation {
    Generation {
        current: lineage.current,
        history: lineage.history.clone(),
    }
}

/// Carries out a change of a feed's record on the volume. The record must be there.
pub fn apply(volume: &mut Volume, feed: Uuid, change: &RecordChange) {
    let Some(index) = volume.feeds.iter().position(|known| known.uuid == feed) else {
        return;
    };
    let record = &mut volume.feeds[index];
    match change {
        RecordChange::Session {
            role,
            role_epoch,
            intent,
            epochs,
            content,
            online,
            generation,
            map: _,
        } => {
            record.restore = match (*online, *role) {
                (false, _) => None,
                (true, Role::Source) => Some(Restore::Giving),
                (true, Role::Sink) => record.restore.filter(|r| *r != Restore::Giving),
            };
            if *online && *role == Role::Sink {
                record.restore.get_or_insert(Restore::Preparing);
            }
            record.direction = direction_of(*role);
            record.role_epoch = *role_epoch;
            record.intent = recorded_intent(intent);
            record.epochs = epochs.clone();
            record.rest_stamp = None;
            match content {
                SinkContent::Keep => {}
                SinkContent::Consistent => (record.seeded, record.consistent) = (true, true),
                SinkContent::Inconsistent => (record.seeded, record.consistent) = (true, false),
                SinkContent::Unseeded => (record.seeded, record.consistent) = (false, false),
            }
            // From now on the feed may write at any moment; set again when it has ended well.
            record.settled = *role == Role::Source;
            if let Some(lineage) = generation {
                volume.generation = generation_of(lineage);
            }
        }
        RecordChange::Confirmed { epochs, map: _ } => record.epochs = epochs.clone(),
        RecordChange::Inconsistent => record.consistent = false,
        RecordChange::Consistent { generation } => {
            (record.seeded, record.consistent) = (true, true);
            volume.generation = generation_of(generation);
        }
        RecordChange::Seeded => record.seeded = true,
        RecordChange::Paused => record.intent = FeedIntent::Paused,
        RecordChange::Detaching { point, name } => {
            record.intent = FeedIntent::Detaching {
                point: *point,
                name: name.clone(),
            };
        }
        RecordChange::Split {
            point,
            name,
            time,
            generation,
        } => {
            record.intent = FeedIntent::Split { point: *point };
            record.settled = true;
            if record.direction == Direction::In {
                (record.seeded, record.consistent) = (true, true);
            }
            volume.generation = generation_of(generation);
            // What has been in use while it was restored is not what the source had.
            if volume.feeds[index].missing_slot().is_none() {
                list_point(volume, index, *point, name, *time);
            }
        }
        RecordChange::Swapped {
            role_epoch,
            point,
            name,
            time,
        } => {
            record.direction = Direction::In;
            record.role_epoch = *role_epoch;
            record.intent = FeedIntent::Attached;
            (record.seeded, record.consistent, record.settled) = (true, true, true);
            if record.restore.take().is_none() {
                list_point(volume, index, *point, name, *time);
            }
        }
    }
    volume.role = volume_role(volume);
}

/// What a session that is agreed on says of the peer.
pub fn learn(record: &mut Feed, peer: &Handshake, change: &RecordChange) {
    // It may have been renamed since.
    record.peer_lv = shown_name(&peer.name);
    if !matches!(change, RecordChange::Session { .. }) {
        return;
    }
    // Both sides take it as it is from here on, older or not.
    record.peer_stamp = peer.stamp;
    if !record.initiator {
        // The admin says at the side that attached how writes are to be acknowledged.
        (record.mode, record.on_disconnect) = match (peer.sync_mode, peer.block) {
            (false, _) => (FeedMode::Async, OnDisconnect::Degrade),
            (true, false) => (FeedMode::Sync, OnDisconnect::Degrade),
            (true, true) => (FeedMode::Sync, OnDisconnect::Block),
        };
    }
}

/// May this change of a feed's record be made: a volume has one source.
///
/// # Errors
/// Says who fills the volume already.
pub fn check(volume: &Volume, feed: Uuid, change: &RecordChange) -> Result<(), String> {
    let sink = matches!(
        change,
        RecordChange::Swapped { .. }
            | RecordChange::Session {
                role: Role::Sink,
                ..
            }
    );
    let others = volume.feeds.iter().filter(|known| known.uuid != feed);
    match others
        .into_iter()
        .find(|known| known.fills() && !known.epochs.is_empty())
    {
        Some(other) if sink => Err(format!("the volume is fed by {}", other.peer)),
        _ => Ok(()),
    }
}

/// Does a peer write to the volume? One that is fed stays so whatever becomes of feeds that pass its
/// content on; after its point a sink's content is its own.
pub fn volume_role(volume: &Volume) -> VolumeRole {
    let fed = |feed: &Feed| feed.fills() && !feed.epochs.is_empty();
    match volume.feeds.iter().any(fed) {
        true => VolumeRole::Feed,
        false => VolumeRole::Normal,
    }
}

/// After a change of a feed's record: is the volume's content a moment of one write order now, where that
/// change says anything about it? Other feeds that copy the volume must not call it consistent where it is not.
pub fn whole_after(volume: &Volume, feed: Uuid, change: &RecordChange) -> Option<bool> {
    let says = matches!(
        change,
        RecordChange::Session { .. }
            | RecordChange::Inconsistent
            | RecordChange::Consistent { .. }
            | RecordChange::Split { .. }
            | RecordChange::Swapped { .. }
    );
    let fills = |known: &&Feed| known.fills() && !known.epochs.is_empty();
    match volume.feeds.iter().find(fills) {
        None => Some(true),
        // While it flows it is as consistent as it says; how it ended is in `settled`.
        Some(known) if known.uuid == feed && says => Some(known.consistent),
        Some(_) => None,
    }
}

/// An online restore begins here: the map in this slot says what is missing.
pub fn begin_restore(volume: &mut Volume, feed: Uuid, map_slot: u32) {
    let found = volume.feeds.iter_mut().find(|known| known.uuid == feed);
    if let Some(record) = found {
        record.restore = Some(Restore::Taking { map_slot });
    }
}

/// A volume's name as a peer tells it, for listings: nothing depends on it but what is asked for by name.
pub fn shown_name(told: &str) -> String {
    let plain = told.chars().filter(|c| !c.is_control());
    plain.take(2 * volmgr::names::NAME_MAX + 1).collect()
}

/// The sink holds one point: the newest of a feed replaces those before it, but for those that have a map
/// of their own of what changed since.
fn list_point(volume: &mut Volume, feed: usize, uuid: Uuid, name: &str, time: u64) {
    let (feed, peer) = (volume.feeds[feed].uuid, volume.feeds[feed].peer.clone());
    volume
        .points
        .retain(|p| (p.feed != feed || p.map_slot.is_some()) && p.name != name);
    volume.points.push(Point {
        uuid,
        name: name.to_owned(),
        time,
        feed,
        peer,
        map_slot: None,
    });
}

/// Does a sink begin to track its own changes with this? Its dirty-region log must not hold then what the feed has written.
pub fn begins_tracking(feed: &Feed, change: &RecordChange) -> bool {
    matches!(change, RecordChange::Split { .. }) && feed.direction == Direction::In
}

/// The point at which the feed stands, where this side is to keep track of what changes here since when the
/// feed goes on: it is this side's content that the point names, and its feed's map is about to be used up.
pub fn point_to_keep(volume: &Volume, feed: Uuid, change: &RecordChange) -> Option<Uuid> {
    let leaves = matches!(
        change,
        RecordChange::Session { intent, .. } if !matches!(intent, Intent::Split { .. })
    );
    let record = volume.feeds.iter().find(|known| known.uuid == feed)?;
    let FeedIntent::Split { point } = record.intent else {
        return None;
    };
    let listed = volume.points.iter().find(|known| known.uuid == point)?;
    let ours = record.direction == Direction::Out && listed.map_slot.is_none();
    (leaves && ours).then_some(point)
}

/// Gives a point a slot of its own. There is room for so many: the oldest make way.
pub fn keep_point(volume: &mut Volume, point: Uuid, slot: u32) {
    let found = volume.points.iter_mut().find(|known| known.uuid == point);
    if let Some(known) = found {
        known.map_slot = Some(slot);
    }
}

/// The oldest point with a map of its own, where another one would be too many.
pub fn point_to_drop(volume: &Volume) -> Option<Uuid> {
    let kept = volume
        .points
        .iter()
        .filter(|point| point.map_slot.is_some());
    let full = kept.clone().count() >= Point::MAPS_MAX;
    let oldest = kept.min_by_key(|point| point.time);
    oldest.filter(|_| full).map(|point| point.uuid)
}

/// A record for a first attempt, not committed anywhere.
pub fn provisional(
    feed: Uuid,
    peer: &str,
    peer_lv: &str,
    direction: Direction,
    initiator: bool,
    mode: FeedMode,
    rate: u64,
) -> Feed {
    Feed {
        uuid: feed,
        peer: peer.to_owned(),
        peer_lv: peer_lv.to_owned(),
        direction,
        role_epoch: 1,
        initiator,
        mode,
        on_disconnect: OnDisconnect::default(),
        intent: FeedIntent::Attached,
        consistent: false,
        seeded: false,
        settled: true,
        map_slot: 0,
        rate,
        epochs: Vec::new(),
        full_speed: false,
        verify: VerifyPlan::default(),
        peer_stamp: 0,
        rest_stamp: None,
        restore: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        let feed = provisional(
            Uuid::from_u128(7),
            "b",
            "vg/lv",
            Direction::In,
            false,
            FeedMode::Async,
            0,
        );
        Volume {
            uuid: Uuid::from_u128(1),
            name: "lv".into(),
            extents: 4,
            tags: Default::default(),
            active: true,
            frontend: "auto".into(),
            role: VolumeRole::Normal,
            region_size: 65536,
            generation: Generation {
                current: Uuid::from_u128(2),
                history: Vec::new(),
            },
            next_plex: 0,
            stable_copy: false,
            plexes: Vec::new(),
            log: Vec::new(),
            feeds: vec![feed],
            points: Vec::new(),
        }
    }

    fn session(role: Role) -> RecordChange {
        RecordChange::Session {
            role,
            role_epoch: 3,
            intent: Intent::Attached,
            epochs: vec![Uuid::from_u128(9)],
            content: SinkContent::Unseeded,
            online: false,
            generation: None,
            map: feedplex::session::MapChange::Keep,
        }
    }

    #[test]
    fn a_sink_belongs_to_its_feed_until_the_split() {
        let mut v = volume();
        let feed = v.feeds[0].uuid;
        apply(&mut v, feed, &session(Role::Sink));
        assert_eq!(v.role, VolumeRole::Feed);
        assert!(!v.feeds[0].settled);
        let lineage = Lineage {
            current: Uuid::from_u128(5),
            history: vec![Uuid::from_u128(4)],
        };
        for name in ["monday", "tuesday"] {
            let point = RecordChange::Split {
                point: Uuid::from_u128(5),
                name: name.into(),
                time: 1,
                generation: lineage.clone(),
            };
            apply(&mut v, feed, &point);
        }
        assert_eq!(v.role, VolumeRole::Normal);
        assert_eq!(v.generation.current, Uuid::from_u128(5));
        let names: Vec<_> = v.points.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["tuesday"], "the sink holds one point");
    }

    #[test]
    fn a_sink_that_passes_its_content_on_stays_a_sink() {
        let mut v = volume();
        let fed = v.feeds[0].uuid;
        let mut on = v.feeds[0].clone();
        (on.uuid, on.direction, on.map_slot) = (Uuid::from_u128(8), Direction::Out, 3);
        v.feeds.push(on.clone());
        apply(&mut v, fed, &session(Role::Sink));
        apply(&mut v, on.uuid, &session(Role::Source));
        assert_eq!(v.role, VolumeRole::Feed, "its own session begins");
        let split = RecordChange::Split {
            point: Uuid::from_u128(5),
            name: "monday".into(),
            time: 1,
            generation: Lineage {
                current: Uuid::from_u128(5),
                history: Vec::new(),
            },
        };
        apply(&mut v, on.uuid, &split);
        assert_eq!(v.role, VolumeRole::Feed, "its own feed ends at a point");
        // Nor may it take a second source in.
        let error = check(&v, on.uuid, &session(Role::Sink)).unwrap_err();
        assert_eq!(error, "the volume is fed by b");
        apply(&mut v, fed, &split);
        assert_eq!(v.role, VolumeRole::Normal);
        assert_eq!(check(&v, on.uuid, &session(Role::Sink)), Ok(()));
    }

    #[test]
    fn content_is_whole_when_nothing_fills_the_volume_or_what_does_says_so() {
        let mut v = volume();
        let fed = v.feeds[0].uuid;
        let mut on = v.feeds[0].clone();
        (on.uuid, on.direction, on.map_slot) = (Uuid::from_u128(8), Direction::Out, 3);
        v.feeds.push(on.clone());
        let whole = |v: &mut Volume, feed: Uuid, change: RecordChange| {
            apply(v, feed, &change);
            whole_after(v, feed, &change)
        };
        assert_eq!(whole(&mut v, on.uuid, session(Role::Source)), Some(true));
        assert_eq!(whole(&mut v, fed, session(Role::Sink)), Some(false));
        let generation = Lineage {
            current: Uuid::from_u128(5),
            history: Vec::new(),
        };
        let consistent = RecordChange::Consistent { generation };
        assert_eq!(whole(&mut v, fed, consistent.clone()), Some(true));
        assert!(!v.is_whole(), "it may be written at any moment");
        // A feed that passes the content on says nothing about it, nor does the admin who wants it to rest.
        assert_eq!(whole(&mut v, on.uuid, session(Role::Source)), None);
        assert_eq!(whole(&mut v, fed, RecordChange::Paused), None);
        assert_eq!(whole(&mut v, fed, RecordChange::Inconsistent), Some(false));
        assert_eq!(whole(&mut v, fed, consistent), Some(true));
        v.feeds[0].settled = true;
        assert!(v.is_whole(), "the session has ended well");
    }

    #[test]
    fn the_other_side_takes_over_how_writes_are_acknowledged() {
        let mut v = volume();
        v.feeds[0].rest_stamp = Some(7);
        let change = session(Role::Source);
        apply(&mut v, Uuid::from_u128(7), &change);
        assert_eq!(v.feeds[0].rest_stamp, None, "a session has begun");
        let group = group();
        let mut peer = facts(&group, &v, &v.feeds[0], &Ask::default(), false, false);
        (peer.sync_mode, peer.block, peer.stamp) = (true, true, 11);
        learn(&mut v.feeds[0], &peer, &change);
        v.feeds[0].seeded = true;
        assert!(v.feeds[0].holds_writes(), "it is the source now");
        assert_eq!(v.feeds[0].peer_stamp, 11);
        v.feeds[0].initiator = true;
        peer.sync_mode = false;
        learn(&mut v.feeds[0], &peer, &change);
        assert_eq!(v.feeds[0].mode, FeedMode::Sync, "its own admin says");
    }

    #[test]
    fn content_that_may_be_written_is_not_told_consistent() {
        let mut v = volume();
        let feed = v.feeds[0].uuid;
        apply(&mut v, feed, &session(Role::Sink));
        v.feeds[0].consistent = true;
        let group = group();
        let told = facts(&group, &v, &v.feeds[0], &Ask::default(), false, false);
        assert!(!told.consistent, "killed while attached");
        v.feeds[0].settled = true;
        let told = facts(&group, &v, &v.feeds[0], &Ask::default(), false, false);
        assert!(told.consistent);
        assert_eq!(told.size, 16 << 20);
        assert!(told.known);
    }

    fn group() -> Group {
        Group {
            uuid: Uuid::from_u128(3),
            name: "vg".into(),
            extent_size: 4 << 20,
            seqno: 1,
            commit: Uuid::from_u128(4),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: Vec::new(),
            volumes: Default::default(),
        }
    }
}
