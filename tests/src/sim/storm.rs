//! Storms: small worlds in which much goes wrong at once, again and again.
//!
//! Faults that come at random moments seldom meet a plex that is being filled, a copy that has been read and not written,
//! or a log that is being made anew. In a storm they are aimed at those: disks fail while they are filled, the *other* plex
//! fails just then, disks are back soon, machines lose their power where a plex has just come into step, and answers come
//! long after what they tell of.
//!
//! What the volume is to survive stays the same: there is always a plex in service that nothing is wrong with.

use super::boot::disk_of;
use super::disk::{Disk, sectors};
use super::lane::{Job, Owner};
use super::rng::Rng;
use super::scrub::rotten;
use super::world::World;
use blockio::ByteRange;
use volmgr::engine::{DiskRange, PlexId};
use volmgr::model::{Feed, FeedIntent, Plex, PlexState};
use volmgr::scrub::Word;

/// Of so many seeds one is a storm: this one.
const ONE_OF: u64 = 8;
const WHICH: u64 = 2;

/// What happens in one step over one node alone, and over two.
const EVENTS: [u32; 2] = [3, 6];

/// Is this seed's weather a storm?
pub fn is_storm(seed: u64) -> bool {
    seed % ONE_OF == WHICH
}

/// The weather of a seed that is a storm.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Of a thousand steps so many are a crash.
    crashes: u64,
    /// Sectors at the volume's beginning that clients use.
    pub used: u64,
    /// Answers of a hundred that come late.
    late: u64,
    /// A plex of this node has just come into step.
    pub omen: Option<usize>,
}

impl Storm {
    /// The weather of a seed, in a world of one node or of two.
    pub fn new(rng: &mut Rng, alone: bool) -> Self {
        Self {
            crashes: match alone {
                true => [2, 6, 18][rng.index(3)],
                false => [0, 1, 3][rng.index(3)],
            },
            used: match alone {
                true => [24, 64, 256][rng.index(3)],
                // What is written again and again is copied again and again.
                false => [64, 128, 256][rng.index(3)],
            },
            late: [0, 10, 20][rng.index(3)],
            omen: None,
        }
    }
}

/// What a strike does to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    Death,
    Flush,
    Write,
    Sectors,
    Slow,
}

impl World {
    /// A step of a storm.
    pub(super) fn storm_step(&mut self) {
        for _ in 0..EVENTS[usize::from(!self.is_alone())] {
            self.storm_event();
        }
    }

    fn storm_event(&mut self) {
        let Some(storm) = &mut self.storm else { return };
        let crashes = storm.crashes;
        let omen = storm.omen.take();
        if self.fate(60) {
            return;
        }
        if let Some(n) = omen.filter(|n| self.nodes[*n].up.is_some()) {
            match self.rng.below(100) {
                0..=9 => {
                    self.crash(n, true);
                    return self.boot(n);
                }
                10..=49 => self.strike(n, 60),
                _ => {}
            }
        }
        match self.rng.below(1000) {
            0..=219 => {
                self.client();
                self.client();
            }
            220..=729 => {
                for _ in 0..7 {
                    self.progress();
                }
            }
            730..=809 => {
                self.tick();
                self.supervise();
                self.tend();
            }
            810..=839 if self.is_alone() || self.rng.chance(15) => self.admin(),
            810..=839 => self.copy_on(),
            840..=859 => self.scrub_or_rot(),
            860..=919 => {
                // The source of a feed rather than its sink.
                let n = self.rng.index(self.nodes.len() + 1) % self.nodes.len();
                self.strike(n, if self.is_alone() { 15 } else { 3 });
            }
            920..=964 => self.calm(),
            965..=979 if !self.is_alone() => self.network_fault(),
            what if what >= 1000 - crashes => self.crash_someone(),
            _ => {}
        }
    }

    /// A storm over one node alone.
    fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }

    /// An admin wants the volume copied, whatever has become of that.
    fn copy_on(&mut self) {
        if self.nodes[0].up.is_none() {
            return;
        }
        let paused = |f: &&Feed| f.intent == FeedIntent::Paused;
        let feeds = self.volume(0).into_iter().flat_map(|v| &v.feeds);
        match feeds.clone().find(paused).map(|f| f.uuid) {
            Some(feed) => self.resume(0, feed),
            None => self.attach_to(0, 1, true),
        }
    }

    /// An admin sees to logs that are not valid.
    fn tend(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_some() && self.rng.chance(20) && !self.commits_pending(n) {
            self.adopt_again(n);
        }
    }

    /// An admin has a node's plexes compared; or there is something to find.
    fn scrub_or_rot(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_none() {
            return;
        }
        match self.rng.below(if self.is_alone() { 3 } else { 4 }) {
            0 => self.scrub(n, None),
            1 => self.scrub(n, Some(Word::Majority)),
            2 => self.rots(n),
            _ => self.verify_feeds(n),
        }
    }

    /// A disk of a node comes back, or keeps up again.
    fn calm(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_none() {
            return;
        }
        if self.commits_pending(n) {
            return;
        }
        let count = self.nodes[n].disks.len();
        let first = self.rng.index(count);
        if self.rng.chance(30) {
            self.nodes[n].disks[first].recover();
        }
        for disk in 0..count {
            if self.one_disk_returns(n, (first + disk) % count) {
                return;
            }
        }
    }

    /// A disk fails that the volume can do without just now; in `doom` cases of a hundred the node crashes soon after.
    fn strike(&mut self, n: usize, doom: u64) {
        if self.nodes[n].up.is_none() {
            return;
        }
        let served = self.plexes_served(n);
        let filled: Vec<usize> = (0..served.len()).filter(|i| !served[*i].1).collect();
        let aimed = !filled.is_empty() && self.rng.chance(40);
        let at = match aimed {
            true => filled[self.rng.index(filled.len())],
            false if served.is_empty() => return,
            false => self.rng.index(served.len()),
        };
        let (plex, _) = &served[at];
        let mut disks = self.disks_of(n, plex);
        let copied = self.copied_from(n);
        let late = self.answered_late(n);
        let mut aimed = true;
        if !copied.is_empty() && self.rng.chance(90) {
            disks = copied;
        } else if !late.is_empty() && self.rng.chance(40) {
            disks = late;
        } else {
            aimed = false;
        }
        if disks.is_empty() {
            return;
        }
        let disk = disks[self.rng.index(disks.len())];
        if !self.nodes[n].disks[disk].is_sound() || !self.can_do_without(n, disk) {
            return;
        }
        let alone = !self.one_reads_well(n, disk);
        let strikes = [
            Strike::Death,
            Strike::Death,
            Strike::Flush,
            Strike::Flush,
            Strike::Flush,
            Strike::Write,
            Strike::Sectors,
            Strike::Slow,
        ];
        let strike = match strikes[self.rng.index(strikes.len())] {
            Strike::Death | Strike::Write if aimed => Strike::Flush,
            strike => strike,
        };
        if alone && strike != Strike::Sectors {
            return;
        }
        self.note(|| format!("n{n} disk {disk} is struck: {strike:?}"));
        let size = self.nodes[n].history.sectors.len() as u64;
        let used = self.storm.as_ref().map_or(size, |s| s.used.min(size));
        let few = 0..1 + self.rng.below(3);
        let sectors: Vec<usize> = few.map(|_| self.rng.below(used) as usize).collect();
        let places = sectors.into_iter().filter_map(|s| self.place(n, plex, s));
        let bad = places.filter(|(d, _)| *d == disk).map(|(_, at)| at);
        let bad: Vec<usize> = bad.collect();
        let it = &mut self.nodes[n].disks[disk];
        match strike {
            Strike::Death => it.die(),
            Strike::Flush => it.fail_flush = true,
            Strike::Write => it.fail_write = true,
            Strike::Slow => it.slow = true,
            Strike::Sectors => it.bad.extend(bad),
        }
        if strike == Strike::Flush && (aimed || self.rng.chance(50)) {
            // So that it is met soon.
            self.flush(n, Owner::Client);
        }
        let soon = 1 + self.rng.below(10);
        if self.rng.chance(doom) {
            self.doom = Some((n, soon));
        }
    }

    /// The plexes that take part, and whether they have everything.
    fn plexes_served(&self, n: usize) -> Vec<(Plex, bool)> {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let plexes = self.volume(n).into_iter().flat_map(|v| &v.plexes);
        let state = |p: &Plex| daemon.engine.plex_state(PlexId(p.number));
        let known = plexes.filter_map(|p| Some((p.clone(), state(p)?)));
        let out = |s: PlexState| matches!(s, PlexState::Failed | PlexState::Offline);
        known
            .filter(|(_, s)| !out(*s))
            .map(|(p, s)| (p, s == PlexState::Active))
            .collect()
    }

    /// The disks of a plex, where they are there.
    pub(super) fn disks_of(&self, n: usize, plex: &Plex) -> Vec<usize> {
        let node = &self.nodes[n];
        let pvs = plex.subdisks.iter().map(|s| s.pv);
        let disk = |pv| node.pvs.iter().position(|p| *p == pv);
        pvs.filter_map(disk).collect()
    }

    /// The disks that have done what the engine has not heard of.
    fn answered_late(&self, n: usize) -> Vec<usize> {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let late = |job: &Job| match job {
            Job::Late(_, disk) => Some(*disk),
            _ => None,
        };
        daemon.jobs.iter().filter_map(late).collect()
    }

    /// The disks that bulk copies are about to be read from, and that have not stored all of that.
    fn copied_from(&self, n: usize) -> Vec<usize> {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let sources = daemon.sessions.values().filter_map(|s| s.source.as_ref());
        let waiting = sources.flat_map(|s| &s.bulk).filter(|(_, d)| d.is_none());
        let segments = waiting.flat_map(|(copy, _)| &copy.segments);
        let lossy = |at: &DiskRange| {
            let disk = disk_of(&daemon.epochs, at.disk)?;
            let it = &self.nodes[n].disks[disk];
            let first = it.sector(at.range.start());
            it.has_cached(first..first + sectors(at.range).len())
                .then_some(disk)
        };
        segments.filter_map(lossy).collect()
    }

    /// Does a plex in service have something else there than what was read from these disks of one that is not?
    pub(super) fn is_old(&self, n: usize, range: ByteRange, read: &[u64], disks: &[usize]) -> bool {
        let in_service = self.plexes_in_service(n);
        let uses = |p: &Plex| self.disks_of(n, p).iter().any(|d| disks.contains(d));
        !in_service.iter().any(uses)
            && in_service.iter().any(|p| {
                let mut all = sectors(range).zip(read);
                all.any(|(s, value)| {
                    self.look(n, p, s)
                        .is_some_and(|now| now != *value && !rotten(now))
                })
            })
    }

    /// Is there a plex in service that does without this disk, on disks that nothing is wrong with? Where plexes are being
    /// made equal after a crash the first one may be the only one that has what others have seen.
    pub(super) fn can_do_without(&self, n: usize, disk: usize) -> bool {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let in_service = self.plexes_in_service(n);
        let uses = |p: &Plex| self.disks_of(n, p).contains(&disk);
        if in_service.iter().any(uses) && daemon.engine.recover_bytes() > 0 {
            return false;
        }
        self.works_without(n, disk).next().is_some()
    }

    /// The plexes in service that do without this disk, on disks that nothing is wrong with.
    fn works_without(&self, n: usize, disk: usize) -> impl Iterator<Item = Plex> {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let works = move |d: &usize| {
            let it: &Disk = &self.nodes[n].disks[*d];
            *d != disk && it.is_harmless() && !daemon.gone.contains(d)
        };
        let all = self.plexes_in_service(n).into_iter();
        all.filter(move |p| self.disks_of(n, p).iter().all(works))
    }

    /// Has one of those failed no read? One that has may be retired, as it may have what this disk cannot read.
    fn one_reads_well(&self, n: usize, disk: usize) -> bool {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let errors = |p: &Plex| daemon.engine.plex_media(PlexId(p.number)).read_errors;
        self.works_without(n, disk).any(|p| errors(&p) == 0)
    }

    /// What has been done well is answered later, or not.
    pub(super) fn answers_late(&mut self) -> bool {
        let late = self.storm.as_ref().map_or(0, |s| s.late);
        late > 0 && self.faults && self.rng.chance(late)
    }

    /// Is this an answer that takes its time?
    pub(super) fn is_late(&mut self, n: usize, job: usize) -> bool {
        let late = matches!(self.daemon(n).jobs[job], Job::Late(..));
        late && self.faults && self.rng.chance(92)
    }
}
