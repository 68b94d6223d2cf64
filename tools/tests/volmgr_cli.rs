//! The real `volmgr` against a scripted daemon: exit codes, messages, the shape of its output.

mod fake_daemon;

use fake_daemon::{FakeDaemon, Step};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tools::api::{Command as Verb, Failure, Progress, Reply, ReportKind};

const VOLMGR: &str = env!("CARGO_BIN_EXE_volmgr");

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(socket: Option<&Path>, line: &str) -> Command {
    let mut command = Command::new(VOLMGR);
    command.args(line.split_whitespace());
    command.stdin(Stdio::null()).env_remove("VOLMGR_SOCKET");
    command.env("TZ", "UTC");
    if let Some(socket) = socket {
        command.env("VOLMGR_SOCKET", socket);
    }
    command
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs without a daemon.
fn alone(line: &str) -> Ran {
    ran(command(Some(Path::new("/nonexistent/sock")), line)
        .output()
        .unwrap())
}

/// Runs against a daemon that answers each request with these replies.
fn answered(line: &str, replies: Vec<Reply>) -> (Ran, Vec<tools::api::Request>) {
    let daemon = FakeDaemon::start(vec![Step::replies(replies)]);
    let ran = ran(command(Some(daemon.socket()), line).output().unwrap());
    (ran, daemon.requests())
}

fn lv_rows() -> Reply {
    let row = |name: &str, size: u64| {
        json!({"lv_name": {"text": name}, "vg_name": {"text": "vg0"}, "lv_size": {"size": size},
               "lv_active": {"text": "active"}, "plex_count": {"number": 2},
               "lv_health": {"text": "ok"}, "lv_role": {"text": "normal"}})
        .as_object()
        .unwrap()
        .clone()
    };
    Reply::Report {
        key: "lv".into(),
        rows: vec![row("web", 1 << 30), row("db", 20 << 30)],
    }
}

fn failed(code: u8) -> Reply {
    Reply::Failed(Failure {
        code,
        object: "vg0/web".into(),
        what: "cannot create".into(),
        why: "needs 2.00g in 2 different disks, vg0 has 1".into(),
        hint: "add one with vgextend".into(),
    })
}

#[test]
fn no_verb_and_wrong_verb() {
    assert_eq!(alone("").code, Some(3));
    let wrong = alone("lvcrate");
    assert_eq!(wrong.code, Some(2));
    assert_eq!(
        wrong.stderr,
        "volmgr: lvcrate: no such verb (did you mean lvcreate?)\n"
    );
    assert_eq!(alone("help nonsense").code, Some(2));
}

#[test]
fn wrong_command_lines_are_3_and_one_line() {
    for line in [
        "lvcreate",
        "lvcreate -n web vg0",
        "lvcreate -n web -L 10q vg0",
        "lvs --nonsense",
        "lvs -o nonsense",
        "lvs -O nonsense",
        "lvs -S nonsense=1",
        "lvs --units x",
        "lvs --reportformat xml",
        "vgs a/b",
        "feedwait vg0/web",
        "feedwait vg0/web b --state awake",
        "peeradd b 127.0.0.1 --fingerprint abc",
        "lvdisplay web",
        "completions tcsh",
    ] {
        let ran = alone(line);
        let verb = line.split(' ').next().unwrap();
        assert_eq!(ran.code, Some(3), "{line}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with(&format!("volmgr: {verb}: ")),
            "{line}: {}",
            ran.stderr
        );
        assert_eq!(ran.stdout, "", "{line}");
    }
}

#[test]
fn no_daemon_is_4_and_names_the_socket() {
    let ran = alone("lvs");
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr.contains("/nonexistent/sock: no daemon"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("volmgrd"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert_eq!(alone("lvs --socket /elsewhere").code, Some(4));
    // A socket that nobody listens on any more.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let output = command(Some(&path), "status").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn failures_carry_code_and_one_line() {
    let (ran, _) = answered("lvcreate -n web -L 2g -m 1 vg0", vec![failed(5)]);
    assert_eq!(ran.code, Some(5));
    assert_eq!(
        ran.stderr,
        "volmgr: lvcreate: vg0/web: cannot create: needs 2.00g in 2 different disks, vg0 has 1 \
         (add one with vgextend)\n"
    );
    let (ran, _) = answered("lvcreate -n web -L 2g vg0", vec![failed(3)]);
    assert_eq!(ran.code, Some(3));
    let (ran, _) = answered("lvcreate -n web -L 2g vg0", vec![failed(0)]);
    assert_eq!(ran.code, Some(5), "a failure must not look like a success");
}

#[test]
fn listings_and_empty_listings() {
    let (ran, requests) = answered("lvs", vec![lv_rows(), Reply::Done]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.stdout,
        "  LV  VG   LSize Active #Plex Health Role
  db  vg0 20.00g active     2 ok     normal
  web vg0  1.00g active     2 ok     normal
"
    );
    let Verb::List { kind, columns, .. } = &requests[0].command else {
        panic!("{requests:?}");
    };
    assert_eq!(*kind, ReportKind::Lv);
    // What is shown, and nothing that would only cost time.
    assert!(columns.contains(&"lv_size".into()) && !columns.contains(&"lv_uuid".into()));
    assert_eq!(answered("lvs", vec![Reply::Done]).0.stdout, "");
    let (ran, _) = answered("lvs --reportformat json", vec![Reply::Done]);
    assert_eq!(ran.stdout, "{\"report\":[{\"lv\":[]}]}\n");
}

#[test]
fn json_is_lvms_and_every_value_a_string() {
    let line = "lvs --reportformat json --units b --nosuffix -o lv_name,lv_size";
    let (ran, _) = answered(line, vec![lv_rows(), Reply::Done]);
    assert_eq!(
        ran.stdout,
        concat!(
            r#"{"report":[{"lv":[{"lv_name":"db","lv_size":"21474836480"},"#,
            r#"{"lv_name":"web","lv_size":"1073741824"}]}]}"#,
            "\n"
        )
    );
}

#[test]
fn a_listing_that_failed_is_still_a_document() {
    let (ran, _) = answered("lvs --reportformat json vg9", vec![failed(5)]);
    assert_eq!(ran.code, Some(5));
    assert_eq!(ran.stdout, "{\"report\":[{\"lv\":[]}]}\n");
}

#[test]
fn names_that_the_daemon_cannot_narrow_by() {
    let pvs = Reply::Report {
        key: "pv".into(),
        rows: ["/dev/sdb", "/dev/sdc"]
            .map(|name| {
                json!({"pv_name": {"text": name}})
                    .as_object()
                    .unwrap()
                    .clone()
            })
            .into(),
    };
    let line = "pvs --noheadings -o pv_name /dev/sdc";
    let (ran, _) = answered(line, vec![pvs.clone(), Reply::Done]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "  /dev/sdc\n"));
    let (ran, _) = answered("pvs /dev/sdd", vec![pvs, Reply::Done]);
    assert_eq!(ran.code, Some(5));
    assert!(ran.stderr.contains("/dev/sdd: not found"), "{}", ran.stderr);
}

#[test]
fn several_objects_each_get_their_turn() {
    let daemon = FakeDaemon::start(vec![
        Step::replies(vec![failed(5)]),
        Step::replies(vec![Reply::Done]),
    ]);
    let ran = ran(command(Some(daemon.socket()), "lvremove -y vg0/web vg0/db")
        .output()
        .unwrap());
    assert_eq!(ran.code, Some(5));
    let requests = daemon.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.yes && !request.test));
}

#[test]
fn messages_warnings_progress() {
    let progress = |done| {
        Reply::Progress(Progress {
            what: "resync".into(),
            done,
            total: 1 << 30,
            rate: 1 << 20,
        })
    };
    let replies = || {
        vec![
            Reply::Message {
                text: "plex1: 3 regions\nall good".into(),
            },
            Reply::Warning {
                text: "slow disk".into(),
            },
            progress(0),
            progress(1 << 29),
            progress(1 << 30),
            Reply::Done,
        ]
    };
    let (ran, requests) = answered("-t plexsync vg0/web", replies());
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, "plex1: 3 regions\nall good\n");
    assert_eq!(
        ran.stderr,
        "volmgr: plexsync: warning: slow disk\nvolmgr: plexsync: resync: 1.00g to do\n\
         volmgr: plexsync: resync: done, 1.00g in 0s\n"
    );
    assert!(requests[0].test);
    let (ran, _) = answered("-q plexsync vg0/web", replies());
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr, "volmgr: plexsync: warning: slow disk\n");
    let (ran, _) = answered("-q status", replies());
    assert_eq!(ran.stdout, "plex1: 3 regions\nall good\n");
}

#[test]
fn a_daemon_that_goes_away_or_talks_nonsense_is_5() {
    for (step, words) in [
        (Step::raw(b""), "connection lost"),
        (Step::raw(b"{\"reply\":\"done\"}"), "connection lost"),
        (
            Step::raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "not understood",
        ),
        (Step::raw(b"{\"reply\":\"future\"}\n"), "not understood"),
        (Step::raw(b"\xff\xfe\n"), "not understood"),
    ] {
        let daemon = FakeDaemon::start(vec![step]);
        let ran = ran(command(Some(daemon.socket()), "status").output().unwrap());
        assert_eq!(ran.code, Some(5), "{words}");
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1);
    }
}

#[test]
fn followed_events_come_as_they_happen() {
    let event = |text: &str| Reply::Report {
        key: "event".into(),
        rows: vec![
            json!({"event_time": {"time": 0}, "event_kind": {"text": "feed"},
                   "event_object": {"text": "vg0/web"}, "event_text": {"text": text}})
            .as_object()
            .unwrap()
            .clone(),
        ],
    };
    let replies = || vec![event("live"), event("behind"), Reply::Done];
    let (ran, requests) = answered("events --follow", replies());
    assert_eq!(requests[0].command, Verb::Events { follow: true });
    assert_eq!(
        ran.stdout,
        "  Time                      Kind Object  Text
  1970-01-01 00:00:00 +0000 feed vg0/web live
  1970-01-01 00:00:00 +0000 feed vg0/web behind
"
    );
    let line = "events --follow --reportformat json -o event_text";
    let (ran, _) = answered(line, replies());
    assert_eq!(
        ran.stdout,
        "{\"report\":[{\"event\":[{\"event_text\":\"live\"}]}]}\n\
         {\"report\":[{\"event\":[{\"event_text\":\"behind\"}]}]}\n"
    );
}

#[test]
fn ctrl_c_stops_the_waiting() {
    let daemon = FakeDaemon::start(vec![Step::silence()]);
    let mut child = command(Some(daemon.socket()), "feedwait vg0/web backup")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait_for_request();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline, "it still waits");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130));
    assert_eq!(
        ran.stderr,
        "volmgr: feedwait: stopped waiting: interrupted (the work goes on; see 'volmgr status')\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let daemon = FakeDaemon::start(vec![Step::replies(vec![lv_rows(), Reply::Done])]);
    let mut child = command(Some(daemon.socket()), "lvs")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn questions_are_asked_on_terminals_only() {
    let (ran, requests) = answered("lvremove vg0/web", vec![Reply::Done]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!requests[0].yes, "nobody said yes");
    let (_, requests) = answered("lvremove -y vg0/web", vec![Reply::Done]);
    assert!(requests[0].yes);
}

#[test]
fn help_of_every_verb() {
    let top = alone("help");
    assert_eq!(top.code, Some(0));
    let verbs: Vec<&str> = top
        .stdout
        .lines()
        .skip_while(|line| *line != "Verbs:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 45, "{verbs:?}");
    for verb in verbs {
        let long = alone(&format!("{verb} --help"));
        assert_eq!(long.code, Some(0), "{verb}");
        assert!(long.stdout.contains("EXAMPLES:"), "{verb}");
        assert_eq!(alone(&format!("help {verb}")).stdout, long.stdout, "{verb}");
    }
    let version = alone("--version");
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with("volmgr "));
}

#[test]
fn a_link_named_after_a_verb_is_that_verb() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = FakeDaemon::start(vec![Step::replies(vec![lv_rows(), Reply::Done])]);
    let link = dir.path().join("lvs");
    symlink(VOLMGR, &link).unwrap();
    let output = Command::new(&link)
        .args(["--noheadings", "-o", "lv_name", "--socket"])
        .arg(daemon.socket())
        .output()
        .unwrap();
    assert_eq!(ran(output).stdout, "  db\n  web\n");
    let failing = Command::new(&link).arg("--nonsense").output().unwrap();
    assert_eq!(failing.status.code(), Some(3));
    // Any other name is just the tool.
    let other = dir.path().join("vm");
    symlink(VOLMGR, &other).unwrap();
    let help = Command::new(&other).args(["help", "lvs"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
}

#[test]
fn pvck_needs_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    for dump in ["", "--dump label", "--dump metadata", "--dump dirty"] {
        let ran = alone(&format!("pvck {dump} {}", path.display()));
        assert_eq!(ran.code, Some(5), "{dump}");
        assert!(ran.stderr.starts_with("volmgr: pvck: "), "{}", ran.stderr);
        assert!(ran.stderr.contains("no readable label"), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1);
    }
    assert_eq!(alone("pvck --dump everything /dev/sda").code, Some(3));
    assert_eq!(alone("pvck /dev/null").code, Some(5));
}

#[test]
fn completions_and_man_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = alone(&format!("completions {shell}"));
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("complete -- "), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let ran = alone(&format!("man --dir {}", pages.display()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let page = std::fs::read_to_string(pages.join("volmgr-lvcreate.1")).unwrap();
    assert!(page.contains("EXAMPLES"), "{page}");
    assert!(pages.join("volmgr.1").exists());
    let page = std::fs::read_to_string(pages.join("volmgrd.8")).unwrap();
    assert!(page.contains("state_dir ="), "{page}");
    assert_eq!(alone("man --dir /dev/null/x").code, Some(5));
}
