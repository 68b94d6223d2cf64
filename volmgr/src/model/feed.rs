//! Feeds, points in time, generations.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which way payload flows, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// This node is the source.
    Out,
    /// This node is the sink.
    In,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedMode {
    /// When the local plexes have it.
    Async,
    /// When the sink has it durable, too.
    Sync,
}

/// What becomes of writes to a `sync` feed while the other side cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDisconnect {
    /// They are acknowledged, and tracked.
    #[default]
    Degrade,
    /// They wait.
    Block,
}

impl OnDisconnect {
    /// Is it what a feed does of which nothing is said?
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the admin wants of a feed. What it is doing right now is the daemon's to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FeedIntent {
    /// Connected and flowing.
    Attached,
    /// Tracking only, until resumed.
    Paused,
    /// On the way to a named point: the mark may or may not have reached the sink.
    Detaching {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
    },
    /// Ended in good order at this point; the map holds what changed here since.
    Split {
        /// The point.
        point: Uuid,
    },
}

/// An online restore: the sink's volume is in use while its content is still coming, the source's must
/// not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Restore {
    /// At the sink: agreed on. What is missing here is not known yet, nobody may write.
    Preparing,
    /// At the sink: in use.
    Taking {
        /// Slot in the volume's log of the map of what is missing here. The feed's own map holds what
        /// clients have changed here since.
        map_slot: u32,
    },
    /// At the source: nobody may write here.
    Giving,
}

/// When the two sides of a feed are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// Seconds from one comparison to the next, 0 for never.
    pub every: u64,
    /// Upper bound in bytes of the volume per second, 0 for none.
    pub rate: u64,
    /// When the last one ended, in seconds since 1970-01-01 UTC, 0 for never.
    pub last: u64,
}

impl VerifyPlan {
    /// Has nothing been said and nothing been done?
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One feed of a volume. Both sides keep a record of it, under the same UUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Identity, shared by both sides.
    pub uuid: Uuid,
    /// The peer, by its name in the peer list.
    pub peer: String,
    /// The volume over there, `VG/LV`.
    pub peer_lv: String,
    /// Which way payload flows now.
    pub direction: Direction,
    /// Grows by one with each swap; where the two sides differ, the higher one is right.
    pub role_epoch: u64,
    /// This side makes the connections.
    pub initiator: bool,
    /// When writes are acknowledged.
    pub mode: FeedMode,
    /// In `sync` mode: whether writes wait for a peer that is away.
    #[serde(default, skip_serializing_if = "OnDisconnect::is_default")]
    pub on_disconnect: OnDisconnect,
    /// What the admin wants.
    pub intent: FeedIntent,
    /// At a sink: the content here is a point in the source's write order, and durable.
    pub consistent: bool,
    /// The first full copy has ended once; before that nothing here is worth keeping.
    pub seeded: bool,
    /// At a sink: nothing was in flight when the last session ended, so `consistent` can be
    /// believed. Cleared when a session begins.
    #[serde(default)]
    pub settled: bool,
    /// Slot in the volume's log of the map of what the other side may miss.
    pub map_slot: u32,
    /// Upper bound of resync traffic in bytes per second, 0 for none.
    pub rate: u64,
    /// Resync traffic goes on as fast as it can, whatever that does to applications.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_speed: bool,
    /// When the two sides are compared by themselves.
    #[serde(default, skip_serializing_if = "VerifyPlan::is_default")]
    pub verify: VerifyPlan,
    /// Session identities, newest first, at most two: tells a peer that was rolled back.
    pub epochs: Vec<Uuid>,
    /// How far the other side's log has been seen to come: a log that is shorter is an older one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub peer_stamp: u64,
    /// How far this side's log had come when the volume was first served again after the last session;
    /// `None` while it is served as it was then. What is told to the other side: from there on a copy of
    /// these disks may have gone another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_stamp: Option<u64>,
    /// An online restore, until the roles are exchanged again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Feed {
    /// Does this side keep a map of what the other side misses?
    pub fn is_tracked(&self) -> bool {
        let split = matches!(self.intent, FeedIntent::Split { .. });
        self.direction == Direction::Out || split || self.missing_slot().is_some()
    }

    /// Is nothing acknowledged here that the other side has not durable? Not before it has had everything
    /// once, and not when the admin has stopped the feed.
    pub fn holds_writes(&self) -> bool {
        self.mode == FeedMode::Sync
            && self.on_disconnect == OnDisconnect::Block
            && self.direction == Direction::Out
            && self.intent == FeedIntent::Attached
            && self.seeded
    }

    /// Does payload flow in here, or is it to when the two sides are connected?
    pub fn fills(&self) -> bool {
        let split = matches!(self.intent, FeedIntent::Split { .. });
        self.direction == Direction::In && !split
    }

    /// Slot of the map of what is still missing here, in an online restore.
    pub fn missing_slot(&self) -> Option<u32> {
        match self.restore {
            Some(Restore::Taking { map_slot }) => Some(map_slot),
            _ => None,
        }
    }
}

/// Names the state of a volume's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// This state. Changes when writing begins on a state that someone else has a copy of.
    pub current: Uuid,
    /// The states before it, newest first, at most [`Generation::HISTORY_MAX`].
    pub history: Vec<Uuid>,
}

impl Generation {
    /// Longest history kept.
    pub const HISTORY_MAX: usize = 32;

    /// Moves on to a new state.
    pub fn advance(&mut self, next: Uuid) {
        self.history.insert(0, self.current);
        self.history.truncate(Self::HISTORY_MAX);
        self.current = next;
    }
}

/// A named point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Identity; also the generation of the data at that point.
    pub uuid: Uuid,
    /// Name, unique within the volume.
    pub name: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// The feed that made it.
    pub feed: Uuid,
    /// The peer of that feed.
    pub peer: String,
    /// Slot in the volume's log of a map of its own of what changed here since, from when the feed went
    /// on. Before that, the feed's own map says it ([`Volume::changed_slot`](super::Volume::changed_slot)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_slot: Option<u32>,
}

impl Point {
    /// Most points of a volume with a map of their own: each costs a bit a region and a slot of the log.
    pub const MAPS_MAX: usize = 4;
}
