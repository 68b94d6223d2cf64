//! A node starts, crashes, commits metadata.

use super::check::Truth;
use super::disk::Disk;
use super::lane::Job;
use super::setup::EXTENT;
use super::shrink::abandon;
use super::world::{Daemon, Entry, LV, Node, World};
use super::worn::Worn;
use blockio::PayloadId;
use feedplex::session::FeedState;
use regionmap::log::Geometry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use uuid::Uuid;
use volmgr::engine::{DiskId, DiskOp, Engine, EngineConfig, VolumeLayout};
use volmgr::metadata::{Chain, PvIo, PvScan, Store, assemble, inspect};
use volmgr::model::{Feed, FeedIntent, Group, PlexState};
use volmgr::plan::{self, PlanError};

/// Payloads of the engine's own copies.
pub const BOUNCES: u64 = 3;
/// Bytes of each.
pub const BOUNCE_BYTES: u64 = 2 * super::setup::REGION;
/// In a storm a plex is retired when so many of its reads have failed.
pub const STORM_READ_ERRORS: u32 = 3;
/// Disks in a node's table, and the step from a disk's place to its place after it went and came
/// back.
const PLACES: u32 = 8;

/// Which of the node's disks this is, if it is the one that is there now.
pub fn disk_of(epochs: &[u32], id: DiskId) -> Option<usize> {
    let disk = (id.0 % PLACES) as usize;
    (epochs.get(disk) == Some(&(id.0 / PLACES))).then_some(disk)
}

/// The place of a disk in the table.
fn place_of(epochs: &[u32], disk: usize) -> DiskId {
    DiskId(epochs[disk] * PLACES + disk as u32)
}

/// A version without what each attempt to write it changes.
fn content(group: &Group) -> Group {
    let mut group = group.clone();
    (group.seqno, group.commit) = (0, Uuid::nil());
    for pv in &mut group.pvs {
        pv.missing_since = pv.missing_since.map(|_| 0);
    }
    group
}

/// Writes a version to the disks; those that fail are given up, as the daemon does it, unless the
/// power goes (`dies`): then nobody is there to do it.
fn write(
    node: &mut Node,
    gone: &mut Vec<usize>,
    store: &mut Store,
    mut next: Group,
    mut uuid: impl FnMut() -> Uuid,
    dies: bool,
) -> Result<(), String> {
    loop {
        for (disk, pv) in node.pvs.iter().enumerate() {
            let listed = next.pv(*pv).is_some_and(|p| p.missing_since.is_none());
            if listed && gone.contains(&disk) {
                next = plan::mark_pv_missing(&next, *pv).map_err(|e| e.to_string())?;
            }
        }
        node.attempts.push(content(&next));
        let here = |disk: usize| !gone.contains(&disk);
        let mut pvs: BTreeMap<Uuid, &mut dyn PvIo> = node
            .disks
            .iter_mut()
            .zip(&node.pvs)
            .enumerate()
            .filter(|(disk, _)| here(*disk))
            .map(|(_, (disk, pv))| (*pv, &mut disk.meta as &mut dyn PvIo))
            .collect();
        let report = store
            .commit(next, uuid(), &mut pvs)
            .map_err(|e| e.to_string())?;
        drop(pvs);
        if report.failed.is_empty() {
            node.committed = Some(content(store.group()));
            node.attempts.clear();
            node.twice = report.degraded.is_empty();
            return Ok(());
        }
        if dies {
            return Err("the power is gone".into());
        }
        for failure in &report.failed {
            let disk = node.pvs.iter().position(|pv| *pv == failure.pv);
            gone.extend(disk);
            if let Some(disk) = disk {
                store.forget(node.pvs[disk]);
            }
        }
        next = store.group().clone();
    }
}

/// The engine's view of the volume, as `tools/src/daemon/active.rs` makes it.
fn layout(
    node: &Node,
    epochs: &[u32],
    gone: &[usize],
    group: &Group,
) -> Result<VolumeLayout, String> {
    let volume = group.volume(LV).ok_or("no volume")?;
    let mut layout = plan::layout(group, volume, |pv| {
        let listed = group.pv(pv).is_some_and(|p| p.missing_since.is_none());
        let disk = node.pvs.iter().position(|p| *p == pv)?;
        (listed && !gone.contains(&disk)).then(|| place_of(epochs, disk))
    })
    .map_err(|error| error.to_string())?;
    for plex in layout.plexes.iter_mut().filter(|p| p.map.is_empty()) {
        plex.state = PlexState::Offline;
    }
    Ok(layout)
}

fn log_start(disk: &Disk, pv_extent: u64) -> u64 {
    disk.data_start + pv_extent * EXTENT
}

impl World {
    /// A node that was down comes up.
    pub fn boot(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        assert!(node.up.is_none());
        let scans = node.disks.iter_mut().enumerate();
        let scans = scans.filter_map(|(i, disk)| Some((i, inspect(&mut disk.meta).ok()?)));
        let scans: Vec<(usize, PvScan)> = scans.collect();
        check_copies(n, node, &scans);
        let assembled = assemble(scans);
        let Some(assembly) = assembled.groups.first() else {
            panic!("n{n}: its group is gone");
        };
        let Some(mut store) = Store::open(assembly) else {
            panic!("n{n}: no version can be chosen: {:?}", assembly.verdict);
        };
        // Invariant 5: the old version or the new one.
        let found = content(store.group());
        let known = node.committed.iter().chain(&node.attempts);
        let known: Vec<Group> = known.map(content).collect();
        assert!(
            known.contains(&found),
            "n{n}: metadata is neither the last version nor the one that was being written"
        );
        let mut gone: Vec<usize> = (0..node.disks.len())
            .filter(|i| node.disks[*i].dead || !assembly.members.iter().any(|m| m.key == *i))
            .collect();
        let listed: Vec<Uuid> = store
            .group()
            .pvs
            .iter()
            .filter(|p| p.missing_since.is_some())
            .map(|p| p.uuid)
            .collect();
        let absent = gone.iter().any(|d| !listed.contains(&node.pvs[*d]));
        let mut next = self.next;
        let mut uuid = || {
            next += 1;
            Uuid::from_u128(0xb007_0000_0000 | u128::from(next))
        };
        if !store.is_settled() || absent {
            let group = store.group().clone();
            write(node, &mut gone, &mut store, group, &mut uuid, false)
                .expect("a good disk is left");
        } else {
            node.committed = Some(found);
            node.attempts.clear();
        }
        // Copies of the log that missed updates are written anew from a valid one.
        let healed = heal_logs(node, &gone, store.group());
        if !healed.is_empty() {
            let group = healed.iter().fold(store.group().clone(), |group, plex| {
                plan::set_log_valid(&group, LV, *plex, true).expect("a plex")
            });
            write(node, &mut gone, &mut store, group, &mut uuid, false)
                .expect("a good disk is left");
        }
        self.next = next;
        let epochs = vec![0; self.nodes[n].disks.len()];
        let node = &self.nodes[n];
        let layout = layout(node, &epochs, &gone, store.group()).expect("the volume can be used");
        let images = layout.log.iter().map(|at| {
            let disk = &node.disks[disk_of(&epochs, at.disk).expect("a disk")];
            disk.logs[&at.range.start()].clone()
        });
        let engine = Engine::new(
            layout.clone(),
            config(self.storm.is_some()),
            images.collect(),
        );
        let engine = engine.expect("the engine starts");
        let entries = store.group().volume(LV).expect("the volume").feeds.clone();
        let entries = entries.iter().map(|feed| entry_of(n, feed)).collect();
        let empty = vec![u64::MAX - 1; (BOUNCE_BYTES / super::disk::SECTOR) as usize];
        self.nodes[n].up = Some(Daemon {
            store,
            engine,
            jobs: Vec::new(),
            out: VecDeque::new(),
            taking: false,
            results: VecDeque::new(),
            asked: HashMap::new(),
            payloads: (0..BOUNCES).map(|b| (b, empty.clone())).collect(),
            entries,
            sessions: BTreeMap::new(),
            outlets: HashMap::new(),
            marks: HashMap::new(),
            gone,
            epochs,
            attaching: None,
            scrub: None,
            worn: Worn::default(),
        });
        self.note(|| format!("n{n} is up"));
        self.check_claims_at_rest(n);
    }

    /// Commits a change of the group's metadata, durably.
    pub fn commit(
        &mut self,
        n: usize,
        change: impl FnOnce(&Group) -> Result<Group, PlanError>,
    ) -> Result<(), String> {
        self.commit_or_die(n, change, false)
    }

    fn commit_or_die(
        &mut self,
        n: usize,
        change: impl FnOnce(&Group) -> Result<Group, PlanError>,
        dies: bool,
    ) -> Result<(), String> {
        let mut next = self.next;
        let node = &mut self.nodes[n];
        let mut daemon = node.up.take().expect("the node is up");
        let result = match change(daemon.store.group()) {
            Err(error) => Err(error.to_string()),
            Ok(group) => {
                let uuid = || {
                    next += 1;
                    Uuid::from_u128(0xc033_1700_0000 | u128::from(next))
                };
                let (store, gone) = (&mut daemon.store, &mut daemon.gone);
                write(node, gone, store, group, uuid, dies)
            }
        };
        node.up = Some(daemon);
        self.next = next;
        result
    }

    /// Tells the engine what the metadata says now.
    pub fn reconfigure(&mut self, n: usize) -> Result<(), String> {
        let node = &self.nodes[n];
        let daemon = node.up.as_ref().expect("the node is up");
        let group = daemon.store.group();
        let layout = layout(node, &daemon.epochs, &daemon.gone, group)?;
        let mut result = Ok(());
        self.call(n, |engine, out| {
            result = engine.reconfigure(layout, out).map_err(|e| e.to_string());
        });
        result
    }

    /// Formats the copies of the log that are not valid and whose disk is here, lets the engine
    /// fill them, and calls them valid: `adopt_logs` of the daemon. Returns the plexes.
    pub fn adopt_logs(&mut self, n: usize) -> Vec<u32> {
        let node = &mut self.nodes[n];
        let Some(daemon) = &node.up else {
            return Vec::new();
        };
        let group = daemon.store.group();
        let Some(volume) = group.volume(LV) else {
            return Vec::new();
        };
        let geometry = geometry(group);
        let mut formatted = Vec::new();
        for log in volume.log.iter().filter(|l| !l.valid) {
            let disk = node.pvs.iter().position(|p| *p == log.pv);
            let here = group.pv(log.pv).is_some_and(|p| p.missing_since.is_none());
            let plex = volume.plexes.iter().find(|p| p.uuid == log.plex);
            let (Some(disk), Some(plex), true) = (disk, plex, here) else {
                continue;
            };
            if daemon.gone.contains(&disk) || node.disks[disk].dead {
                continue;
            }
            let start = log_start(&node.disks[disk], log.pv_extent);
            let image = blank_log(&geometry, log.extents);
            node.disks[disk].logs.insert(start, image);
            formatted.push(plex.number);
        }
        formatted
    }

    /// As [`World::reconfigure`], with the log copies of these plexes, which the metadata does not
    /// call valid yet.
    pub fn reconfigure_with_logs(&mut self, n: usize, plexes: &[u32]) -> Result<(), String> {
        let node = &self.nodes[n];
        let daemon = node.up.as_ref().expect("the node is up");
        let valid = plexes
            .iter()
            .try_fold(daemon.store.group().clone(), |group, plex| {
                plan::set_log_valid(&group, LV, *plex, true)
            });
        let group = valid.map_err(|e| e.to_string())?;
        let layout = layout(node, &daemon.epochs, &daemon.gone, &group)?;
        let mut result = Ok(());
        self.call(n, |engine, out| {
            result = engine.reconfigure(layout, out).map_err(|e| e.to_string());
        });
        result
    }

    /// New copies of the log are whole.
    pub fn adopted(&mut self, n: usize, plexes: &[u32]) {
        // A plex that is gone again has no log; then it is tried again at the next start.
        let _refused = self.commit(n, |group| {
            plexes.iter().try_fold(group.clone(), |group, plex| {
                plan::set_log_valid(&group, LV, *plex, true)
            })
        });
        // Plexes that waited for that.
        self.reconfigured(n);
    }

    /// The volume has grown in the metadata: its logs follow, before the engine hears of it.
    pub fn grow_logs(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let group = node.up.as_ref().expect("the node is up").store.group();
        let wanted = geometry(group);
        for log in &group.volume(LV).expect("the volume").log {
            let Some(disk) = node.pvs.iter().position(|p| *p == log.pv) else {
                continue;
            };
            let start = log_start(&node.disks[disk], log.pv_extent);
            let Some(image) = node.disks[disk].logs.get_mut(&start) else {
                continue;
            };
            let now = Geometry::decode_header(image).expect("a log");
            for (at, bytes) in now.grow(wanted.size) {
                image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    /// A process dies, with or without the power; perhaps in the middle of a commit.
    pub fn crash(&mut self, n: usize, power: bool) {
        let power = power || self.cache_loss_unknown(n);
        self.totals.crashes += 1;
        self.nodes[n].crashed = true;
        self.note(|| format!("n{n} crashes, power cut {power}"));
        let Some(mut daemon) = self.nodes[n].up.take() else {
            return;
        };
        // What was true of its volume stays what it was, whatever becomes of the volume.
        let old = Rc::new(std::mem::take(&mut self.nodes[n].history));
        let truths = self.claims.values_mut().map(|claim| &mut claim.truth);
        for truth in truths.chain(self.points.values_mut()) {
            if let Truth::At(node, at) = *truth
                && node == n
            {
                *truth = Truth::Old(old.clone(), at);
            }
        }
        self.drop_connections(n, power, &old);
        let mut history = (*old).clone();
        let later = self.storm.is_some() || self.more;
        let node = &mut self.nodes[n];
        for disk in &mut node.disks {
            disk.fail_flush = false;
            disk.fail_write = false;
        }
        for job in std::mem::take(&mut daemon.jobs) {
            match job {
                Job::Disk(io, mark) if io.op != DiskOp::Read => {
                    let percent = [0, 30, 100][self.rng.below(3) as usize];
                    if let Some(disk) = disk_of(&daemon.epochs, io.at.disk) {
                        let disk = &mut node.disks[disk];
                        // Nobody is there to hear how it went.
                        let _nobody =
                            disk.perform(&io, mark, percent, &mut daemon.payloads, &mut self.rng);
                    }
                }
                Job::Log(io) => {
                    if let Some(disk) = disk_of(&daemon.epochs, io.at.disk) {
                        let _nobody = node.disks[disk].write_log(&io, Some(&mut self.rng));
                    }
                }
                _ => {}
            }
        }
        for disk in &mut node.disks {
            match power {
                true => disk.power_cut(&mut self.rng),
                false => disk.process_died(),
            }
            // A disk that was gone is back when the machine is, with what it had: nobody has told it of anything since.
            if later && disk.dead && self.rng.chance(40) {
                disk.revive();
                self.totals.reappeared += 1;
            }
        }
        history.crash(power, self.step);
        node.history = history;
        self.step += 1;
        abandon(daemon);
    }

    /// A flush that failed has lost what a power cut may; as long as the metadata does not know, a
    /// crash is one.
    fn cache_loss_unknown(&self, n: usize) -> bool {
        let Some(daemon) = &self.nodes[n].up else {
            return false;
        };
        let volume = daemon.store.group().volume(LV);
        volume.is_some_and(|v| {
            v.plexes.iter().any(|p| {
                let known = daemon.engine.plex_state(volmgr::engine::PlexId(p.number));
                p.state == PlexState::Active && known == Some(PlexState::Failed)
            })
        })
    }

    /// The power goes in the middle of a commit, at a step of it that chance chooses.
    pub fn crash_in_commit(
        &mut self,
        n: usize,
        change: impl FnOnce(&Group) -> Result<Group, PlanError>,
    ) {
        let count = self.nodes[n].disks.len() as u64;
        let steps = self.rng.below(4 * count + 2);
        for (disk, i) in self.nodes[n].disks.iter_mut().zip(0..) {
            if !disk.dead {
                // All disks are written, then all are synced, and so on: in turn.
                disk.meta
                    .fail_after(steps / count + u64::from(i < steps % count));
            }
        }
        self.totals.torn_commits += 1;
        let _nobody = self.commit_or_die(n, change, true);
        self.crash(n, true);
    }
}

fn entry_of(n: usize, feed: &Feed) -> Entry {
    let peer = feed.peer.trim_start_matches('n').parse().expect("a node");
    debug_assert_ne!(n, peer);
    Entry {
        feed: feed.uuid,
        peer,
        initiator: feed.initiator,
        ask: Default::default(),
        provisional: None,
        enabled: matches!(
            feed.intent,
            FeedIntent::Attached | FeedIntent::Detaching { .. }
        ),
        state: match feed.intent {
            FeedIntent::Paused => FeedState::Paused,
            FeedIntent::Split { .. } => FeedState::Split,
            _ => FeedState::Disconnected,
        },
        session: None,
    }
}

/// Small bounds, so that every one of them is met; in a `storm` plexes are retired early.
fn config(storm: bool) -> EngineConfig {
    EngineConfig {
        max_in_flight: 10,
        bounce: (0..BOUNCES).map(PayloadId).collect(),
        bounce_bytes: BOUNCE_BYTES,
        block: super::disk::SECTOR,
        max_bulk_copies: 2,
        max_bulk_in_flight: 64 << 20,
        bulk_bytes: 3 * super::setup::REGION,
        max_live_bytes: 12 * super::setup::REGION,
        restore_wait_ms: 1000,
        max_read_errors: if storm { STORM_READ_ERRORS } else { 64 },
        clear_interval_ms: 50,
        clean: false,
    }
}

/// The geometry of the volume's log.
pub fn geometry(group: &Group) -> Geometry {
    let volume = group.volume(LV).expect("the volume");
    Geometry {
        volume: volume.uuid,
        size: group.bytes_of(volume),
        region_size: volume.region_size,
    }
}

/// A log in which nothing is dirty.
pub fn blank_log(geometry: &Geometry, extents: u64) -> Vec<u8> {
    let mut image = vec![0xee; (extents * EXTENT) as usize];
    for (at, bytes) in geometry.format(&[]) {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

/// Invariant 5: a commit that is durable is so twice on each disk, so that either area will do.
fn check_copies(n: usize, node: &Node, scans: &[(usize, PvScan)]) {
    let settled = node.twice && node.attempts.is_empty();
    let Some(group) = node.committed.as_ref().filter(|_| settled) else {
        return;
    };
    let here = |disk: usize| {
        let listed = group.pv(node.pvs[disk]);
        listed.is_some_and(|p| p.missing_since.is_none())
    };
    let areas = scans.iter().filter(|(disk, _)| here(*disk));
    let newest = |chains: &[Chain; 2]| {
        let tips = chains.iter().filter_map(Chain::tip);
        tips.map(|tip| tip.seqno).max()
    };
    let versions: BTreeSet<Option<u64>> = areas
        .flat_map(|(_, scan)| scan.areas.iter().map(|area| newest(&area.chains)))
        .collect();
    assert!(
        versions.len() < 2,
        "n{n}: copies of the metadata differ though their commit was durable: {versions:?}"
    );
}

/// Copies a valid log to where a copy is not; the numbers of those plexes.
fn heal_logs(node: &mut Node, gone: &[usize], group: &Group) -> Vec<u32> {
    let volume = group.volume(LV).expect("the volume");
    let place = |node: &Node, log: &volmgr::model::LogCopy| {
        let disk = node.pvs.iter().position(|p| *p == log.pv)?;
        let here = group.pv(log.pv).is_some_and(|p| p.missing_since.is_none());
        let start = log_start(&node.disks[disk], log.pv_extent);
        (here && !gone.contains(&disk)).then_some((disk, start))
    };
    let from = volume.log.iter().filter(|l| l.valid);
    let Some((disk, start)) = from.filter_map(|l| place(node, l)).next() else {
        return Vec::new();
    };
    let image = node.disks[disk].logs[&start].clone();
    let mut healed = Vec::new();
    for log in volume.log.iter().filter(|l| !l.valid) {
        let plex = volume.plexes.iter().find(|p| p.uuid == log.plex);
        if let (Some(plex), Some((disk, start))) = (plex, place(node, log)) {
            node.disks[disk].logs.insert(start, image.clone());
            healed.push(plex.number);
        }
    }
    healed
}
