//! Where a range of a volume lies, in words and as rows.

use crate::api::{LvName, Row, Value};
use crate::daemon::groups::GroupView;
use crate::daemon::rows::{row, text};
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

/// A range in which copies of a volume differ.
pub struct Differing<'a> {
    /// The volume.
    pub lv: &'a LvName,
    /// Of the volume.
    pub range: ByteRange,
    /// Who agrees with whom.
    pub sides: String,
    /// They are equal now.
    pub repaired: bool,
}

impl Differing<'_> {
    /// A row for each place of the range on the plex's disks; one without a place where the plex has none.
    pub fn rows(&self, view: &GroupView, plex: &Plex) -> Vec<Row> {
        let state = if self.repaired { "repaired" } else { "differs" };
        let line = |subdisk: Value, pv: Value, start: Value, bytes: Value| {
            row([
                ("lv_name", text(&self.lv.lv)),
                ("vg_name", text(&self.lv.vg)),
                ("difference_start", Value::Number(self.range.start())),
                ("difference_bytes", Value::Number(self.range.len())),
                ("difference_sides", text(&self.sides)),
                ("difference_state", text(state)),
                ("plex_name", text(plex.name())),
                ("subdisk_number", subdisk),
                ("pv_name", pv),
                ("difference_pv_start", start),
                ("difference_pv_bytes", bytes),
            ])
        };
        let places = plan::places(&view.group, plex, self.range).unwrap_or_default();
        if places.is_empty() {
            return vec![line(Value::Empty, Value::Empty, Value::Empty, Value::Empty)];
        }
        let places = places.iter().map(|place| {
            line(
                Value::Number(place.subdisk as u64),
                text(view.disk_name(place.pv)),
                Value::Number(place.range.start()),
                Value::Number(place.range.len()),
            )
        });
        places.collect()
    }
}

/// Plexes, as a list.
pub fn names(plexes: impl IntoIterator<Item = PlexId>) -> String {
    let names: Vec<String> = plexes
        .into_iter()
        .map(|plex| format!("plex{}", plex.0))
        .collect();
    names.join(", ")
}
