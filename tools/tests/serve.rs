//! Volumes served by the real `volmgrd` to real NBD clients.

mod rig;

use rig::{Daemon, Lab, lv};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command as Program;
use std::time::Duration;
use tools::api::{Command, LvChange, ReportKind, SizeSpec};

const MIB: u64 = 1 << 20;

/// Runs a client; `None` where it is not installed.
fn client(program: &str, args: &[&str]) -> Option<(bool, String)> {
    match Program::new("timeout")
        .arg("30")
        .arg(program)
        .args(args)
        .output()
    {
        Ok(output) if output.status.code() == Some(127) => {
            eprintln!("skipped: {program} is not installed");
            None
        }
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((
                output.status.success(),
                String::from_utf8_lossy(&text).into_owned(),
            ))
        }
        Err(error) => panic!("timeout: {error}"),
    }
}

fn create(daemon: &Daemon, name: &str, size: u64, mirrors: u32) -> String {
    let said = daemon.messages(Command::Lvcreate {
        lv: lv(name),
        size: SizeSpec::Bytes(size),
        mirrors,
        stripes: 1,
        stripe_size: None,
        pvs: Vec::new(),
        inactive: false,
        frontend: None,
        tags: Default::default(),
    });
    said.last().cloned().unwrap()
}

fn group(lab: &Lab, daemon: &Daemon) {
    let disks = [lab.disk("a", 64 * MIB), lab.disk("b", 64 * MIB)];
    daemon.ok(Command::Vgcreate {
        vg: "vg0".into(),
        pvs: rig::paths(&[&disks[0], &disks[1]]),
        extent_size: Some(MIB),
        force: false,
        tags: Vec::new(),
    });
}

#[test]
fn data_survives_deactivation_restart_and_kill() {
    let lab = Lab::new();
    let mut daemon = lab.daemon("n1");
    group(&lab, &daemon);
    let uri = create(&daemon, "vg0/web", 8 * MIB, 1);
    assert!(uri.starts_with("nbd+unix:///vg0/web?socket=/"), "{uri}");
    let row = &daemon.rows(ReportKind::Lv)[0];
    assert_eq!(rig::text(row, "lv_path"), uri);
    assert_eq!(rig::text(row, "lv_active"), "active");
    let io = |command: &str| {
        let (ok, text) = client("qemu-io", &["-f", "raw", "-c", command, &uri])?;
        assert!(ok && !text.contains("failed"), "{command}: {text}");
        Some(())
    };
    if io("write -f -P 0xa7 64k 1M").is_none() {
        return;
    }
    daemon.ok(Command::Lvchange {
        lv: lv("vg0/web"),
        change: LvChange::Deactivate { force: false },
    });
    assert_eq!(rig::text(&daemon.rows(ReportKind::Lv)[0], "lv_path"), "");
    daemon.ok(Command::Lvchange {
        lv: lv("vg0/web"),
        change: LvChange::Activate { frontend: None },
    });
    io("read -P 0xa7 64k 1M");
    io("read -P 0 0 64k");
    // It was active, so it is again.
    daemon.stop();
    daemon.start();
    daemon.wait_active("web");
    io("read -P 0xa7 64k 1M");
    io("write -f -P 0x3c 2M 64k");
    daemon.kill();
    daemon.start();
    daemon.wait_active("web");
    io("read -P 0x3c 2M 64k");
    io("read -P 0xa7 64k 1M");
    daemon.ok(Command::Vgchange {
        vg: None,
        active: false,
    });
    daemon.stop();
    daemon.start();
    assert_eq!(rig::text(&daemon.rows(ReportKind::Lv)[0], "lv_active"), "");
}

#[test]
fn an_open_volume_is_not_taken_away_and_grows_under_its_client() {
    let lab = Lab::new();
    let daemon = lab.daemon("n1");
    group(&lab, &daemon);
    let uri = create(&daemon, "vg0/web", 4 * MIB, 0);
    let Some((ok, text)) = client("nbdinfo", &["--size", &uri]) else {
        return;
    };
    assert!(ok && text.trim() == (4 * MIB).to_string(), "{text}");
    // A client that has negotiated and says nothing more holds the volume open.
    let mut holder = Program::new("qemu-io")
        .args(["-f", "raw", &uri])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    daemon.wait_for("vg0/web to be open", || {
        rig::number(&daemon.rows(ReportKind::Lv)[0], "lv_open") == 1
    });
    for command in [
        Command::Lvchange {
            lv: lv("vg0/web"),
            change: LvChange::Deactivate { force: false },
        },
        Command::Lvremove {
            lv: lv("vg0/web"),
            force: true,
        },
    ] {
        assert!(daemon.fails(command).why.contains("open"));
    }
    daemon.ok(Command::Lvextend {
        lv: lv("vg0/web"),
        size: SizeSpec::Bytes(6 * MIB),
        pvs: Vec::new(),
    });
    drop(holder.stdin.take());
    holder.wait().unwrap();
    daemon.wait_for("vg0/web to be closed", || {
        rig::number(&daemon.rows(ReportKind::Lv)[0], "lv_open") == 0
    });
    let (ok, text) = client("nbdinfo", &["--size", &uri]).unwrap();
    assert!(ok && text.trim() == (6 * MIB).to_string(), "{text}");
}

#[test]
fn strangers_at_the_nbd_port_are_hung_up_on() {
    let lab = Lab::new();
    let daemon = lab.daemon("n1");
    group(&lab, &daemon);
    let uri = create(&daemon, "vg0/web", MIB, 0);
    let socket = uri.split_once("socket=").unwrap().1;
    let mut stranger = UnixStream::connect(socket).unwrap();
    stranger
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _hung_up = stranger.read_to_end(&mut answer);
    assert!(answer.len() < 1024);
    let wrong = uri.replace("vg0/web", "vg0/none");
    if let Some((ok, _)) = client("nbdinfo", &["--size", &wrong]) {
        assert!(!ok);
        assert!(client("nbdinfo", &["--size", &uri]).unwrap().0);
    }
}

#[test]
fn a_new_plex_fills_online() {
    let lab = Lab::new();
    let daemon = lab.daemon("n1");
    group(&lab, &daemon);
    let uri = create(&daemon, "vg0/web", 8 * MIB, 0);
    let written = client("qemu-io", &["-f", "raw", "-c", "write -P 0x5e 0 8M", &uri]);
    daemon.ok(Command::Plexattach {
        lv: lv("vg0/web"),
        pvs: Vec::new(),
    });
    daemon.ok(Command::Plexsync {
        lv: lv("vg0/web"),
        verify: None,
    });
    let plexes = daemon.rows(ReportKind::Plex);
    assert_eq!(plexes.len(), 2);
    assert!(
        plexes
            .iter()
            .all(|row| rig::text(row, "plex_state") == "active")
    );
    // What the old plex had is on the new one: the old one can go.
    daemon.ok(Command::Plexdetach {
        lv: lv("vg0/web"),
        plex: "plex0".into(),
        force: false,
    });
    if written.is_some() {
        let (ok, text) =
            client("qemu-io", &["-f", "raw", "-c", "read -P 0x5e 0 8M", &uri]).unwrap();
        assert!(ok && !text.contains("failed"), "{text}");
    }
}

#[test]
fn a_mirror_goes_on_without_a_disk_and_catches_up_when_it_returns() {
    let lab = Lab::new();
    let mut daemon = lab.daemon("n1");
    group(&lab, &daemon);
    let (a, b) = (lab.path("a"), lab.path("b"));
    let uri = create(&daemon, "vg0/web", 8 * MIB, 1);
    let io = |command: &str| {
        let (ok, text) = client("qemu-io", &["-f", "raw", "-c", command, &uri])?;
        assert!(ok && !text.contains("failed"), "{command}: {text}");
        Some(())
    };
    if io("write -f -P 0x11 0 4M").is_none() {
        return;
    }
    daemon.stop();
    let away = b.with_extension("away");
    std::fs::rename(&b, &away).unwrap();
    daemon.start();
    daemon.wait_active("web");
    assert_eq!(
        rig::text(&daemon.rows(ReportKind::Lv)[0], "lv_health"),
        "degraded"
    );
    io("read -P 0x11 0 4M");
    io("write -f -P 0x22 1M 1M");
    std::fs::rename(&away, &b).unwrap();
    daemon.ok(Command::Vgscan { paths: Vec::new() });
    daemon.ok(Command::Plexsync {
        lv: lv("vg0/web"),
        verify: None,
    });
    assert_eq!(
        rig::text(&daemon.rows(ReportKind::Lv)[0], "lv_health"),
        "ok"
    );
    // The disk that was away now carries the volume alone.
    daemon.stop();
    std::fs::rename(&a, a.with_extension("away")).unwrap();
    daemon.start();
    daemon.wait_active("web");
    io("read -P 0x22 1M 1M");
    io("read -P 0x11 0 1M");
    io("read -P 0x11 2M 2M");
}
