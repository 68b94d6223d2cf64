//! Blocks that rot, and the scrub that compares plexes and makes them equal: `plexsync --verify --repair`.
//!
//! The engine's reads and rewrites and the product's rules of whom to believe decide; the walk over the volume is modelled,
//! in the daemon's order. A sector that rots gets a value that nobody ever wrote, so that it can be told from all others
//! wherever it goes: reads may return it, as nothing checks sums, and plexes may be filled from it.

use super::disk::{SECTOR, sectors};
use super::lane::Asked;
use super::setup::REGION;
use super::world::World;
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op, Origin, PayloadId, Request, Ticket};
use volmgr::engine::PlexId;
use volmgr::model::Plex;
use volmgr::scrub::{Word, believed, classes};

/// Values from here on are rot.
const ROT: u64 = 1 << 60;
/// Bytes that are compared at a time.
const COMPARE_BYTES: u64 = 2 * REGION;
/// Differences are found and repaired in units of so many bytes.
const BLOCK: u64 = REGION;
/// A range that a plex cannot read is read again so often: the engine rewrites it meanwhile.
const TRIES: u32 = 5;

/// A walk over a volume whose plexes are compared.
pub struct Scrub {
    plexes: Vec<PlexId>,
    /// What differs is repaired: by majority, or, where nothing else is left, by what has not rotted.
    repair: Option<Word>,
    /// Up to here all is settled, in bytes.
    at: u64,
    /// What differed at the last look, and what each plex had.
    suspect: Option<(ByteRange, Vec<Vec<u64>>)>,
    /// A request is under way.
    busy: bool,
    tries: u32,
    /// What has been written to be equal, until it has been looked at.
    repaired: bool,
}

/// Is this what has become of something?
pub(super) fn rotten(value: u64) -> bool {
    value >= ROT
}

impl World {
    /// Begins to compare a node's plexes.
    pub(super) fn scrub(&mut self, n: usize, repair: Option<Word>) {
        let plexes = self.plexes_in_service(n);
        let plexes: Vec<PlexId> = plexes.iter().map(|p| PlexId(p.number)).collect();
        if plexes.len() < 2 || self.daemon(n).scrub.is_some() {
            return;
        }
        self.note(|| format!("n{n} compares {plexes:?}, repair {repair:?}"));
        self.daemon(n).scrub = Some(Scrub {
            plexes,
            repair,
            at: 0,
            suspect: None,
            busy: false,
            tries: 0,
            repaired: false,
        });
        self.scrub_on(n);
    }

    /// The next look.
    pub(super) fn scrub_on(&mut self, n: usize) {
        let size = self.nodes[n].history.sectors.len() as u64 * SECTOR;
        let Some(scrub) = self.daemon(n).scrub.as_mut().filter(|s| !s.busy) else {
            return;
        };
        if scrub.at >= size {
            self.totals.scrubs += 1;
            self.daemon(n).scrub = None;
            return;
        }
        scrub.busy = true;
        let range = match &scrub.suspect {
            Some((range, _)) => *range,
            // Little of what cannot be read is rewritten, much is not.
            None if scrub.tries > 0 => ByteRange::new(scrub.at, BLOCK.min(size - scrub.at)),
            None => ByteRange::new(scrub.at, COMPARE_BYTES.min(size - scrub.at)),
        };
        let plexes = scrub.plexes.clone();
        let room = plexes.len() * sectors(range).len();
        let (token, request) = self.scrub_request(n, range, room);
        let (at, asked) = (self.step, plexes.clone());
        let asked = Asked::Compare {
            range,
            plexes: asked,
            at,
        };
        self.daemon(n).asked.insert(token, asked);
        self.call(n, |engine, out| engine.read_plexes(request, plexes, out));
    }

    fn scrub_request(&mut self, n: usize, range: ByteRange, room: usize) -> (u64, Request) {
        let token = self.fresh();
        self.daemon(n)
            .payloads
            .insert(token, vec![u64::MAX - 3; room]);
        let request = Request {
            ticket: Ticket::new(token),
            op: Op::Read,
            range,
            flags: Flags::empty(),
            payload: Some(PayloadId(token)),
            origin: Origin::Internal,
        };
        (token, request)
    }

    /// Plexes have been read.
    pub(super) fn compared(
        &mut self,
        n: usize,
        range: ByteRange,
        data: &[u64],
        result: Result<(), IoError>,
    ) {
        let Some(mut scrub) = self.daemon(n).scrub.take() else {
            return;
        };
        scrub.busy = false;
        if let Err(error) = result {
            scrub.tries += 1;
            // A plex is gone, or what cannot be read is not mended in time.
            if error.kind() != IoErrorKind::Gone && scrub.tries < TRIES {
                self.daemon(n).scrub = Some(scrub);
            }
            return;
        }
        scrub.tries = 0;
        let copies: Vec<&[u64]> = data.chunks(sectors(range).len()).collect();
        self.check_compared(n, range, &scrub.plexes, &copies);
        let unit = (BLOCK / SECTOR) as usize;
        let differs = |first: &usize| {
            let part = |copy: &&[u64]| copy[*first..(*first + unit).min(copy.len())].to_vec();
            copies.iter().any(|copy| part(copy) != part(&copies[0]))
        };
        let found = (0..copies[0].len()).step_by(unit).find(differs);
        let Some(first) = found else {
            self.totals.mended += u64::from(std::mem::take(&mut scrub.repaired));
            scrub.suspect = None;
            scrub.at = range.end();
            self.daemon(n).scrub = Some(scrub);
            return self.scrub_on(n);
        };
        let start = range.start() + first as u64 * SECTOR;
        let block = ByteRange::new(start, BLOCK.min(range.end() - start));
        let part = first..first + sectors(block).len();
        let has: Vec<Vec<u64>> = copies.iter().map(|c| c[part.clone()].to_vec()).collect();
        let now = Some((block, has));
        let settled = scrub.suspect == now && self.daemon(n).engine.recover_bytes() == 0;
        scrub.suspect = now;
        scrub.at = start;
        scrub.repaired = false;
        if settled {
            self.settle_difference(n, scrub);
        } else {
            // Looked at again when some time has passed.
            self.daemon(n).scrub = Some(scrub);
        }
    }

    /// What differs has been seen twice: whose content counts?
    fn settle_difference(&mut self, n: usize, mut scrub: Scrub) {
        let (block, has) = scrub.suspect.clone().expect("a difference");
        let bytes = |copy: &Vec<u64>| copy.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let bytes: Vec<Vec<u8>> = has.iter().map(bytes).collect();
        let views: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let classes = classes(&views);
        self.totals.differences += 1;
        let word = match scrub.repair {
            // The admin, who knows.
            Some(Word::Copy(_)) => {
                let rot = |i: &usize| has[*i].iter().filter(|v| rotten(**v)).count();
                (0..has.len()).min_by_key(rot).map(Word::Copy)
            }
            word => word,
        };
        let Some(from) = word.and_then(|word| believed(&classes, word)) else {
            scrub.at = block.end();
            scrub.suspect = None;
            self.daemon(n).scrub = Some(scrub);
            return self.scrub_on(n);
        };
        // Invariant 4: a repair takes nothing away that more than half of the plexes have.
        let votes = |at: usize, value: u64| has.iter().filter(|c| c[at] == value).count();
        let by_vote = word == Some(Word::Majority);
        for (at, value) in has[from].iter().enumerate() {
            let lost = rotten(*value) && votes(at, *value) * 2 <= has.len();
            assert!(!(by_vote && lost), "n{n}: rot is believed: {has:?}");
        }
        let source = scrub.plexes[from];
        let all = scrub.plexes.iter().zip(&classes);
        let targets: Vec<PlexId> = all
            .filter(|(_, class)| **class != classes[from])
            .map(|(plex, _)| *plex)
            .collect();
        self.note(|| format!("n{n} repairs {block:?} of {targets:?} from {source:?}"));
        self.strike_repair(n, &targets);
        scrub.busy = true;
        self.daemon(n).scrub = Some(scrub);
        let (token, request) = self.scrub_request(n, block, sectors(block).len());
        let asked = Asked::Rewrite {
            range: block,
            source,
            targets: targets.clone(),
            at: self.step,
        };
        self.daemon(n).asked.insert(token, asked);
        self.call(n, |engine, out| {
            engine.rewrite(request, source, targets, out)
        });
        self.write_meanwhile(n, block);
    }

    /// Plexes have been written to be equal.
    pub(super) fn rewritten(
        &mut self,
        n: usize,
        range: ByteRange,
        source: PlexId,
        targets: &[PlexId],
        result: Result<(), IoError>,
    ) {
        let Some(scrub) = self.daemon(n).scrub.as_mut() else {
            return;
        };
        scrub.busy = false;
        if result.is_err() {
            self.daemon(n).scrub = None;
            return;
        }
        scrub.repaired = true;
        let in_service = self.plexes_in_service(n);
        let plex = |id: PlexId| in_service.iter().find(|p| p.number == id.0);
        let Some(source) = plex(source) else { return };
        for target in targets.iter().filter_map(|id| plex(*id)) {
            for sector in sectors(range) {
                let (is, wanted) = (self.look(n, target, sector), self.look(n, source, sector));
                assert_eq!(is, wanted, "n{n}: repaired, but sector {sector} is not");
            }
        }
        for sector in sectors(range) {
            let value = self.look(n, source, sector);
            let fine = value.is_none_or(|v| self.is_fine(n, sector, v, self.step + 1));
            assert!(fine, "n{n}: sector {sector} is repaired to {value:?}");
        }
    }

    /// What a scrub sees is what the plexes have, and they differ only where something has rotted.
    fn check_compared(&self, n: usize, range: ByteRange, ids: &[PlexId], copies: &[&[u64]]) {
        let in_service = self.plexes_in_service(n);
        let plexes: Vec<Option<&Plex>> = ids
            .iter()
            .map(|id| in_service.iter().find(|p| p.number == id.0))
            .collect();
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let recovering = daemon.engine.recover_bytes() > 0;
        for (at, sector) in sectors(range).enumerate() {
            let values: Vec<u64> = copies.iter().map(|copy| copy[at]).collect();
            let differ = values.iter().any(|v| *v != values[0]);
            assert!(
                recovering || !differ || values.iter().any(|v| self.has_rotted(n, sector, *v)),
                "n{n}: a scrub sees a difference where nothing has rotted: sector {sector} has {values:?}"
            );
            for (plex, value) in plexes.iter().zip(&values) {
                let now = plex.and_then(|p| self.look(n, p, sector));
                // It may have rotted since it was read.
                assert!(
                    now.is_none_or(|now| now == *value || self.has_rotted(n, sector, now)),
                    "n{n}: a scrub has read {value} in sector {sector}, there is {now:?}"
                );
            }
        }
    }

    /// May a sector hold this: what was written, or what has become of it since?
    pub(super) fn is_fine(&self, n: usize, sector: usize, value: u64, at: u64) -> bool {
        self.nodes[n].history.legal(sector, value, at, false)
    }

    /// Has a sector of this node rotted to that? What a feed has brought has not.
    pub(super) fn has_rotted(&self, n: usize, sector: usize, value: u64) -> bool {
        self.rot.contains(&(n, sector, value))
    }

    /// A sector of one of three plexes rots; where there are feeds, once there is one.
    pub(super) fn rots(&mut self, n: usize) {
        let plexes = self.plexes_in_service(n);
        let recovering = self.daemon(n).engine.recover_bytes() > 0;
        let feeds = self.volume(n).is_some_and(|v| !v.feeds.is_empty());
        let early = self.nodes.len() > 1 && !feeds;
        if early || plexes.len() < 3 || recovering {
            return;
        }
        let size = self.nodes[n].history.sectors.len() as u64;
        let used = self.storm.as_ref().map_or(size, |s| s.used.min(size));
        let sector = self.rng.below(used) as usize;
        // Not while it is made equal: what is looked at afterwards would not be what was written.
        let mended = |asked: &Asked| match asked {
            Asked::Rewrite { range, .. } => sectors(*range).contains(&sector),
            _ => false,
        };
        if self.daemon(n).asked.values().any(mended) {
            return;
        }
        let plex = &plexes[self.rng.index(plexes.len())];
        let Some((disk, at)) = self.place(n, plex, sector) else {
            return;
        };
        let value = ROT + self.fresh();
        if self.nodes[n].disks[disk].rot(at, value) {
            self.note(|| format!("n{n} disk {disk} rots in sector {sector}"));
            self.rot.insert((n, sector, value));
            let now = self.step;
            self.nodes[n].history.rot(sector, value, now);
            self.totals.rotten += 1;
        }
    }

    /// Do plexes still differ by what has rotted?
    pub(super) fn differs_by_rot(&self, n: usize) -> bool {
        let plexes = self.plexes_in_service(n);
        let rotten_here = self.rot.iter().filter(|(node, ..)| *node == n);
        let mut sectors = rotten_here.map(|(_, sector, _)| *sector);
        sectors.any(|sector| {
            let values: Vec<_> = plexes.iter().map(|p| self.look(n, p, sector)).collect();
            values.iter().any(|v| *v != values[0])
        })
    }
}
