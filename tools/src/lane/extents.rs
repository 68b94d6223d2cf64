//! The state of ranges for NBD's block status: what is allocated, asked of the files below the first
//! active plex, and what has changed since a point in time, which the engine knows.

use super::NbdContext;
use super::disk::Disks;
use blockio::{ByteRange, IoError, IoErrorKind};
use nbd_export::Extent;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use volmgr::engine::{DiskRange, Engine, Piece, PlexLayout, VolumeLayout};
use volmgr::model::PlexState;

/// Questions to the filesystem for one answer; what is not reached is asked for again.
const SEEKS_MAX: usize = 2048;

/// The extents of `range` in `context`, in order, from its start, perhaps not to its end. Nothing known
/// of the allocation gives nothing, which means data.
pub(super) fn query(
    engine: &Engine,
    layout: &VolumeLayout,
    disks: &Disks,
    context: NbdContext,
    range: ByteRange,
    one: bool,
) -> Result<Vec<Extent>, IoError> {
    match context {
        // What the disks say is not what a client will read: all of it may be data.
        NbdContext::Allocation if engine.is_missing(range) => Ok(Vec::new()),
        NbdContext::Allocation => {
            let found = allocated(layout, disks, range, one).into_iter();
            Ok(found
                .map(|(range, hole)| Extent::allocation(range, hole, hole))
                .collect())
        }
        NbdContext::Changed(point) => {
            let known = layout.points.iter().find(|p| p.point == point);
            let changed = known.and_then(|p| engine.changed(p.map, range));
            // Neither changed nor unchanged would be true.
            let changed = changed.ok_or(IoError::new(IoErrorKind::Gone))?;
            Ok(alternate(&changed, range))
        }
    }
}

/// All of `range`: what has changed, and what lies between.
fn alternate(changed: &[ByteRange], range: ByteRange) -> Vec<Extent> {
    let mut found = Vec::with_capacity(2 * changed.len() + 1);
    let mut at = range.start();
    for run in changed {
        if run.start() > at {
            found.push(Extent::changed(ByteRange::new(at, run.start() - at), false));
        }
        found.push(Extent::changed(*run, true));
        at = run.end();
    }
    if at < range.end() {
        found.push(Extent::changed(ByteRange::new(at, range.end() - at), false));
    }
    found
}

/// Runs of `range` and whether each is a hole.
fn allocated(
    layout: &VolumeLayout,
    disks: &Disks,
    range: ByteRange,
    one: bool,
) -> Vec<(ByteRange, bool)> {
    let active = |plex: &&PlexLayout| plex.state == PlexState::Active;
    let Some(plex) = layout.plexes.iter().find(active) else {
        return Vec::new();
    };
    let mut found: Vec<(ByteRange, bool)> = Vec::new();
    let mut seeks = 0;
    let mut at = range.start();
    while at < range.end() {
        let Some(place) = locate(plex, at) else {
            break;
        };
        let len = place.range.len().min(range.end() - at);
        let run = disks
            .get(place.disk)
            .filter(|disk| !disk.is_block)
            .map_or((len, false), |disk| {
                first_run(&disk.buffered, ByteRange::new(place.range.start(), len))
            });
        push(&mut found, at, run);
        at += run.0;
        seeks += 1;
        if seeks == SEEKS_MAX || (one && found.len() > 1) {
            break;
        }
    }
    found
}

/// Adds `(bytes, hole)` at `at`, to the extent before it where they are alike.
fn push(found: &mut Vec<(ByteRange, bool)>, at: u64, (len, hole): (u64, bool)) {
    match found.last_mut() {
        Some((last, same)) if *same == hole => {
            *last = ByteRange::new(last.start(), last.len() + len);
        }
        _ => found.push((ByteRange::new(at, len), hole)),
    }
}

/// Length of the first run of `range` in the file, and whether it is a hole.
fn first_run(file: &std::fs::File, range: ByteRange) -> (u64, bool) {
    let whole = (range.len(), false);
    let Ok(start) = i64::try_from(range.start()) else {
        return whole;
    };
    let clip = |end: i64| (end as u64).min(range.end()).saturating_sub(range.start());
    match lseek(file, start, Whence::SeekData) {
        // No data up to the end of the file.
        Err(Errno::ENXIO) => (range.len(), true),
        Err(_) => whole,
        Ok(data) if data > start => (clip(data).max(1), true),
        Ok(_) => match lseek(file, start, Whence::SeekHole) {
            Ok(hole) if hole > start => (clip(hole), false),
            _ => whole,
        },
    }
}

/// Where byte `at` of the plex lies, and how many follow it there.
fn locate(plex: &PlexLayout, at: u64) -> Option<DiskRange> {
    let mut before = 0;
    for piece in &plex.map {
        match piece {
            Piece::Concat(place) => {
                let len = place.range.len();
                if at < before + len {
                    let skip = at - before;
                    return Some(part(place, skip, len - skip));
                }
                before += len;
            }
            Piece::Striped {
                stripe_size,
                columns,
            } => {
                let column_len = columns.first().map_or(0, |column| column.range.len());
                let len = column_len * columns.len() as u64;
                if at < before + len {
                    let (stripe, within) =
                        ((at - before) / stripe_size, (at - before) % stripe_size);
                    let columns_len = columns.len() as u64;
                    let column = columns.get((stripe % columns_len) as usize)?;
                    let skip = stripe / columns_len * stripe_size + within;
                    return Some(part(column, skip, stripe_size - within));
                }
                before += len;
            }
        }
    }
    None
}

fn part(place: &DiskRange, skip: u64, len: u64) -> DiskRange {
    DiskRange {
        disk: place.disk,
        range: ByteRange::new(place.range.start() + skip, len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use volmgr::engine::{DiskId, PlexId};

    fn column(disk: u32, start: u64, len: u64) -> DiskRange {
        DiskRange {
            disk: DiskId(disk),
            range: ByteRange::new(start, len),
        }
    }

    #[test]
    fn stripes_are_dealt_round() {
        let plex = PlexLayout {
            id: PlexId(0),
            state: PlexState::Active,
            map_slot: 1,
            map: vec![
                Piece::Concat(column(9, 0, 100)),
                Piece::Striped {
                    stripe_size: 10,
                    columns: vec![column(1, 1000, 20), column(2, 2000, 20)],
                },
            ],
        };
        assert_eq!(locate(&plex, 99), Some(column(9, 99, 1)));
        assert_eq!(locate(&plex, 100), Some(column(1, 1000, 10)));
        assert_eq!(locate(&plex, 113), Some(column(2, 2003, 7)));
        assert_eq!(locate(&plex, 125), Some(column(1, 1015, 5)));
        assert_eq!(locate(&plex, 139), Some(column(2, 2019, 1)));
        assert_eq!(locate(&plex, 140), None);
    }

    #[test]
    fn runs_of_one_kind_are_joined() {
        let mut found = Vec::new();
        push(&mut found, 0, (10, true));
        push(&mut found, 10, (5, true));
        push(&mut found, 15, (5, false));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, ByteRange::new(0, 15));
    }

    #[test]
    fn what_changed_and_what_did_not_cover_the_range() {
        let run = |start, len, changed| Extent::changed(ByteRange::new(start, len), changed);
        let range = ByteRange::new(10, 90);
        assert_eq!(alternate(&[], range), [run(10, 90, false)]);
        assert_eq!(alternate(&[range], range), [run(10, 90, true)]);
        let some = [ByteRange::new(20, 10), ByteRange::new(40, 60)];
        assert_eq!(
            alternate(&some, range),
            [
                run(10, 10, false),
                run(20, 10, true),
                run(30, 10, false),
                run(40, 60, true)
            ]
        );
    }
}
