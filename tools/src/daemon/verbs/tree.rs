//! The trees that `lvdisplay` and `status` draw: volume, plexes, subdisks, disks; feeds and their peers.

use super::report::{health, state_name};
use crate::api::{Branch, FeedSample, Tone, VolumeSample};
use crate::daemon::groups::GroupView;
use crate::daemon::rows::human;
use feedplex::session::FeedState;
use volmgr::model::{Layout, Plex, PlexState, Role, Volume};

/// A volume with all that it consists of.
pub fn volume(view: &GroupView, volume: &Volume, place: &str, sample: &VolumeSample) -> Branch {
    let extent = view.group.extent_size;
    let health = health(view, volume);
    let mut root = Branch::new(format!("{}/{}", view.group.name, volume.name))
        .plain(human(volume.extents * extent))
        .with(tone_of_health(health), health)
        .plain(match (volume.role, volume.is_read_only()) {
            (Role::Feed, true) => "fed (read-only)",
            (Role::Feed, false) => "fed, in use while it is restored",
            (Role::Normal, true) => "read-only while a peer restores from it",
            (Role::Normal, false) => "",
        })
        .plain(match volume.stable_copy {
            true => "stable copy",
            false => "",
        })
        .plain(place);
    if sample.active && !sample.answers {
        root = root.with(Tone::Bad, "does not answer");
    }
    if sample.open > 0 {
        root = root.plain(format!("{} open", sample.open));
    }
    if sample.recovering > 0 {
        let text = format!("{} to compare after a crash", human(sample.recovering));
        root = root.with(Tone::Busy, text);
    }
    for plex in &volume.plexes {
        let name = plex.name();
        let sampled = sample.plexes.iter().find(|sample| sample.name == name);
        let dirty = sampled.map_or(0, |sample| sample.dirty);
        let mut branch = plex_branch(view, plex, dirty);
        if let Some(old) = volume
            .plexes
            .iter()
            .find(|old| Some(old.uuid) == plex.replaces)
        {
            branch = branch.plain(format!("replaces {}", old.name()));
        }
        root.below.push(branch);
    }
    for log in &volume.log {
        let branch = Branch::new("log")
            .plain(human(log.extents * extent))
            .plain(format!(
                "{} extent {}",
                view.disk_name(log.pv),
                log.pv_extent
            ))
            .with(Tone::Bad, if log.valid { "" } else { "outdated" });
        root.below.push(branch);
    }
    root.below.extend(sample.feeds.iter().map(feed_branch));
    for point in &volume.points {
        let branch = Branch::new("point")
            .plain(&point.name)
            .plain(format!("of peer {}", point.peer));
        root.below.push(branch);
    }
    root
}

fn plex_branch(view: &GroupView, plex: &Plex, dirty: u64) -> Branch {
    let extent = view.group.extent_size;
    let mut branch = Branch::new(plex.name())
        .plain(match plex.layout {
            Layout::Concat => "concatenated".to_owned(),
            Layout::Striped {
                columns,
                stripe_size,
            } => format!("striped over {columns}, {} each", human(stripe_size)),
        })
        .with(tone_of_plex(plex.state), state_name(plex.state));
    if dirty > 0 {
        branch = branch.with(Tone::Busy, format!("{} to copy", human(dirty)));
    }
    for subdisk in &plex.subdisks {
        let mut below = Branch::new("subdisk");
        if let Layout::Striped { .. } = plex.layout {
            below = below.plain(format!("column {}", subdisk.column));
        }
        let here = view.disks.contains_key(&subdisk.pv);
        let last = subdisk.pv_extent + subdisk.extents.saturating_sub(1);
        let mut below = below
            .plain(format!("at {}", human(subdisk.plex_extent * extent)))
            .plain(human(subdisk.extents * extent));
        below.below.push(
            Branch::new("disk")
                .plain(view.disk_name(subdisk.pv))
                .plain(format!("extents {}-{last}", subdisk.pv_extent))
                .with(Tone::Bad, if here { "" } else { "missing" }),
        );
        branch.below.push(below);
    }
    branch
}

fn feed_branch(feed: &FeedSample) -> Branch {
    let arrow = if feed.direction == "out" {
        "==>"
    } else {
        "<=="
    };
    let mut branch = Branch::new("feed")
        .plain(arrow)
        .with(tone_of_feed(&feed.state), &feed.state)
        .plain(&feed.mode);
    if !feed.point.is_empty() {
        branch = branch.plain(format!("at point {:?}", feed.point));
    }
    if feed.dirty > 0 {
        branch = branch.with(Tone::Busy, format!("{} dirty", human(feed.dirty)));
    }
    if feed.rate > 0 {
        branch = branch.plain(format!("{}/s", human(feed.rate)));
    }
    if !feed.reason.is_empty() {
        branch = branch.plain(format!("({})", feed.reason));
    }
    let mut peer = Branch::new("peer").plain(&feed.peer).plain(&feed.peer_lv);
    if feed.consistent {
        peer = peer.with(Tone::Good, "consistent");
    } else {
        peer = peer.with(Tone::Busy, "not consistent");
    }
    branch.below.push(peer);
    branch
}

/// How good it is.
pub fn tone_of_health(health: &str) -> Tone {
    match health {
        "ok" => Tone::Good,
        "resync" => Tone::Busy,
        _ => Tone::Bad,
    }
}

fn tone_of_plex(state: PlexState) -> Tone {
    match state {
        PlexState::Active => Tone::Good,
        PlexState::Syncing | PlexState::Empty => Tone::Busy,
        PlexState::Stale | PlexState::Failed | PlexState::Offline => Tone::Bad,
    }
}

fn tone_of_feed(state: &str) -> Tone {
    let state = FeedState::ALL
        .iter()
        .find(|known| crate::daemon::feeds::state_name(**known) == state);
    match state {
        Some(FeedState::Live | FeedState::Split) => Tone::Good,
        Some(
            FeedState::Connecting
            | FeedState::FullSync
            | FeedState::Resync
            | FeedState::Behind
            | FeedState::Paused,
        ) => Tone::Busy,
        Some(FeedState::Disconnected | FeedState::Refused) | None => Tone::Bad,
    }
}
