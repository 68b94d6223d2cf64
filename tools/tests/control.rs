//! The real `volmgrd` over its socket: disks, groups, volumes, peers; restarts, kills, missing and
//! scribbled disks; wrong uses.

mod rig;

use rig::{Daemon, Lab, lv};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tools::api::{Command, LvChange, ReportKind, SizeSpec};

const MIB: u64 = 1 << 20;

fn vgcreate(vg: &str, pvs: &[&Path]) -> Command {
    Command::Vgcreate {
        vg: vg.into(),
        pvs: rig::paths(pvs),
        extent_size: Some(MIB),
        force: false,
        tags: Vec::new(),
    }
}

fn lvcreate(name: &str, size: u64, mirrors: u32) -> Command {
    Command::Lvcreate {
        lv: lv(name),
        size: SizeSpec::Bytes(size),
        mirrors,
        stripes: 1,
        stripe_size: None,
        pvs: Vec::new(),
        inactive: true,
        frontend: None,
        tags: Default::default(),
    }
}

#[test]
fn disks_groups_and_volumes_survive_a_restart_and_a_kill() {
    let lab = Lab::new();
    let (a, b) = (lab.disk("a", 64 * MIB), lab.disk("b", 64 * MIB));
    let mut daemon = lab.daemon("n1");
    daemon.ok(Command::Pvcreate {
        paths: rig::paths(&[&a]),
        force: false,
    });
    // The other disk is labelled on the way.
    daemon.ok(vgcreate("vg0", &[&a, &b]));
    daemon.ok(lvcreate("vg0/web", 10 * MIB, 1));
    daemon.ok(lvcreate("vg0/db", 5 * MIB + 1, 0));
    let check = |daemon: &Daemon| {
        let rows = daemon.rows(ReportKind::Lv);
        assert_eq!(rows.len(), 2);
        assert_eq!(rig::text(&rows[0], "lv_name"), "web");
        assert_eq!(rig::number(&rows[0], "lv_size"), 10 * MIB);
        assert_eq!(rig::number(&rows[0], "plex_count"), 2);
        assert_eq!(rig::text(&rows[0], "lv_health"), "ok");
        // Rounded up to whole extents.
        assert_eq!(rig::number(&rows[1], "lv_size"), 6 * MIB);
        let plexes = daemon.rows(ReportKind::Plex);
        assert_eq!(plexes.len(), 3);
        // Files have holes: the plexes were zeroed and are equal from the start.
        assert!(
            plexes
                .iter()
                .all(|row| rig::text(row, "plex_state") == "active")
        );
        let vgs = daemon.rows(ReportKind::Vg);
        assert_eq!(rig::number(&vgs[0], "pv_count"), 2);
        assert_eq!(rig::text(&vgs[0], "vg_attr"), "wz--n-");
    };
    check(&daemon);
    daemon.stop();
    daemon.start();
    check(&daemon);
    daemon.kill();
    daemon.start();
    check(&daemon);
    let events = daemon.rows(ReportKind::Event);
    assert!(
        events
            .iter()
            .any(|row| rig::text(row, "event_kind") == "lv-created")
    );
}

#[test]
fn a_missing_disk_degrades_and_comes_back() {
    let lab = Lab::new();
    let (a, b) = (lab.disk("a", 64 * MIB), lab.disk("b", 64 * MIB));
    let mut daemon = lab.daemon("n1");
    daemon.ok(vgcreate("vg0", &[&a, &b]));
    daemon.ok(lvcreate("vg0/web", 8 * MIB, 1));
    daemon.stop();
    let away = b.with_extension("away");
    std::fs::rename(&b, &away).unwrap();
    daemon.start();
    let vgs = daemon.rows(ReportKind::Vg);
    assert_eq!(rig::number(&vgs[0], "vg_missing_pv_count"), 1);
    assert_eq!(rig::text(&vgs[0], "vg_attr"), "wz-pn-");
    let lvs = daemon.rows(ReportKind::Lv);
    assert_eq!(rig::text(&lvs[0], "lv_health"), "degraded");
    // A change while the disk is away: from now on its metadata is outdated.
    daemon.ok(lvcreate("vg0/new", 2 * MIB, 0));
    let why = daemon.fails(lvcreate("vg0/two", 2 * MIB, 1)).why;
    assert!(why.contains("2 different disks"), "{why}");
    std::fs::rename(&away, &b).unwrap();
    daemon.ok(Command::Vgscan { paths: Vec::new() });
    let vgs = daemon.rows(ReportKind::Vg);
    assert_eq!(rig::number(&vgs[0], "vg_missing_pv_count"), 0);
    assert_eq!(daemon.rows(ReportKind::Lv).len(), 2);
    let plexes = daemon.rows(ReportKind::Plex);
    let states: Vec<_> = plexes
        .iter()
        .filter(|row| rig::text(row, "lv_name") == "web")
        .map(|row| rig::text(row, "plex_state"))
        .collect();
    assert_eq!(states.iter().filter(|state| *state == "active").count(), 1);
    assert_eq!(states.iter().filter(|state| *state == "stale").count(), 1);
    // And it is whole after a restart, from either disk alone.
    daemon.stop();
    for path in [&a, &b] {
        let away = path.with_extension("away");
        std::fs::rename(path, &away).unwrap();
        daemon.start();
        assert_eq!(daemon.rows(ReportKind::Lv).len(), 2);
        daemon.stop();
        std::fs::rename(&away, path).unwrap();
    }
}

#[test]
fn a_scribbled_disk_is_reported_and_not_believed() {
    let lab = Lab::new();
    let (a, b) = (lab.disk("a", 64 * MIB), lab.disk("b", 64 * MIB));
    let mut daemon = lab.daemon("n1");
    daemon.ok(vgcreate("vg0", &[&a, &b]));
    daemon.ok(lvcreate("vg0/web", 8 * MIB, 0));
    daemon.stop();
    let file = std::fs::OpenOptions::new().write(true).open(&b).unwrap();
    file.write_all_at(&vec![0xA5; 2 * MIB as usize], 0).unwrap();
    file.write_all_at(&vec![0xA5; MIB as usize], 63 * MIB)
        .unwrap();
    drop(file);
    daemon.start();
    assert_eq!(daemon.rows(ReportKind::Lv).len(), 1);
    let vgs = daemon.rows(ReportKind::Vg);
    assert_eq!(rig::number(&vgs[0], "vg_missing_pv_count"), 1);
    daemon.stop();
    // Only the front damaged: the back copies are enough.
    let file = std::fs::OpenOptions::new().write(true).open(&a).unwrap();
    file.write_all_at(&vec![0x5A; MIB as usize], 0).unwrap();
    drop(file);
    daemon.start();
    assert_eq!(daemon.rows(ReportKind::Lv).len(), 1);
}

#[test]
fn two_daemons_do_not_share_a_state_directory_or_a_disk() {
    let lab = Lab::new();
    let a = lab.disk("a", 64 * MIB);
    let daemon = lab.daemon("n1");
    daemon.ok(vgcreate("vg0", &[&a]));
    let (code, stderr) = daemon.second_of_same_state();
    assert!(code == 4 || code == 5, "exit code {code}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(stderr.contains("another volmgrd uses it"), "{stderr}");

    let other = lab.daemon("n2");
    let failure = other.fails(Command::Pvcreate {
        paths: rig::paths(&[&a]),
        force: true,
    });
    assert!(failure.why.contains("in use"), "{failure}");
    let warnings = other.warnings(Command::Vgscan {
        paths: rig::paths(&[&a]),
    });
    assert!(
        warnings.iter().any(|w| w.contains("in use")),
        "{warnings:?}"
    );
    assert!(other.rows(ReportKind::Vg).is_empty());
}

#[test]
fn an_exported_group_moves_to_another_node() {
    let lab = Lab::new();
    let a = lab.disk("a", 64 * MIB);
    let one = lab.daemon("n1");
    one.ok(vgcreate("vg0", &[&a]));
    one.ok(lvcreate("vg0/web", 4 * MIB, 0));
    one.ok(Command::Vgexport { vg: "vg0".into() });
    assert!(
        one.fails(lvcreate("vg0/no", MIB, 0))
            .why
            .contains("exported")
    );
    let two = lab.daemon("n2");
    two.ok(Command::Vgscan {
        paths: rig::paths(&[&a]),
    });
    two.ok(Command::Vgimport { vg: "vg0".into() });
    assert_eq!(two.rows(ReportKind::Lv).len(), 1);
    two.ok(lvcreate("vg0/more", MIB, 0));
    // The first node cannot take it back while it is in use.
    let failure = one.fails(Command::Vgimport { vg: "vg0".into() });
    assert!(failure.why.contains("in use"), "{failure}");
}

#[test]
fn sizes_names_and_shapes_change() {
    let lab = Lab::new();
    let (a, b, c) = (
        lab.disk("a", 64 * MIB),
        lab.disk("b", 64 * MIB),
        lab.disk("c", 64 * MIB),
    );
    let daemon = lab.daemon("n1");
    daemon.ok(vgcreate("vg0", &[&a, &b]));
    daemon.ok(lvcreate("vg0/web", 4 * MIB, 0));
    daemon.ok(Command::Lvextend {
        lv: lv("vg0/web"),
        size: SizeSpec::Plus(4 * MIB),
        pvs: Vec::new(),
    });
    assert_eq!(
        rig::number(&daemon.rows(ReportKind::Lv)[0], "lv_size"),
        8 * MIB
    );
    let reduce = |force| Command::Lvreduce {
        lv: lv("vg0/web"),
        size: SizeSpec::Bytes(6 * MIB),
        force,
    };
    assert!(daemon.fails(reduce(false)).why.contains("lost"));
    daemon.ok(reduce(true));
    daemon.ok(Command::Plexattach {
        lv: lv("vg0/web"),
        pvs: Vec::new(),
    });
    let plexes = daemon.rows(ReportKind::Plex);
    assert_eq!(rig::text(&plexes[1], "plex_state"), "syncing");
    let detach = |plex: &str| Command::Plexdetach {
        lv: lv("vg0/web"),
        plex: plex.into(),
        force: false,
    };
    assert!(
        daemon
            .fails(detach("plex0"))
            .why
            .contains("last active plex")
    );
    daemon.ok(detach("plex1"));
    daemon.ok(Command::Lvrename {
        lv: lv("vg0/web"),
        new: "www".into(),
    });
    daemon.ok(Command::Vgrename {
        vg: "vg0".into(),
        new: "vg1".into(),
    });
    daemon.ok(Command::Vgextend {
        vg: "vg1".into(),
        pvs: rig::paths(&[&c]),
        force: false,
    });
    daemon.ok(Command::Vgreduce {
        vg: "vg1".into(),
        pvs: rig::paths(&[&b]),
        missing: false,
    });
    let used = daemon.fails(Command::Vgreduce {
        vg: "vg1".into(),
        pvs: rig::paths(&[&a]),
        missing: false,
    });
    assert!(used.why.contains("in use by www"), "{used}");
    let tree = rig::tree(&daemon.ok(Command::Lvdisplay { lv: lv("vg1/www") }));
    assert_eq!(tree[0], ["vg1/www"]);
    assert!(
        tree.iter()
            .any(|path| path[..] == ["vg1/www", "plex0", "subdisk", "disk"]),
        "{tree:?}"
    );
    // A disk that has grown.
    let file = std::fs::OpenOptions::new().write(true).open(&c).unwrap();
    file.set_len(128 * MIB).unwrap();
    let before = rig::number(&daemon.rows(ReportKind::Vg)[0], "vg_size");
    daemon.ok(Command::Pvresize {
        paths: rig::paths(&[&c]),
        size: None,
    });
    let after = rig::number(&daemon.rows(ReportKind::Vg)[0], "vg_size");
    assert_eq!(after - before, 64 * MIB);
    // Everything goes away again, and the disks are free.
    assert!(
        daemon
            .fails(Command::Vgremove {
                vg: "vg1".into(),
                force: false
            })
            .why
            .contains("volume")
    );
    daemon.ok(Command::Lvremove {
        lv: lv("vg1/www"),
        force: false,
    });
    daemon.ok(Command::Vgremove {
        vg: "vg1".into(),
        force: false,
    });
    daemon.ok(Command::Pvremove {
        paths: rig::paths(&[&a, &b, &c]),
        force: false,
    });
    assert!(daemon.rows(ReportKind::Pv).is_empty());
}

#[test]
fn test_mode_changes_nothing() {
    let lab = Lab::new();
    let a = lab.disk("a", 64 * MIB);
    let daemon = lab.daemon("n1");
    let said = daemon.test_mode(vgcreate("vg0", &[&a]));
    assert!(said[0].contains("would create group vg0"), "{said:?}");
    assert!(daemon.rows(ReportKind::Vg).is_empty());
    assert!(std::fs::read(&a).unwrap().iter().all(|byte| *byte == 0));
    daemon.ok(vgcreate("vg0", &[&a]));
    let before = std::fs::read(&a).unwrap();
    for command in [
        lvcreate("vg0/web", MIB, 0),
        Command::Vgrename {
            vg: "vg0".into(),
            new: "x".into(),
        },
        Command::Vgremove {
            vg: "vg0".into(),
            force: false,
        },
        Command::Vgexport { vg: "vg0".into() },
    ] {
        let said = daemon.test_mode(command);
        assert!(said[0].contains("would"), "{said:?}");
    }
    assert_eq!(std::fs::read(&a).unwrap(), before);
}

/// What must be refused: object, exit code, and a word of the reason.
#[test]
fn wrong_uses_are_refused_with_a_reason() {
    let lab = Lab::new();
    let a = lab.disk("a", 64 * MIB);
    let tiny = lab.disk("tiny", 4096);
    let foreign = lab.disk("foreign", 64 * MIB);
    // An ext4 superblock's magic is all that the check needs to see.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&foreign)
        .unwrap();
    file.write_all_at(&[0x53, 0xEF], 1024 + 0x38).unwrap();
    file.write_all_at(&[1, 0, 0, 0], 1024 + 0x4C).unwrap();
    let daemon = lab.daemon("n1");
    daemon.ok(vgcreate("vg0", &[&a]));
    daemon.ok(lvcreate("vg0/web", MIB, 0));
    let pvcreate = |path: &str| Command::Pvcreate {
        paths: vec![path.into()],
        force: false,
    };
    let path = |path: &Path| path.display().to_string();
    let table: Vec<(Command, u8, &str)> = vec![
        (pvcreate("/does/not/exist"), 5, "no such file"),
        (pvcreate("relative"), 3, "not absolute"),
        (pvcreate("/tmp"), 5, "neither a block device"),
        (pvcreate("/dev/null"), 5, "neither a block device"),
        (pvcreate(&path(&tiny)), 5, "too small"),
        (pvcreate(&path(&a)), 5, "belongs to group vg0"),
        (pvcreate(&path(&foreign)), 5, "ext"),
        (
            Command::Pvcreate {
                paths: Vec::new(),
                force: false,
            },
            3,
            "no disk",
        ),
        (vgcreate("vg1", &[&foreign]), 5, "ext"),
        (vgcreate("bad/name", &[&foreign]), 3, "character"),
        (vgcreate("vg0", &[&foreign]), 5, "exists already"),
        (lvcreate("vg9/x", MIB, 0), 5, "no such volume group"),
        (lvcreate("vg0/web", MIB, 0), 5, "exists already"),
        (lvcreate("vg0/-x", MIB, 0), 3, "-"),
        (lvcreate("vg0/big", 1 << 40, 0), 5, "needs 1.00t"),
        (lvcreate("vg0/m", MIB, 1), 5, "2 different disks, vg0 has 1"),
        (lvcreate("vg0/zero", 0, 0), 5, "no space"),
        (
            Command::Lvremove {
                lv: lv("vg0/none"),
                force: false,
            },
            5,
            "no such volume",
        ),
        (
            Command::Plexdetach {
                lv: lv("vg0/web"),
                plex: "plex7".into(),
                force: true,
            },
            5,
            "has no plex7",
        ),
        (
            Command::Lvchange {
                lv: lv("vg0/web"),
                change: LvChange::Activate {
                    frontend: Some("scsi".into()),
                },
            },
            5,
            "no front end",
        ),
        (
            Command::Peeradd {
                name: "p".into(),
                addr: "nowhere".into(),
                fingerprint: String::new(),
                data: Vec::new(),
                allow: Vec::new(),
                plaintext: false,
            },
            5,
            "no port",
        ),
        (Command::Peerremove { name: "p".into() }, 5, "no such peer"),
        (Command::Vgimport { vg: "vg0".into() }, 5, "not exported"),
    ];
    for (command, code, word) in table {
        let what = format!("{command:?}");
        let failure = daemon.fails(command);
        assert_eq!(failure.code, code, "{what}: {failure}");
        assert!(failure.why.contains(word), "{what}: {failure}");
        assert!(!failure.to_string().contains('\n'), "{what}");
    }
    // With --force the foreign disk is taken.
    daemon.ok(Command::Pvcreate {
        paths: vec![path(&foreign)],
        force: true,
    });
}

#[test]
fn requests_that_are_no_requests_do_no_harm() {
    let lab = Lab::new();
    let daemon = lab.daemon("n1");
    for line in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "{}\n".to_owned(),
        "\n".to_owned(),
        format!("{}\n", "[".repeat(100_000)),
        "x".repeat(3 << 20),
    ] {
        let answer = daemon.raw(line.as_bytes());
        assert!(answer.len() < 100_000);
    }
    assert_eq!(daemon.rows(ReportKind::Node).len(), 1);
}

#[test]
fn peers_are_kept_and_checked() {
    let lab = Lab::new();
    let mut daemon = lab.daemon("n1");
    let fingerprint = rig::text(&daemon.rows(ReportKind::Node)[0], "node_fingerprint");
    let add = |name: &str, fingerprint: &str, allow: &[&str]| Command::Peeradd {
        name: name.into(),
        addr: "192.0.2.1:7000".into(),
        fingerprint: fingerprint.into(),
        data: vec!["198.51.100.1:7000".into()],
        allow: allow.iter().map(|rule| (*rule).to_owned()).collect(),
        plaintext: false,
    };
    daemon.ok(add("b", &fingerprint, &["all:vgb/*", "!all:vgb/secret*"]));
    assert!(
        daemon
            .fails(add("c", &fingerprint, &[]))
            .why
            .contains("peer b")
    );
    daemon.fails(add("d", "nonsense", &[]));
    daemon.fails(add("b", &fingerprint, &["everything"]));
    daemon.stop();
    daemon.start();
    let peers = daemon.rows(ReportKind::Peer);
    assert_eq!(peers.len(), 1);
    assert_eq!(
        rig::text(&peers[0], "peer_allow"),
        "all:vgb/* !all:vgb/secret*"
    );
    assert_eq!(
        rig::text(&daemon.rows(ReportKind::Node)[0], "node_fingerprint"),
        fingerprint
    );
    daemon.ok(Command::Peerremove { name: "b".into() });
    assert!(daemon.rows(ReportKind::Peer).is_empty());
}
