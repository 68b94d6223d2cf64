//! Whole nodes over simulated disks and a simulated network: see `volmgr_tests::sim`.
//!
//! `make sim SEEDS=n` runs so many seeds, from `FIRST=n` on, `SEED=n` just one. From 10,000 on there are more kinds
//! of faults. The lowest that fails is cut down to the steps that matter, which are printed as a trace. `SEED=n STEPS=a,b,…` replays just
//! those steps. Every eighth seed is a storm; `STORMS=1` leaves out the others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use volmgr_tests::sim::{STEPS, Totals, is_storm, run, shrink};

/// Runs that may be spent on making a failing run shorter.
const TRIES: usize = 1500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds of a run that nobody has asked for more of: `make test` (with all checks of the code on), and `make sim`.
const USUAL: u64 = 2000;

/// Failures after which a campaign ends early.
const ENOUGH: usize = 20;

/// Is this seed wanted?
fn wanted(seed: u64) -> bool {
    is_storm(seed) || number("STORMS").is_none()
}

/// Runs the seeds on all processors; those that fail, and why.
fn seeds(first: u64, count: u64, steps: &[u32]) -> (Totals, BTreeMap<u64, String>) {
    let next = AtomicU64::new(first);
    let all = Mutex::new((Totals::default(), BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if !wanted(seed) {
                        continue;
                    }
                    let outcome = run(seed, steps, false);
                    let mut all = all.lock().unwrap();
                    all.0.add(&outcome.totals);
                    if let Some(failure) = outcome.failure {
                        all.1.insert(seed, failure);
                        if all.1.len() >= ENOUGH {
                            next.fetch_max(first + count, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn whole_nodes() {
    let steps: Vec<u32> = match std::env::var("STEPS") {
        Ok(list) => list.split(',').map(|s| s.parse().unwrap()).collect(),
        Err(_) => (0..STEPS).collect(),
    };
    let seed = number("SEED");
    if let (Some(seed), Ok(_)) = (seed, std::env::var("STEPS")) {
        let outcome = run(seed, &steps, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        println!("{:?}", outcome.totals);
        assert!(outcome.failure.is_none(), "{}", outcome.failure.unwrap());
        return;
    }
    let count = match seed {
        Some(_) => 1,
        None => number("SEEDS").unwrap_or(USUAL),
    };
    let began = Instant::now();
    let first = seed.or(number("FIRST")).unwrap_or(0);
    let (totals, failed) = seeds(first, count, &steps);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds in {seconds:.1} s, {:.0} operations/s: {totals:#?}",
        totals.operations as f64 / seconds
    );
    for (seed, failure) in &failed {
        println!("seed {seed}: {failure}");
    }
    if let Some((seed, failure)) = failed.into_iter().next() {
        let kept = shrink(seed, &steps, &failure, TRIES);
        let list: Vec<String> = kept.iter().map(u32::to_string).collect();
        let short = run(seed, &kept, true);
        println!(
            "the last of {} steps that matter, of seed {seed}:",
            kept.len()
        );
        let from = short.trace.len().saturating_sub(60);
        for line in &short.trace[from..] {
            println!("  {line}");
        }
        panic!(
            "seed {seed}: {failure}\nafter cutting it down: {}\nreplay with: make sim SEED={seed} STEPS={}",
            short.failure.unwrap_or_default(),
            list.join(",")
        );
    }
    if count >= 500 && number("STORMS").is_none() {
        // A world in which nothing happens proves nothing.
        for (what, count) in [
            ("crashes", totals.crashes),
            ("torn commits", totals.torn_commits),
            ("cuts", totals.cuts),
            ("consistent", totals.consistent),
            ("splits", totals.splits),
            ("swaps", totals.swaps),
            ("diverged", totals.diverged),
            ("synced", totals.synced),
            ("repaired", totals.repaired),
            ("claims", totals.claims),
            ("behind", totals.behind),
            ("grown", totals.grown),
            ("retired", totals.retired),
            ("scrubs", totals.scrubs),
            ("rotten", totals.rotten),
            ("mended", totals.mended),
            ("torn", totals.torn),
            ("reappeared", totals.reappeared),
            ("repaired feeds", totals.feeds_repaired),
            ("rot in feeds", totals.feed_rot),
            ("copied", totals.copied),
            ("old copies", totals.old_copies),
        ] {
            assert!(count > 0, "no {what} in {count} seeds");
        }
    }
}

/// Each of these has found a fault of the product once: docs/reliability.md.
const FOUND: [u64; 20] = [
    1, 21, 23, 48, 341, 432, 531, 679, 733, 933, 988, 1089, 1340, 1432, 1621, 1763, 1979, 2930,
    10102, 16314,
];

#[test]
fn seeds_that_have_found_something() {
    let steps: Vec<u32> = (0..STEPS).collect();
    for seed in FOUND {
        let outcome = run(seed, &steps, false);
        assert!(
            outcome.failure.is_none(),
            "seed {seed}: {}; make sim SEED={seed} says more",
            outcome.failure.unwrap()
        );
    }
}
