//! Disks, groups and volumes of a new world.

use super::disk::{Disk, SECTOR};
use super::history::History;
use super::rng::Rng;
use super::storm::{Storm, is_storm};
use super::world::{LV, Node, VG, World};
use regionmap::log::Geometry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use uuid::Uuid;
use volmgr::metadata::{MemPv, PvIo, Store, initialise_pv, inspect};
use volmgr::model::Group;
use volmgr::plan::{self, NewPv, VolumeRequest};

/// Extent size in bytes.
pub const EXTENT: u64 = 64 << 10;
/// Unit of dirty tracking in bytes.
pub const REGION: u64 = 4096;
/// Extents of a disk.
const EXTENTS: u64 = 14;
/// Bytes of a disk: the label's geometry, the areas, the extents.
const DISK: u64 = (1 << 20) + EXTENTS * EXTENT + (256 << 10) + 4096;
/// Seeds from here on have more faults, so that those below stay what they were when they found something.
const MORE_FROM: u64 = 10_000;

/// Kinds of nodes: further plexes, striped or not, disks. Those behind the first three are for storms.
const KINDS: [(u32, bool, usize); 5] = [
    (0, false, 3),
    (1, false, 3),
    (0, true, 3),
    (2, false, 3),
    (1, true, 4),
];

/// A machine before anything has happened to it.
struct Template {
    disks: Vec<(MemPv, u64)>,
    pvs: Vec<Uuid>,
    group: Group,
    logs: Vec<BTreeMap<u64, Vec<u8>>>,
    extents: u64,
}

fn pv(node: usize, disk: usize) -> Uuid {
    Uuid::from_u128(0xd15c_0000 + (node * 16 + disk) as u128)
}

/// Makes a node's group and volume, with `mirrors` further plexes, striped or not, on so many disks.
fn template(node: usize, (mirrors, striped, count): (u32, bool, usize)) -> Template {
    let mut metas = Vec::new();
    let mut new = Vec::new();
    for disk in 0..count {
        let mut meta = MemPv::new(DISK);
        let label = initialise_pv(&mut meta, pv(node, disk)).expect("a disk of good size");
        metas.push((meta, label.data_start));
        new.push(NewPv {
            label,
            path: format!("disk{disk}"),
        });
    }
    let mut next = 0xa000 + node as u128 * 0x100;
    let mut uuid = || {
        next += 1;
        Uuid::from_u128(next)
    };
    let group = plan::create_group(uuid(), VG, EXTENT, new).expect("a group");
    let mut request = VolumeRequest::new(LV, 2 * EXTENT);
    request.mirrors = mirrors;
    request.region_size = REGION;
    if striped {
        request.stripes = 2;
        request.stripe_size = 8192;
    }
    let mut group = plan::create_volume(&group, &request, &mut uuid).expect("room for the volume");
    for plex in 0..=mirrors {
        group = plan::set_plex_state(&group, LV, plex, volmgr::model::PlexState::Active)
            .expect("all are equal: all zero");
    }
    let mut store = Store::create(Group {
        seqno: 0,
        ..group.clone()
    });
    let mut pvs: BTreeMap<Uuid, &mut dyn PvIo> = metas
        .iter_mut()
        .enumerate()
        .map(|(disk, (meta, _))| (pv(node, disk), meta as &mut dyn PvIo))
        .collect();
    store.commit(group, uuid(), &mut pvs).expect("good disks");
    drop(pvs);
    let group = store.group().clone();
    let volume = group.volume(LV).expect("the volume");
    let geometry = Geometry {
        volume: volume.uuid,
        size: group.bytes_of(volume),
        region_size: REGION,
    };
    let mut logs = vec![BTreeMap::new(); count];
    for log in &volume.log {
        let disk = (0..count).find(|d| pv(node, *d) == log.pv).expect("a disk");
        let start = metas[disk].1 + log.pv_extent * EXTENT;
        let mut image = vec![0xee; (log.extents * EXTENT) as usize];
        for (at, bytes) in geometry.format(&[]) {
            image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        logs[disk].insert(start, image);
    }
    debug_assert!(inspect(&mut metas[0].0.clone()).is_ok());
    Template {
        pvs: (0..count).map(|disk| pv(node, disk)).collect(),
        extents: volume.extents,
        disks: metas,
        group,
        logs,
    }
}

/// Templates by node and kind.
fn templates() -> &'static Vec<Vec<Template>> {
    static ALL: OnceLock<Vec<Vec<Template>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let node = |n| KINDS.map(|kind| template(n, kind)).into();
        (0..3).map(node).collect()
    })
}

fn node(index: usize, kind: usize) -> Node {
    let template = &templates()[index][kind];
    let sectors = (EXTENTS * EXTENT / SECTOR) as usize;
    let disks = template
        .disks
        .iter()
        .zip(&template.logs)
        .map(|((meta, start), logs)| {
            let mut disk = Disk::new(meta.clone(), *start, sectors);
            disk.logs.clone_from(logs);
            disk
        })
        .collect();
    Node {
        name: format!("n{index}"),
        disks,
        pvs: template.pvs.clone(),
        history: History::new((template.extents * EXTENT / SECTOR) as usize),
        up: None,
        committed: Some(template.group.clone()),
        twice: true,
        attempts: Vec::new(),
        open: index == 0,
        ahead: 0,
        last_write: 0,
        last_try: 0,
        crashed: false,
    }
}

impl World {
    /// A world of this seed: two nodes or three, all of them up.
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let relations = match rng.below(6) {
            0..=2 if is_storm(seed) => Vec::new(),
            0 if !is_storm(seed) => vec![(0, 1), (0, 2)],
            1 if !is_storm(seed) => vec![(0, 1), (1, 2)],
            _ => vec![(0, 1)],
        };
        let count = relations.len().clamp(0, 2) + 1;
        let kinds: Vec<usize> = match is_storm(seed) {
            true => (0..count)
                .map(|_| [1, 1, 3, 3, 4, 4][rng.index(6)])
                .collect(),
            false => (0..count)
                .map(|_| [1, 1, 1, 0, 0, 2][rng.index(6)])
                .collect(),
        };
        let storm = is_storm(seed).then(|| Storm::new(&mut rng, relations.is_empty()));
        let nodes = kinds.iter().enumerate().map(|(n, k)| node(n, *k)).collect();
        let mut world = Self {
            seed,
            rng,
            nodes,
            relations,
            conns: BTreeMap::new(),
            step: 1,
            ms: 0,
            next: 1 << 20,
            faults: true,
            more: seed >= MORE_FROM,
            storm,
            doom: None,
            claims: BTreeMap::new(),
            points: BTreeMap::new(),
            rot: BTreeSet::new(),
            passed_on: BTreeMap::new(),
            seeded: BTreeMap::new(),
            trace: trace.then(Vec::new),
            totals: super::Totals::default(),
        };
        for n in 0..count {
            world.boot(n);
        }
        world
    }
}
