//! Choosing extents for plexes: copies on different disks, columns on different disks.

use super::{PlanError, Space};
use uuid::Uuid;

/// What one plex needs. Lengths in extents.
#[derive(Clone, Debug, Default)]
pub(super) struct Want {
    /// Extents for data; for a striped plex, for each column.
    pub data: u64,
    /// Extents in a row for a (new) log; 0 for none.
    pub log: u64,
    /// Disks that the plex uses already and may go on using.
    pub own: Vec<Uuid>,
    /// Where its last subdisk ends: growing there needs no new subdisk.
    pub tail: Option<(Uuid, u64)>,
}

/// What it gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Got {
    /// Data: disk, first extent, length; striped: sets of `columns` runs of one length.
    pub data: Vec<(Uuid, u64, u64)>,
    /// Log: disk and first extent.
    pub log: Option<(Uuid, u64)>,
}

/// A plex being served.
struct Serving {
    left: u64,
    log: u64,
    got: Got,
}

impl Serving {
    fn done(&self) -> bool {
        self.left == 0 && self.log == 0
    }

    fn take_log(&mut self, space: &mut Space, pv: Uuid) {
        if self.log > 0
            && let Some(start) = space.take_run(pv, self.log)
        {
            self.got.log = Some((pv, start));
            self.log = 0;
        }
    }

    fn take(&mut self, space: &mut Space, pv: Uuid) {
        self.take_log(space, pv);
        for (start, len) in space.take_most(pv, self.left) {
            self.left -= len;
            self.got.data.push((pv, start, len));
        }
    }
}

/// Concatenated plexes: each from its own disks first, then from disks of the pool that no other
/// one gets. Where one disk suffices, only one is taken.
pub(super) fn concat(
    space: &mut Space,
    wants: &[Want],
    pool: &[Uuid],
    extent_size: u64,
) -> Result<Vec<Got>, PlanError> {
    let mut serving = Vec::new();
    for want in wants {
        let mut plex = Serving {
            left: want.data,
            log: want.log,
            got: Got::default(),
        };
        // The log before the data: it needs a run.
        for pv in &want.own {
            plex.take_log(space, *pv);
        }
        if let Some((pv, end)) = want.tail.filter(|(pv, _)| want.own.contains(pv)) {
            let len = space.take_at(pv, end, plex.left);
            if len > 0 {
                plex.left -= len;
                plex.got.data.push((pv, end, len));
            }
        }
        for pv in &want.own {
            plex.take(space, *pv);
        }
        serving.push(plex);
    }
    one_disk_each(space, &mut serving, pool);
    spread(space, &mut serving, pool);
    let open: Vec<&Serving> = serving.iter().filter(|s| !s.done()).collect();
    if let Some(error) = shortage(wants, &open, space, pool, extent_size) {
        return Err(error);
    }
    Ok(serving.into_iter().map(|s| s.got).collect())
}

/// Gives each plex that is not served one disk of the pool that holds all of it, if there are
/// enough such disks; disks with room in a row come first.
fn one_disk_each(space: &mut Space, serving: &mut [Serving], pool: &[Uuid]) {
    let mut chosen: Vec<Uuid> = Vec::new();
    let mut pairs = Vec::new();
    for (index, plex) in serving.iter().enumerate().filter(|(_, s)| !s.done()) {
        let need = plex.left + plex.log;
        let free = |pv: &&Uuid| !chosen.contains(pv) && space.free_on(**pv) >= need;
        let row = |pv: &&Uuid| space.longest_on(**pv) >= need;
        let log = |pv: &&Uuid| space.longest_on(**pv) >= plex.log;
        let candidates = || pool.iter().filter(free);
        let Some(pv) = candidates().find(row).or_else(|| candidates().find(log)) else {
            return;
        };
        chosen.push(*pv);
        pairs.push((index, *pv));
    }
    for (index, pv) in pairs {
        serving[index].take(space, pv);
    }
}

/// Hands out the pool's disks, largest first, always to the plex that needs most.
fn spread(space: &mut Space, serving: &mut [Serving], pool: &[Uuid]) {
    let used: Vec<Uuid> = serving
        .iter()
        .flat_map(|s| {
            s.got
                .data
                .iter()
                .map(|(pv, _, _)| *pv)
                .chain(s.got.log.map(|(pv, _)| pv))
        })
        .collect();
    let mut disks: Vec<Uuid> = pool.iter().filter(|p| !used.contains(p)).copied().collect();
    disks.sort_by_key(|pv| std::cmp::Reverse(space.free_on(*pv)));
    for pv in disks {
        let needy = serving.iter_mut().filter(|s| !s.done());
        if let Some(plex) = needy.max_by_key(|s| s.left + s.log) {
            plex.take(space, pv);
        }
    }
}

/// Why these plexes could not be served.
fn shortage(
    wants: &[Want],
    open: &[&Serving],
    space: &Space,
    pool: &[Uuid],
    extent_size: u64,
) -> Option<PlanError> {
    let first = open.first()?;
    let bytes = |extents: u64| extents.saturating_mul(extent_size);
    let with_room = |need: u64| {
        let got = pool.iter().filter(|p| space.free_on(**p) >= need);
        got.count() as u64
    };
    // Nothing at all was got by a plex without disks of its own: there are too few disks.
    let homeless = |s: &&&Serving| s.got.data.is_empty() && s.got.log.is_none();
    let newcomers = wants.iter().filter(|w| w.own.is_empty()).count() as u64;
    if open.iter().any(|s| homeless(&s)) && newcomers > 1 {
        let served = newcomers - open.iter().filter(homeless).count() as u64;
        return Some(PlanError::Disks {
            need: wants.iter().map(|w| bytes(w.data + w.log)).max()?,
            pvs_need: newcomers,
            pvs_have: served + with_room(1),
        });
    }
    if first.left == 0 {
        let longest = pool.iter().map(|p| space.longest_on(*p)).max();
        return Some(PlanError::LogSpace {
            need: bytes(first.log),
            have: bytes(longest.unwrap_or(0)),
        });
    }
    let need: u64 = wants.iter().map(|w| w.data + w.log).sum();
    let left: u64 = open.iter().map(|s| s.left + s.log).sum();
    Some(PlanError::Space {
        need: bytes(need),
        have: bytes(need - left),
    })
}

/// One striped plex: `columns` different disks with room for `want.data` extents each, its own
/// before the pool's.
pub(super) fn striped(
    space: &mut Space,
    want: &Want,
    columns: u32,
    pool: &[Uuid],
    extent_size: u64,
) -> Result<Got, PlanError> {
    let columns = columns as usize;
    let bytes = |extents: u64| extents.saturating_mul(extent_size);
    let room = |space: &Space, pv: &Uuid| space.free_on(*pv) >= want.data;
    let mut disks: Vec<Uuid> = want.own.iter().chain(pool).copied().collect();
    let mut got = Got::default();
    if want.log > 0 {
        // On the disk that has most left; the plex must fit around it.
        let mut by_free = disks.clone();
        by_free.sort_by_key(|pv| std::cmp::Reverse(space.free_on(*pv)));
        let fits = |pv: &&Uuid| {
            space.longest_on(**pv) >= want.log && space.free_on(**pv) >= want.data + want.log
        };
        let own = by_free.iter().filter(|p| want.own.contains(p)).find(fits);
        let pv = own.or_else(|| by_free.iter().find(fits)).copied();
        let start = pv.and_then(|pv| Some((pv, space.take_run(pv, want.log)?)));
        match start {
            Some(log) => {
                got.log = Some(log);
                // The log's disk is the first column, so that both live and die together.
                disks.retain(|p| *p != log.0);
                disks.insert(0, log.0);
            }
            None if disks.iter().any(|p| space.longest_on(*p) >= want.log) => {}
            None => {
                let longest = disks.iter().map(|p| space.longest_on(*p)).max();
                return Err(PlanError::LogSpace {
                    need: bytes(want.log),
                    have: bytes(longest.unwrap_or(0)),
                });
            }
        }
    }
    let fixed = usize::from(got.log.is_some()).max(want.own.len());
    disks.retain(|pv| room(space, pv));
    let fixed = fixed.min(disks.len());
    disks[fixed..].sort_by_key(|pv| std::cmp::Reverse(space.free_on(*pv)));
    let no_log = want.log > 0 && got.log.is_none();
    if disks.len() < columns || no_log {
        return Err(PlanError::Disks {
            need: bytes(want.data + want.log),
            pvs_need: columns as u64,
            pvs_have: (disks.len() - usize::from(no_log && !disks.is_empty())) as u64,
        });
    }
    disks.truncate(columns);
    let mut left = want.data;
    while left > 0 {
        // Each set is as long as the shortest of the columns' longest runs.
        let rows = disks.iter().map(|pv| space.longest_on(*pv)).min();
        let rows = rows.unwrap_or(0).min(left);
        debug_assert!(rows > 0, "each disk has room for all that is left");
        for pv in &disks {
            let Some(start) = space.take_run(*pv, rows).filter(|_| rows > 0) else {
                return Err(PlanError::Space {
                    need: bytes(left),
                    have: 0,
                });
            };
            got.data.push((*pv, start, rows));
        }
        left -= rows;
    }
    Ok(got)
}
