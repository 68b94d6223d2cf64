//! A split or a merge is cut off at each of its writes, what comes after that too, and the next start
//! must find either what was before or what was to be.

use super::super::{MEMORY_FILE, Memory, Remembered};
use super::*;
use crate::daemon::disks::cut;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use volmgr::model::{Volume, check};
use volmgr::plan::{Destination, NewPv, VolumeRequest};

const DISKS: usize = 4;
const MIB: u64 = 1 << 20;

fn disk(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("disk{n}"))
}

/// Groups `vg` on disks 0 to 2, with `web` on disk 0 and the mirror `db` on 1 and 2, and `other` on disk 3
/// with `mail`.
fn prepare(dir: &Path) {
    let groups = Groups::new(
        dir.join("archive"),
        Memory::new(dir.join(MEMORY_FILE), Remembered::default()),
    );
    let made = |name: &str, disks: &[usize], volumes: &[(&str, u32, &[usize])]| {
        let mut orphans = Vec::new();
        let mut pvs = Vec::new();
        for n in disks {
            let path = disk(dir, *n);
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(32 * MIB).unwrap();
            let mut disk = FilePv::claim(&path).unwrap();
            let label = metadata::initialise_pv(&mut disk, Uuid::new_v4()).unwrap();
            let path = path.display().to_string();
            pvs.push(NewPv { label, path });
            orphans.push(Orphan {
                uuid: pvs[pvs.len() - 1].label.pv,
                disk,
            });
        }
        let uuids: Vec<Uuid> = orphans.iter().map(|o| o.uuid).collect();
        let group = plan::create_group(Uuid::new_v4(), name, MIB, pvs).unwrap();
        groups.create(group, orphans).unwrap();
        for (lv, mirrors, on) in volumes {
            let mut request = VolumeRequest::new(lv, 2 * MIB);
            request.mirrors = *mirrors;
            request.pvs = on.iter().map(|n| uuids[*n]).collect();
            groups
                .commit(name, |g| {
                    plan::create_volume(g, &request, &mut Uuid::new_v4)
                })
                .unwrap();
        }
    };
    made("vg", &[0, 1, 2], &[("web", 0, &[0]), ("db", 1, &[1, 2])]);
    made("other", &[3], &[("mail", 0, &[0])]);
}

fn start(dir: &Path) -> (Groups, Vec<String>) {
    let groups = Groups::new(
        dir.join("archive"),
        Memory::new(dir.join(MEMORY_FILE), Remembered::default()),
    );
    let paths = (0..DISKS).map(|n| disk(dir, n)).collect();
    let outcome = groups.scan(&paths, &paths);
    (groups, outcome.warnings)
}

/// Group, its disks by number, its volumes: all there is.
type Picture = Vec<(String, Vec<usize>, Vec<Volume>)>;

fn picture(dir: &Path, groups: &Groups) -> Picture {
    let views = groups.views();
    let picture = views.iter().map(|view| {
        assert_eq!(view.trouble, None);
        assert_eq!(check(&view.group), []);
        assert_eq!(view.group.handover, None, "still on the way");
        assert!(view.missing().is_empty());
        let number = |pv: &volmgr::model::Pv| {
            let here = |n: &usize| view.disks[&pv.uuid].path == disk(dir, *n);
            assert_eq!(pv.missing_since, None);
            (0..DISKS).find(here).unwrap()
        };
        let mut pvs: Vec<usize> = view.group.pvs.iter().map(number).collect();
        pvs.sort_unstable();
        let volumes = view.group.volumes.iter().cloned().collect();
        (view.group.name.clone(), pvs, volumes)
    });
    picture.collect()
}

fn members(picture: &Picture) -> Vec<(&str, &[usize], Vec<&str>)> {
    let members = picture.iter().map(|(name, pvs, volumes)| {
        let volumes = volumes.iter().map(|v| v.name.as_str()).collect();
        (name.as_str(), pvs.as_slice(), volumes)
    });
    members.collect()
}

fn split(groups: &Groups, to: &str) -> Result<(), String> {
    let view = groups.view("vg").ok_or("no vg")?;
    let other = groups.view(to);
    let db = view.volume("db").ok_or("no db")?;
    let pvs: Vec<Uuid> = plan::disks_of(db).into_iter().collect();
    let destination = Destination {
        uuid: other.as_ref().map_or_else(Uuid::new_v4, |o| o.group.uuid),
        name: to,
        group: other.as_ref().map(|o| &o.group),
    };
    groups
        .commit("vg", |g| plan::split_group(g, &pvs, destination))
        .map_err(|error| error.to_string())?;
    groups.hand_over("vg", false).map(drop)
}

fn merge(groups: &Groups) -> Result<(), String> {
    let from = groups.view("vg").ok_or("no vg")?;
    groups
        .commit("other", |g| plan::merge_group(g, &from.group))
        .map_err(|error| error.to_string())?;
    let removed = |g: &Group| {
        Ok::<_, std::convert::Infallible>(Group {
            pvs: Vec::new(),
            volumes: Default::default(),
            ..g.clone()
        })
    };
    groups
        .commit("vg", removed)
        .map_err(|error| error.to_string())?;
    groups.hand_over("other", false).map(drop)
}

/// Runs `verb` again and again, cut off one write later each time, until it is not cut off any more. After
/// each the node starts anew, cut off once too, and again.
fn cut_off(verb: impl Fn(&Groups) -> Result<(), String>) -> [Picture; 2] {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    std::fs::create_dir(&origin).unwrap();
    prepare(&origin);
    let before = picture(&origin, &start(&origin).0);
    let mut after: Option<Picture> = None;
    let (mut undone, mut completed) = (0, 0);
    for at in 0.. {
        assert!(at < 1000, "it never ends");
        let dir = dir.path().join("run");
        std::fs::create_dir(&dir).unwrap();
        for n in 0..DISKS {
            std::fs::copy(disk(&origin, n), disk(&dir, n)).unwrap();
        }
        let (groups, _) = start(&dir);
        let ran = {
            let _cut = cut::after(at);
            catch_unwind(AssertUnwindSafe(|| verb(&groups)))
        };
        if let Ok(result) = &ran {
            assert_eq!(*result, Ok(()));
            after = Some(picture(&dir, &groups));
        }
        drop(groups);
        let began = {
            let _cut = cut::after(at * 5 % 17);
            catch_unwind(AssertUnwindSafe(|| start(&dir).1))
        };
        let (groups, warnings) = start(&dir);
        // Half-written copies of labels and records are mended by the next commit.
        let bad = [
            "taken out",
            "removed",
            "waits",
            "arrive",
            "missing",
            "not taken",
        ];
        let bad = |w: &String| bad.iter().any(|word| w.contains(word));
        assert!(!warnings.iter().any(bad), "write {at}: {warnings:?}");
        let found = picture(&dir, &groups);
        match &after {
            // The last round: it went through.
            Some(after) => assert_eq!(found, *after),
            None if found == before => undone += 1,
            None => {
                completed += 1;
                let names: Vec<_> = found.iter().flat_map(|(_, _, v)| v).collect();
                let old: Vec<_> = before.iter().flat_map(|(_, _, v)| v).collect();
                let sorted = |mut v: Vec<&Volume>| {
                    v.sort_by_key(|v| v.uuid);
                    v.into_iter().cloned().collect::<Vec<_>>()
                };
                assert_eq!(sorted(names), sorted(old), "write {at}");
            }
        }
        drop((groups, began));
        std::fs::remove_dir_all(&dir).unwrap();
        if let Some(after) = after {
            assert!(undone > 0 && completed > 3, "{undone} {completed}");
            return [before, after];
        }
    }
    unreachable!()
}

#[test]
fn a_split_into_a_new_group() {
    let [before, after] = cut_off(|groups| split(groups, "new"));
    assert_eq!(
        members(&before),
        [
            ("other", &[3][..], vec!["mail"]),
            ("vg", &[0, 1, 2], vec!["web", "db"])
        ]
    );
    assert_eq!(
        members(&after),
        [
            ("new", &[1, 2][..], vec!["db"]),
            ("other", &[3], vec!["mail"]),
            ("vg", &[0], vec!["web"])
        ]
    );
}

#[test]
fn a_split_into_another_group() {
    let [_, after] = cut_off(|groups| split(groups, "other"));
    assert_eq!(
        members(&after),
        [
            ("other", &[1, 2, 3][..], vec!["mail", "db"]),
            ("vg", &[0], vec!["web"])
        ]
    );
}

#[test]
fn a_merge() {
    let [_, after] = cut_off(merge);
    assert_eq!(
        members(&after),
        [("other", &[0, 1, 2, 3][..], vec!["mail", "web", "db"])]
    );
}

/// Decided, and then a disk is away: it is waited for, or given up.
#[test]
fn a_disk_that_is_away() {
    for give_up in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let (groups, _) = start(dir.path());
        {
            // Enough for the commit that decides, not for the next.
            let view = groups.view("vg").unwrap();
            let db = view.volume("db").unwrap();
            let pvs: Vec<Uuid> = plan::disks_of(db).into_iter().collect();
            let to = Destination {
                uuid: Uuid::new_v4(),
                name: "new",
                group: None,
            };
            groups
                .commit("vg", |g| plan::split_group(g, &pvs, to))
                .unwrap();
        }
        drop(groups);
        let away = dir.path().join("away");
        std::fs::rename(disk(dir.path(), 2), &away).unwrap();
        let (groups, warnings) = start(dir.path());
        let waits = |w: &&String| w.contains("vgsplit to new waits for disk(s)");
        assert_eq!(warnings.iter().filter(waits).count(), 1, "{warnings:?}");
        assert!(groups.view("new").is_none());
        if give_up {
            groups.hand_over("vg", true).unwrap();
            let new = groups.view("new").unwrap();
            assert_eq!(new.missing().len(), 1);
            assert!(new.volume("db").is_some());
            continue;
        }
        drop(groups);
        std::fs::rename(&away, disk(dir.path(), 2)).unwrap();
        let (groups, _) = start(dir.path());
        assert_eq!(picture(dir.path(), &groups)[0].1, [1, 2]);
    }
}
