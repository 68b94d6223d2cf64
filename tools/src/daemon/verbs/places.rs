//! Where a range of a volume lies, in words.

use crate::daemon::groups::GroupView;
use blockio::ByteRange;
use volmgr::engine::PlexId;
use volmgr::model::Plex;
use volmgr::plan;

/// Most places told of one plex and range: a striped one has many.
const PLACES_MAX: usize = 8;

/// One line for each place of the range on the plex's disks.
pub fn lines(view: &GroupView, plex: &Plex, range: ByteRange) -> Vec<String> {
    let places = match plan::places(&view.group, plex, range) {
        Ok(places) => places,
        Err(error) => return vec![format!("  {}: {error}", plex.name())],
    };
    let mut lines: Vec<String> = places
        .iter()
        .take(PLACES_MAX)
        .map(|place| {
            format!(
                "  {} subdisk {} on {}: {} bytes at byte {}",
                plex.name(),
                place.subdisk,
                view.disk_name(place.pv),
                place.range.len(),
                place.range.start()
            )
        })
        .collect();
    if places.len() > PLACES_MAX {
        let more = places.len() - PLACES_MAX;
        lines.push(format!("  {} and {more} more places", plex.name()));
    }
    lines
}

/// Plexes, as a list.
pub fn names(plexes: impl IntoIterator<Item = PlexId>) -> String {
    let names: Vec<String> = plexes
        .into_iter()
        .map(|plex| format!("plex{}", plex.0))
        .collect();
    names.join(", ")
}
