//! Is a group what it claims to be? Every version is checked before it is written and after it is
//! read, so the rest of the code may rely on this.

use super::{Group, Layout, Plex, Volume};
use crate::label::valid_extent_size;
use crate::names::{self, NameError};
use crate::plan::{MAP_SLOTS, log_bytes};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use thiserror::Error;
use uuid::Uuid;

/// A rule that a group breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// A name that is not allowed.
    #[error("name {name:?}: {error}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        error: NameError,
    },
    /// Two things have one name, number or UUID.
    #[error("{what} {which} exists twice")]
    Twice {
        /// Kind of thing.
        what: &'static str,
        /// Which.
        which: String,
    },
    /// A number that cannot be.
    #[error("{object}: {field} {value} is out of range")]
    Range {
        /// The object's name.
        object: String,
        /// Its field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// A reference to something that does not exist.
    #[error("{object} refers to {what} {uuid}, which does not exist")]
    Dangling {
        /// The object's name.
        object: String,
        /// Kind of thing.
        what: &'static str,
        /// Its UUID.
        uuid: Uuid,
    },
    /// The subdisks of a plex do not cover it exactly.
    #[error("{object}: plex{plex} does not cover its volume: wrong at extent {extent}")]
    Cover {
        /// The volume's name.
        object: String,
        /// The plex.
        plex: u32,
        /// Where the cover goes wrong.
        extent: u64,
    },
    /// Two users of one extent.
    #[error("disk {pv}: extent {extent} is used twice")]
    Overlap {
        /// The disk.
        pv: Uuid,
        /// First extent used twice.
        extent: u64,
    },
    /// Two plexes of a volume, or two columns of a plex, share a disk.
    #[error("{object}: disk {pv} serves two {what}")]
    Shared {
        /// The volume's name.
        object: String,
        /// The disk.
        pv: Uuid,
        /// Of what it serves two.
        what: &'static str,
    },
}

/// Everything that is wrong with the group; empty for a good one. Total: takes any values.
pub fn check(group: &Group) -> Vec<Problem> {
    let mut check = Check {
        group,
        problems: Vec::new(),
        runs: BTreeMap::new(),
    };
    check.group();
    for volume in &group.volumes {
        check.volume(volume);
    }
    check.overlaps();
    check.problems
}

/// As [`check`], for a version that follows one which is known to be good: only what has changed is
/// looked at.
pub fn check_change(old: &Group, next: &Group) -> Vec<Problem> {
    let place = |group: &Group| {
        let places = group.pvs.iter();
        let places = places.map(|p| (p.uuid, p.size, p.data_start, p.extent_count));
        (group.extent_size, places.collect::<Vec<_>>())
    };
    let changes = next.volumes.changes_since(&old.volumes);
    // The index knows of no name, UUID or extent that two volumes share: else the whole check says which.
    if !next.volumes.is_indexed() || changes.reordered || place(old) != place(next) {
        return check(next);
    }
    let mut check = Check {
        group: next,
        problems: Vec::new(),
        runs: BTreeMap::new(),
    };
    check.name(&next.name);
    check.tags(&next.tags);
    check.handover();
    for pv in &next.pvs {
        check.tags(&pv.tags);
        check.runs.insert(pv.uuid, Vec::new());
    }
    for (place, _) in &changes.put {
        check.volume(&next.volumes[*place]);
    }
    check.overlaps();
    check.problems
}

struct Check<'a> {
    group: &'a Group,
    problems: Vec<Problem>,
    /// Used extents by PV: start, length.
    runs: BTreeMap<Uuid, Vec<(u64, u64)>>,
}

impl<'a> Check<'a> {
    fn name(&mut self, name: &str) {
        if let Err(error) = names::check(name) {
            let name = name.to_owned();
            self.problems.push(Problem::Name { name, error });
        }
    }

    fn unique<T: std::hash::Hash + Eq + ToString>(
        &mut self,
        what: &'static str,
        all: impl Iterator<Item = T>,
    ) {
        let mut seen = HashSet::new();
        for which in all {
            let text = which.to_string();
            if !seen.insert(which) {
                self.problems.push(Problem::Twice { what, which: text });
            }
        }
    }

    fn range(&mut self, ok: bool, object: &str, field: &'static str, value: u64) {
        if !ok {
            let object = object.to_owned();
            self.problems.push(Problem::Range {
                object,
                field,
                value,
            });
        }
    }

    fn tags(&mut self, tags: &BTreeSet<String>) {
        for tag in tags {
            if let Err(error) = names::check_tag(tag) {
                let name = tag.clone();
                self.problems.push(Problem::Name { name, error });
            }
        }
    }

    fn group(&mut self) {
        let group = self.group;
        self.name(&group.name);
        self.tags(&group.tags);
        let size = group.extent_size;
        self.range(valid_extent_size(size), &group.name, "extent size", size);
        let possible = group.seqno <= Group::SEQNO_MAX;
        self.range(possible, &group.name, "sequence number", group.seqno);
        self.unique("PV", group.pvs.iter().map(|p| p.uuid));
        self.unique("volume UUID", group.volumes.iter().map(|v| v.uuid));
        self.unique("volume", group.volumes.iter().map(|v| v.name.as_str()));
        self.handover();
        for pv in &group.pvs {
            self.tags(&pv.tags);
            let end = pv
                .extent_count
                .checked_mul(size)
                .and_then(|len| len.checked_add(pv.data_start));
            let ok = end.is_some_and(|end| end <= pv.size);
            self.range(ok, &pv.uuid.to_string(), "extent count", pv.extent_count);
            self.runs.insert(pv.uuid, Vec::new());
        }
    }

    /// A disk is on its way, or it is in the group.
    fn handover(&mut self) {
        let Some(handover) = &self.group.handover else {
            return;
        };
        self.name(&handover.name);
        let listed = self.group.pvs.iter().chain(&handover.pvs);
        self.unique("PV", listed.map(|p| p.uuid));
    }

    fn volume(&mut self, volume: &'a Volume) {
        self.name(&volume.name);
        self.tags(&volume.tags);
        let name = &volume.name;
        let bytes = volume.extents.checked_mul(self.group.extent_size);
        self.range(
            volume.extents > 0 && bytes.is_some(),
            name,
            "size in extents",
            volume.extents,
        );
        let region = volume.region_size;
        let region_ok = region.is_power_of_two() && (4096..=1 << 30).contains(&region);
        self.range(region_ok, name, "region size", region);
        self.unique("plex", volume.plexes.iter().map(|p| p.number));
        self.unique("plex UUID", volume.plexes.iter().map(|p| p.uuid));
        let replaced = volume.plexes.iter().filter_map(|p| p.replaces);
        self.unique("replacement of plex", replaced);
        self.unique("feed", volume.feeds.iter().map(|f| f.uuid));
        self.unique("point", volume.points.iter().map(|p| p.name.as_str()));
        let plex_slots = volume.plexes.iter().map(|p| p.map_slot);
        let slots: Vec<u32> = plex_slots
            .chain(volume.feeds.iter().map(|f| f.map_slot))
            .chain(volume.feeds.iter().filter_map(|f| f.missing_slot()))
            .chain(volume.points.iter().filter_map(|p| p.map_slot))
            .collect();
        self.unique("map slot", slots.iter().copied());
        for slot in slots {
            let ok = (1..MAP_SLOTS).contains(&slot);
            self.range(ok, name, "map slot", u64::from(slot));
        }
        for plex in &volume.plexes {
            self.plex(volume, plex);
        }
        self.log(volume, bytes.filter(|_| region_ok));
        self.disjoint(volume);
    }

    /// Notes that these extents are used.
    fn used(&mut self, object: &str, pv: Uuid, start: u64, len: u64) {
        let Some(runs) = self.runs.get_mut(&pv) else {
            let object = object.to_owned();
            let what = "PV";
            self.problems.push(Problem::Dangling {
                object,
                what,
                uuid: pv,
            });
            return;
        };
        runs.push((start, len));
        self.range(len > 0, object, "length in extents", len);
    }

    fn plex(&mut self, volume: &Volume, plex: &Plex) {
        let name = &volume.name;
        let columns = match plex.layout {
            Layout::Concat => 1,
            Layout::Striped {
                columns,
                stripe_size,
            } => {
                let ok = stripe_size.is_power_of_two()
                    && (4096..=self.group.extent_size).contains(&stripe_size);
                self.range(ok, name, "stripe size", stripe_size);
                self.range(columns >= 2, name, "columns", u64::from(columns));
                columns.max(1) as usize
            }
        };
        let mut next = 0u64;
        let mut good = plex.subdisks.len().is_multiple_of(columns);
        for set in plex.subdisks.chunks(columns) {
            let len = set[0].extents;
            good &= set.iter().zip(0..).all(|(s, column)| {
                s.plex_extent == next && s.extents == len && s.column == column && len > 0
            });
            let pvs: HashSet<Uuid> = set.iter().map(|s| s.pv).collect();
            if pvs.len() < set.len() {
                self.problems.push(Problem::Shared {
                    object: name.clone(),
                    pv: set[0].pv,
                    what: "columns",
                });
            }
            let end = len
                .checked_mul(columns as u64)
                .and_then(|len| next.checked_add(len));
            match end.filter(|_| good) {
                Some(end) => next = end,
                None => {
                    good = false;
                    break;
                }
            }
        }
        if !good || next != volume.extents {
            self.problems.push(Problem::Cover {
                object: name.clone(),
                plex: plex.number,
                extent: next,
            });
        }
        for subdisk in &plex.subdisks {
            self.used(name, subdisk.pv, subdisk.pv_extent, subdisk.extents);
        }
        let replaced = plex.replaces.filter(|old| {
            let known = volume.plexes.iter().find(|p| p.uuid == *old);
            // Not a chain of moves, and not itself.
            known.is_none_or(|known| known.replaces.is_some())
        });
        if let Some(uuid) = replaced {
            self.problems.push(Problem::Dangling {
                object: name.clone(),
                what: "replaced plex",
                uuid,
            });
        }
    }

    fn log(&mut self, volume: &Volume, bytes: Option<u64>) {
        let name = &volume.name;
        let extent = self.group.extent_size.max(1);
        let need = bytes.map_or(0, |b| log_bytes(b, volume.region_size).div_ceil(extent));
        let plexes: HashSet<Uuid> = volume.plexes.iter().map(|p| p.uuid).collect();
        self.unique("log of plex", volume.log.iter().map(|l| l.plex));
        for log in &volume.log {
            if !plexes.contains(&log.plex) {
                self.problems.push(Problem::Dangling {
                    object: name.clone(),
                    what: "plex",
                    uuid: log.plex,
                });
            }
            self.range(log.extents >= need, name, "log in extents", log.extents);
            self.used(name, log.pv, log.pv_extent, log.extents);
        }
    }

    /// No disk serves two plexes of the volume: a mirror that dies with its other half is none.
    fn disjoint(&mut self, volume: &Volume) {
        let mut owner: BTreeMap<Uuid, Uuid> = BTreeMap::new();
        // A plex and the one that it replaces are one copy on the move.
        let copy = |plex: Uuid| {
            let found = volume.plexes.iter().find(|p| p.uuid == plex);
            found.and_then(|p| p.replaces).unwrap_or(plex)
        };
        let subdisks = volume
            .plexes
            .iter()
            .flat_map(|p| p.subdisks.iter().map(|s| (s.pv, p.uuid)));
        let logs = volume.log.iter().map(|l| (l.pv, l.plex));
        for (pv, plex) in subdisks.chain(logs).map(|(pv, plex)| (pv, copy(plex))) {
            if *owner.entry(pv).or_insert(plex) != plex {
                self.problems.push(Problem::Shared {
                    object: volume.name.clone(),
                    pv,
                    what: "plexes",
                });
            }
        }
    }

    fn overlaps(&mut self) {
        for pv in &self.group.pvs {
            let Some(mut runs) = self.runs.remove(&pv.uuid) else {
                continue;
            };
            runs.sort_unstable();
            let mut end = 0u64;
            for (start, len) in runs {
                if start < end {
                    self.problems.push(Problem::Overlap {
                        pv: pv.uuid,
                        extent: start,
                    });
                }
                match start.checked_add(len).filter(|e| *e <= pv.extent_count) {
                    Some(run_end) => end = end.max(run_end),
                    None => {
                        let object = pv.uuid.to_string();
                        self.range(false, &object, "extent in use", start.saturating_add(len));
                    }
                }
            }
        }
    }
}
