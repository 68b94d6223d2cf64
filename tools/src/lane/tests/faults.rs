//! Disks that fail, lanes that crash, and what is left.

use super::rig::{DATA, MIB, Rig, SIZE, have, run, sample, try_run};
use crate::lane::LaneSpec;
use blockio::{IoError, IoErrorKind};
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use volmgr::engine::{DiskOp, PlexId};
use volmgr::model::PlexState;

/// Makes operations of one disk fail in a part of it, from the moment the switch is on.
fn break_disk(spec: &mut LaneSpec, disk: usize, op: DiskOp, from: u64, to: u64) -> Arc<AtomicBool> {
    let switch = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&switch);
    spec.disks[disk].fault = Some(Arc::new(move |what, range| {
        let here = range.start() < DATA + to && range.end() > DATA + from;
        let here = here || (what == DiskOp::Flush && op == DiskOp::Flush);
        (on.load(Ordering::SeqCst) && what == op && here).then(|| IoError::new(IoErrorKind::Medium))
    }));
    switch
}

fn write_all(rig: &Rig, seed: u32) -> Vec<u8> {
    let bytes = sample(seed);
    let path = rig.path("bytes");
    fs::write(&path, &bytes).expect("write");
    run(
        "nbdcopy",
        &["--flush", path.to_str().expect("utf8"), &rig.uri()],
    );
    bytes
}

fn read_all(rig: &Rig) -> Vec<u8> {
    let path = rig.path("read");
    run("nbdcopy", &[&rig.uri(), path.to_str().expect("utf8")]);
    fs::read(&path).expect("read")
}

fn committed(rig: &Rig) -> Vec<(PlexId, PlexState)> {
    rig.states.lock().expect("lock").clone()
}

#[test]
fn a_write_error_marks_the_plex_stale_before_the_answer() {
    if !have("nbdcopy") {
        return;
    }
    for op in [DiskOp::Write, DiskOp::Flush] {
        let mut switch = None;
        let rig = Rig::with(2, 1, |spec| {
            switch = Some(break_disk(spec, 1, op, 0, SIZE));
        });
        let first = write_all(&rig, 1);
        assert!(rig.plexes_equal() == first);
        switch.expect("switch").store(true, Ordering::SeqCst);
        let second = write_all(&rig, 2);
        let states = committed(&rig);
        assert!(
            states.iter().any(|(plex, state)| *plex == PlexId(1)
                && matches!(state, PlexState::Stale | PlexState::Failed)),
            "{op:?}: {states:?}"
        );
        assert!(read_all(&rig) == second, "reads come from the good plex");
        assert!(rig.plex(0) == second);
    }
}

#[test]
fn the_last_plex_is_never_given_up() {
    if !have("qemu-io") {
        return;
    }
    let mut switch = None;
    let rig = Rig::with(1, 1, |spec| {
        switch = Some(break_disk(spec, 0, DiskOp::Write, MIB, 2 * MIB));
    });
    switch.expect("switch").store(true, Ordering::SeqCst);
    let uri = rig.uri();
    let write = |at: &str| {
        let command = format!("write -P 5 {at} 64k");
        try_run("qemu-io", &["-f", "raw", "-c", &command, &uri])
    };
    let (good, said) = write("1M");
    assert!(!good || said.contains("rror"), "{said}");
    let (good, said) = write("2M");
    assert!(good, "{said}");
    assert_eq!(committed(&rig), []);
}

#[test]
fn a_bad_spot_is_read_from_the_other_plex_and_rewritten() {
    if !have("nbdcopy") {
        return;
    }
    let mut switch = None;
    let rig = Rig::with(2, 1, |spec| {
        switch = Some(break_disk(spec, 0, DiskOp::Read, 4 * MIB, 5 * MIB));
    });
    let bytes = write_all(&rig, 3);
    // What is under the bad spot is wrong, too: only the rewrite can make it right.
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(rig.path("disk-0-0"))
        .expect("open");
    disk.write_all_at(&[0xee; 65536], DATA + 4 * MIB)
        .expect("write");
    disk.sync_all().expect("sync");
    switch.expect("switch").store(true, Ordering::SeqCst);
    for _ in 0..4 {
        // Both plexes are read in turn.
        assert!(read_all(&rig) == bytes);
    }
    rig.wait("the bad spot to be rewritten", || {
        rig.plex(0)[4 << 20..(4 << 20) + 65536] == bytes[4 << 20..(4 << 20) + 65536]
    });
    let notes = rig.notes.lock().expect("lock").join(" ");
    assert!(notes.contains("ReadRepaired"), "{notes}");
}

#[test]
fn a_truncated_disk_is_an_error_not_an_end() {
    if !have("nbdcopy") {
        return;
    }
    let rig = Rig::new(2, 1);
    let bytes = write_all(&rig, 4);
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(rig.path("disk-1-0"))
        .expect("open");
    disk.set_len(DATA + 10 * MIB + 512).expect("truncate");
    for _ in 0..2 {
        assert!(read_all(&rig) == bytes);
    }
    let stats = rig.runtime.block_on(rig.handle.stats()).expect("stats");
    assert!(
        stats.disk_errors[1] > 0 && stats.disk_errors[0] == 0,
        "{stats:?}"
    );
}

#[test]
fn an_unclean_stop_is_resynced_and_a_clean_one_is_not() {
    if !have("nbdcopy") {
        return;
    }
    // However long the writes take here, their regions are in the log when the crash comes.
    let mut rig = Rig::with(2, 1, |spec| spec.clear_interval_ms = u64::MAX);
    let bytes = write_all(&rig, 5);
    rig.handle.crash();
    rig.wait("the crash", || {
        rig.runtime.block_on(rig.handle.stats()).is_err()
    });
    // The crash came between the two plexes.
    spoil(&rig, 20 * MIB);
    rig.restart();
    assert!(read_all(&rig) == bytes, "reads are pinned to one plex");
    rig.wait("the plexes to be equal", || rig.plex(1) == bytes);
    rig.wait("clients gone", || rig.handle.opens() == 0);
    rig.stop();
    spoil(&rig, 20 * MIB);
    rig.restart();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(rig.plex(1) != bytes, "after a clean stop nothing is copied");
}

/// Changes a block of plex1 behind the lane's back.
fn spoil(rig: &Rig, at: u64) {
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(rig.path("disk-1-0"))
        .expect("open");
    disk.write_all_at(&[0xdd; 4096], DATA + at).expect("write");
    disk.sync_all().expect("sync");
}

#[test]
fn a_stale_plex_catches_up_under_load() {
    if !have("nbdcopy") {
        return;
    }
    let mut switch = None;
    let mut rig = Rig::with(2, 1, |spec| {
        switch = Some(break_disk(spec, 1, DiskOp::Write, 0, SIZE));
    });
    let switch = switch.expect("switch");
    switch.store(true, Ordering::SeqCst);
    write_all(&rig, 6);
    assert!(!committed(&rig).is_empty());
    switch.store(false, Ordering::SeqCst);
    rig.wait("clients gone", || rig.handle.opens() == 0);
    rig.stop();
    // The admin brings it back.
    rig.states
        .lock()
        .expect("lock")
        .push((PlexId(1), PlexState::Syncing));
    rig.restart();
    let bytes = write_all(&rig, 7);
    rig.wait("the plex to be active", || {
        committed(&rig).last() == Some(&(PlexId(1), PlexState::Active))
    });
    assert!(rig.plexes_equal() == bytes);
}

#[test]
fn a_truncated_disk_never_reads_as_zeroes() {
    if !have("qemu-io") {
        return;
    }
    let rig = Rig::with(2, 1, |_| {});
    let uri = rig.uri();
    run("qemu-io", &["-f", "raw", "-c", "write -P 171 0 4M", &uri]);
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(rig.path("disk-1-0"))
        .expect("open");
    disk.set_len(DATA).expect("truncate");
    // The first write makes the file longer again, with a hole where the content was. Reads go to
    // both plexes in turn, at once: faster than anything that looks now and then.
    let mut args = vec!["-f", "raw", "-c", "write -P 7 3M 64k"];
    let reads: Vec<String> = (0..32)
        .map(|number| format!("read -P 171 {}k 4k", number * 64))
        .collect();
    for read in &reads {
        args.extend(["-c", read]);
    }
    args.push(&uri);
    let (good, said) = try_run("qemu-io", &args);
    assert!(good && !said.contains("failed"), "{said}");
    rig.wait("the plex to be given up", || {
        committed(&rig)
            .iter()
            .any(|(plex, state)| *plex == PlexId(1) && *state == PlexState::Failed)
    });
}
