//! Command lines and the commands they become.

use super::*;
use crate::api::{LvChange, LvName, SizeSpec};
use clap::CommandFactory;

fn commands(line: &str) -> Vec<Command> {
    match parse(line) {
        Ok(Work::Ask(ask)) => ask.commands,
        other => panic!("{line}: {other:?}"),
    }
}

fn parse(line: &str) -> Result<Work, String> {
    let words = std::iter::once("volmgr").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    cli.verb.work().map_err(|failure| failure.to_string())
}

fn web() -> LvName {
    LvName {
        vg: "vg0".into(),
        lv: "web".into(),
    }
}

#[test]
fn definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_examples() {
    for verb in Cli::command().get_subcommands_mut() {
        let name = verb.get_name().to_owned();
        let help = verb.render_long_help().to_string();
        assert!(help.contains("EXAMPLES:"), "{name}");
        assert!(help.contains(&format!("volmgr {name}")), "{name}");
    }
}

#[test]
fn lvcreate() {
    let expected = Command::Lvcreate {
        lv: web(),
        size: SizeSpec::Bytes(10 << 30),
        mirrors: 1,
        stripes: 2,
        stripe_size: Some(64 << 10),
        pvs: vec!["/dev/sdb".into()],
        inactive: true,
        frontend: Some("nbd".into()),
        tags: vec!["prod".into(), "host=a".into()],
    };
    for line in [
        "lvcreate -n web -L 10g -m 1 -i 2 -I 64 -an --frontend nbd --addtag prod --addtag @host=a vg0 /dev/sdb",
        "lvcreate vg0 /dev/sdb --name vg0/web --size=10240 --mirrors 1 --stripes 2 --stripesize 64k -a n --addtag=prod --addtag host=a --frontend nbd",
    ] {
        assert_eq!(commands(line), std::slice::from_ref(&expected), "{line}");
    }
    let Command::Lvcreate { size, .. } = &commands("lvcreate -n web -l 100%FREE vg0")[0] else {
        panic!();
    };
    assert_eq!(*size, SizeSpec::PercentFree(100));
    for line in [
        "lvcreate -L 1g vg0",
        "lvcreate -n web vg0",
        "lvcreate -n web -L 1g",
        "lvcreate -n web -L +1g vg0",
        "lvcreate -n web -L -1g vg0",
        "lvcreate -n vg1/web -L 1g vg0",
        "lvcreate -n we/b -L 1g vg0",
        "lvcreate -n web -L 0 vg0",
        "lvcreate -n web -L 1g -i 0 vg0",
        "lvcreate -n web -L 1g -I 64k vg0",
        "lvcreate -n web -L 1g -l 5%VG vg0",
        "lvcreate -n -web -L 1g vg0",
        "lvcreate -n web -L 1q vg0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn relative_sizes() {
    let lv = web();
    assert_eq!(
        commands("lvextend -L +1g vg0/web"),
        [Command::Lvextend {
            lv: lv.clone(),
            size: SizeSpec::Plus(1 << 30),
            pvs: vec![]
        }]
    );
    for line in ["lvreduce -L -1g vg0/web", "lvreduce -L-1g vg0/web"] {
        assert_eq!(
            commands(line),
            [Command::Lvreduce {
                lv: lv.clone(),
                size: SizeSpec::Minus(1 << 30),
                force: false
            }]
        );
    }
    assert!(parse("lvreduce -L +1g vg0/web").is_err());
    assert!(parse("lvextend -L -1g vg0/web").is_err());
}

#[test]
fn lvchange() {
    for (line, change) in [
        (
            "lvchange -ay vg0/web",
            Some(LvChange::Activate { frontend: None }),
        ),
        (
            "lvchange --activate y --frontend both vg0/web",
            Some(LvChange::Activate {
                frontend: Some("both".into()),
            }),
        ),
        (
            "lvchange -an vg0/web",
            Some(LvChange::Deactivate { force: false }),
        ),
        (
            "lvchange -an --force vg0/web",
            Some(LvChange::Deactivate { force: true }),
        ),
        (
            "lvchange --offline plex1 vg0/web",
            Some(LvChange::Offline {
                plex: "plex1".into(),
            }),
        ),
        (
            "lvchange --online plex1 /dev/volmgr/vg0/web",
            Some(LvChange::Online {
                plex: "plex1".into(),
            }),
        ),
        (
            "lvchange --stable-copy y vg0/web",
            Some(LvChange::StableCopy { on: true }),
        ),
        (
            "lvchange --stable-copy n vg0/web",
            Some(LvChange::StableCopy { on: false }),
        ),
        ("lvchange --stable-copy vg0/web", None),
        ("lvchange -ay --stable-copy y vg0/web", None),
        ("lvchange vg0/web", None),
        ("lvchange -ay --offline plex1 vg0/web", None),
        ("lvchange -an --frontend nbd vg0/web", None),
        ("lvchange -ay --force vg0/web", None),
        ("lvchange --frontend nbd vg0/web", None),
        ("lvchange -ax vg0/web", None),
    ] {
        match change {
            Some(change) => {
                assert_eq!(
                    commands(line),
                    [Command::Lvchange { lv: web(), change }],
                    "{line}"
                );
            }
            None => assert!(parse(line).is_err(), "{line}"),
        }
    }
}

#[test]
fn renames() {
    for line in [
        "lvrename vg0/web www",
        "lvrename vg0 web www",
        "lvrename vg0/web vg0/www",
    ] {
        let expected = Command::Lvrename {
            lv: web(),
            new: "www".into(),
        };
        assert_eq!(commands(line), [expected], "{line}");
    }
    for line in [
        "lvrename vg0/web",
        "lvrename vg0/web vg1/www",
        "lvrename a b c d",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn feeds() {
    assert_eq!(
        commands(
            "feedattach vg0/web backup:vgb/copy --mode sync --create --rate 100m --discard-peer"
        ),
        [Command::Feedattach {
            lv: web(),
            peer: "backup".into(),
            target: Some(LvName {
                vg: "vgb".into(),
                lv: "copy".into()
            }),
            mode: Some("sync".into()),
            on_disconnect: None,
            create: true,
            rate: Some(100 << 20),
            discard_peer: true,
        }]
    );
    assert_eq!(
        commands("feedset vg0/web backup --rate none --adaptive n --verify-every 7d"),
        [Command::Feedset {
            lv: web(),
            peer: "backup".into(),
            rate: Some(0),
            adaptive: Some(false),
            verify_every: Some(7 * 86_400),
            verify_rate: None,
        }]
    );
    assert_eq!(
        commands("feedverify vg0/web backup --rate 10m"),
        [Command::Feedverify {
            lv: web(),
            peer: "backup".into(),
            repair: false,
            rate: Some(10 << 20),
        }]
    );
    assert_eq!(
        commands("feedwait vg0/web backup --timeout 30"),
        [Command::Feedwait {
            lv: web(),
            peer: "backup".into(),
            state: "live".into(),
            timeout_secs: Some(30),
        }]
    );
    assert_eq!(
        commands("feedswap vg0/web backup --point monday --online --discard-local"),
        [Command::Feedswap {
            lv: web(),
            peer: "backup".into(),
            point: Some("monday".into()),
            online: true,
            discard_local: true,
            while_open: false,
        }]
    );
    assert_eq!(
        commands("points vg0/web backup"),
        [Command::Report {
            kind: ReportKind::Point,
            vg: None,
            lv: Some(web()),
            peer: Some("backup".into()),
        }]
    );
    for line in [
        "feedattach vg0/web backup --mode later",
        "feedwait vg0/web backup --state alive",
        "feedwait vg0/web backup --timeout -1",
        "feedswap vg0/web",
        "feeddetach vg0/web backup --point a/b",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn peers() {
    let digits = "AB".repeat(32);
    let line = format!(
        "peeradd b 127.0.0.1:7000 --fingerprint {digits} --data 10.0.0.1:7000,10.0.1.1:7000 \
         --data 10.0.2.1:7000 --allow all:vgb/* --allow !all:vgb/secret*"
    );
    assert_eq!(
        commands(&line),
        [Command::Peeradd {
            name: "b".into(),
            addr: "127.0.0.1:7000".into(),
            fingerprint: format!("sha256:{}", "ab".repeat(32)),
            data: vec![
                "10.0.0.1:7000".into(),
                "10.0.1.1:7000".into(),
                "10.0.2.1:7000".into()
            ],
            allow: vec!["all:vgb/*".into(), "!all:vgb/secret*".into()],
            plaintext: false,
        }]
    );
    assert!(parse("peeradd b 127.0.0.1:7000").is_err());
    assert!(parse("peeradd b 127.0.0.1:7000 --fingerprint abc").is_err());
}

#[test]
fn several_objects_are_several_commands() {
    assert_eq!(commands("lvremove vg0/web vg0/db").len(), 2);
    assert_eq!(commands("vgremove vg0 vg1").len(), 2);
    assert_eq!(commands("lvs vg0 vg1/web").len(), 2);
    assert_eq!(commands("lvs").len(), 1);
    assert_eq!(commands("pvcreate /a /b").len(), 1);
}

#[test]
fn relative_paths_are_made_absolute() {
    let [Command::Vgcreate { pvs, .. }] = &commands("vgcreate vg0 disk.img /dev/sdb")[..] else {
        panic!();
    };
    assert!(pvs[0].starts_with('/') && pvs[0].ends_with("/disk.img"));
    assert_eq!(pvs[1], "/dev/sdb");
}

#[test]
fn global_options_stand_anywhere() {
    for line in [
        "-t -y lvs --socket /s",
        "lvs -ty --socket /s",
        "--socket /s -t lvs -y",
    ] {
        let words = std::iter::once("volmgr").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        assert!(cli.global.test && cli.global.yes, "{line}");
        assert_eq!(cli.global.socket.as_deref(), Some("/s".as_ref()), "{line}");
    }
}
