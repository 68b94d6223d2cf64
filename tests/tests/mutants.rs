//! Deliberate bugs (`blockio::mutant`), each of which the simulator must catch: `make sim-mutants`.
//!
//! `MUTANT=name` tries just one, `TRIES=n` as many seeds for each, `STORMS=1` only those that are storms.
#![cfg(feature = "mutants")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use volmgr_tests::sim::{STEPS, is_storm, run};

/// Seeds within which each must be caught.
const TRIES: u64 = 8000;

/// Name, what it does, the invariant of the design that it breaks.
const MUTANTS: &[(&str, &str, u32)] = &[
    (
        "ack-before-second-plex",
        "a write is acknowledged when the first plex has it",
        1,
    ),
    (
        "ack-before-stale-mark",
        "a write is acknowledged before the mark of the plex that missed it",
        1,
    ),
    (
        "no-stale-mark",
        "a plex that missed a write is not marked",
        1,
    ),
    (
        "stale-plex-not-tracked",
        "what a plex misses while it is away is not tracked",
        1,
    ),
    (
        "failed-plex-misses-nothing",
        "what was in flight to a plex that failed is not tracked",
        1,
    ),
    (
        "copied-counts-unflushed",
        "what was copied to a plex that failed counts though it was not flushed",
        1,
    ),
    (
        "last-bit-counts-as-done",
        "a resync that lacks its last region counts as done",
        1,
    ),
    (
        "copy-outlives-failure",
        "a copy begun before a plex failed counts after it is back",
        1,
    ),
    (
        "new-plex-counts-as-filled",
        "a new plex is active at once",
        1,
    ),
    (
        "read-of-failed-plex-counts",
        "what was read from a plex that failed meanwhile is used",
        1,
    ),
    (
        "flush-first-disk-only",
        "a flush flushes the first disk only",
        2,
    ),
    (
        "flush-error-ignored",
        "a flush that failed is acknowledged",
        2,
    ),
    (
        "write-without-log",
        "writes do not wait to be in the dirty-region log, nor get there",
        3,
    ),
    (
        "write-before-log",
        "writes go out before they are in the dirty-region log",
        3,
    ),
    (
        "overlapping-unordered",
        "overlapping writes go out together",
        3,
    ),
    (
        "log-cleared-unflushed",
        "regions leave the log without a flush",
        3,
    ),
    (
        "log-cleared-under-write",
        "regions leave the log though written to meanwhile",
        3,
    ),
    (
        "log-cleared-before-maps",
        "regions leave the log before the maps have them",
        7,
    ),
    (
        "log-first-copy-only",
        "only the first copy of the log is kept up",
        3,
    ),
    (
        "active-before-its-log",
        "a plex is active before its copy of the log is valid",
        3,
    ),
    (
        "no-recovery-after-crash",
        "logged regions are not made equal after a crash",
        3,
    ),
    (
        "reads-spread-while-recovering",
        "reads are spread before plexes are equal again",
        3,
    ),
    (
        "log-not-added-to-maps",
        "after a crash targets miss only what their maps say",
        7,
    ),
    (
        "read-error-not-retried",
        "a read that one plex fails is failed",
        4,
    ),
    (
        "second-copy-forgotten",
        "the metadata goes to the first area only",
        5,
    ),
    ("commit-not-synced", "a metadata commit is not synced", 5),
    (
        "outdated-disk-believed",
        "the oldest version of the metadata wins",
        5,
    ),
    (
        "consistent-unflushed",
        "a sink is consistent before its flush",
        6,
    ),
    (
        "resync-stays-consistent",
        "a resync does not take the sink's consistency away",
        6,
    ),
    (
        "half-done-passed-on",
        "a sink that is being filled passes its content on as consistent",
        6,
    ),
    (
        "received-counts-as-durable",
        "a dirty bit is cleared on received",
        7,
    ),
    (
        "live-overtakes-resync",
        "a live write goes out while its region is copied",
        7,
    ),
    (
        "lost-live-write-forgotten",
        "a live write that failed is not dirty",
        7,
    ),
    (
        "lost-copy-forgotten",
        "a copied region that failed is not dirty",
        7,
    ),
    (
        "bulk-of-failed-plex-counts",
        "what a copy read from a plex that failed counts",
        7,
    ),
    (
        "own-map-cleared-early",
        "a sink forgets its own changes before the source knows them",
        7,
    ),
    (
        "epoch-forgotten-early",
        "a sink forgets the common epoch before the source has the new one",
        7,
    ),
    (
        "point-committed-early",
        "a source ends at a point that the sink does not have yet",
        9,
    ),
    (
        "generation-told-early",
        "a source tells a generation that is not its own yet",
        9,
    ),
    (
        "own-changes-overlooked",
        "what clients wrote at the sink is overwritten unasked",
        9,
    ),
    (
        "repair-not-held",
        "a repair of plexes that differ does not hold writes off",
        4,
    ),
    (
        "repair-ends-before-its-writes",
        "a repair counts as done before what it writes is written",
        4,
    ),
    (
        "torn-repair-not-missed",
        "what a failed repair was to mend is not missed by the plex that failed",
        4,
    ),
    (
        "half-is-a-majority",
        "half of the plexes is believed as if it were more than half",
        4,
    ),
    (
        "comparison-not-held",
        "plexes are compared while they are written to",
        4,
    ),
    (
        "good-blocks-moved-while-recovering",
        "while plexes may differ, a read error moves good blocks to another plex, too",
        3,
    ),
    (
        "read-errors-forgotten",
        "a plex whose reads fail again and again is not retired",
        4,
    ),
    (
        "last-good-plex-retired",
        "a plex is retired though the others have failed reads, too",
        4,
    ),
    (
        "retired-before-its-mark",
        "a plex is retired, and writes are acknowledged before the mark",
        1,
    ),
    (
        "retired-plex-still-read",
        "a plex that has failed or was retired is still read",
        1,
    ),
    (
        "feed-repair-unannounced",
        "a sink is made equal to its source without a round: it goes on calling itself consistent",
        6,
    ),
    (
        "feed-repair-copies-nothing",
        "what a comparison of both sides has found is not copied again",
        7,
    ),
];

/// The first seed that catches a bug, how, and how many were tried.
struct Caught {
    seed: u64,
    how: String,
}

fn hunt(name: &'static str, tries: u64) -> Option<Caught> {
    let steps: Vec<u32> = (0..STEPS).collect();
    let storms = number("STORMS").is_some();
    let mut seeds = (0..tries).filter(|seed| is_storm(*seed) || !storms);
    let found = seeds.find_map(|seed| {
        blockio::set_mutant(name);
        let how = run(seed, &steps, false).failure?;
        // A seed that fails without the bug has caught something else.
        blockio::set_mutant("");
        run(seed, &steps, false).failure.is_none().then_some(())?;
        Some(Caught { seed, how })
    });
    blockio::set_mutant("");
    found
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn each_is_caught() {
    let only = std::env::var("MUTANT").ok();
    let tries = number("TRIES").unwrap_or(TRIES);
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let mutants: Vec<_> = MUTANTS.iter().filter(|m| wanted(m.0)).collect();
    assert!(!mutants.is_empty(), "there is no such mutant");
    let results: Mutex<Vec<Option<Caught>>> = Mutex::new(mutants.iter().map(|_| None).collect());
    let (next, runs) = (AtomicUsize::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(at) else {
                        return;
                    };
                    let caught = hunt(mutant.0, tries);
                    let seeds = caught.as_ref().map_or(tries, |c| c.seed + 1);
                    runs.fetch_add(seeds, Ordering::Relaxed);
                    results.lock().unwrap()[at] = caught;
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    println!("| bug | what it does | invariant | seeds needed | caught by |");
    println!("| --- | --- | --- | --- | --- |");
    let mut missed = Vec::new();
    for ((name, what, invariant), caught) in mutants.iter().zip(&results) {
        let (seeds, how) = match caught {
            Some(caught) => (format!("{}", caught.seed + 1), in_short(&caught.how)),
            None => {
                missed.push(*name);
                ("-".into(), "NOT CAUGHT".into())
            }
        };
        println!("| `{name}` | {what} | {invariant} | {seeds} | {how} |");
    }
    println!(
        "{} bugs, {} runs in {:.1} s",
        mutants.len(),
        runs.into_inner(),
        began.elapsed().as_secs_f64()
    );
    assert!(missed.is_empty(), "not caught in {tries} seeds: {missed:?}");
}

/// What went wrong, without names and numbers.
fn in_short(how: &str) -> String {
    let line = how.lines().next().unwrap_or_default();
    let line = match line.split_once(": ") {
        Some((node, rest)) if node.starts_with('n') && !rest.is_empty() => rest,
        _ => line,
    };
    line.chars().take(90).collect::<String>().replace('|', "/")
}
