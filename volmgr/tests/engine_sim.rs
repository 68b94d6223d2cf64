//! The engine in a world of failing disks, broken connections and crashes.
//!
//! Every run is a seed. `SEED=n cargo test -p volmgr --test engine_sim` replays one; `SEEDS=n` runs
//! as many.

mod sim;

use sim::restore::RestoreWorld;
use sim::world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Default, Debug)]
struct Totals {
    crashes: u32,
    caught_up: u32,
    marks: u32,
    points: u32,
    synced: u32,
    repaired: u32,
    rewritten: u32,
    retired: u32,
    inline: u64,
}

fn run(seed: u64, totals: &mut Totals) {
    let mut world = World::new(seed);
    for _ in 0..2 {
        world.run(700);
        world.settle();
        world.close_and_reopen();
    }
    totals.crashes += world.crashes;
    totals.caught_up += world.caught_up;
    totals.marks += world.marks;
    totals.points += world.points;
    totals.synced += world.synced;
    totals.repaired += world.repaired;
    totals.rewritten += world.rewritten;
    totals.retired += world.retired;
    totals.inline += world.inline;
}

#[test]
fn any_world() {
    let mut totals = Totals::default();
    if let Some(seed) = number("SEED") {
        run(seed, &mut totals);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(300);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| {
            let mut one = Totals::default();
            run(seed, &mut one);
            one
        });
        match result {
            Ok(one) => {
                totals.crashes += one.crashes;
                totals.caught_up += one.caught_up;
                totals.marks += one.marks;
                totals.points += one.points;
                totals.synced += one.synced;
                totals.repaired += one.repaired;
                totals.rewritten += one.rewritten;
                totals.retired += one.retired;
                totals.inline += one.inline;
            }
            Err(panic) => {
                eprintln!("replay with SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds: {totals:?}");
    // A world in which nothing happens proves nothing.
    assert!(totals.crashes > 0 && totals.caught_up > 0 && totals.marks > 0);
    assert!(totals.points > 0, "no point was ever tracked");
    assert!(totals.synced > 0 && totals.repaired > 0 && totals.inline > 0);
    assert!(totals.rewritten > 0, "no plex was ever believed");
    assert!(totals.retired > 0, "no plex was ever retired");
}

#[test]
fn any_restore() {
    let one = number("SEED");
    let seeds = one.map_or(0..number("SEEDS").unwrap_or(200), |seed| seed..seed + 1);
    let (mut crashes, mut fetched, mut refused, mut dropped) = (0, 0, 0, 0);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = RestoreWorld::new(seed);
            world.run(900);
            world.settle();
            world
        });
        match result {
            Ok(world) => {
                crashes += world.crashes;
                fetched += world.fetched;
                refused += world.refused;
                dropped += world.dropped;
            }
            Err(panic) => {
                eprintln!("replay with SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{crashes} crashes, {fetched} fetched, {refused} refused, {dropped} broken off");
    // A world in which nothing happens proves nothing.
    assert!(one.is_some() || crashes > 0 && fetched > 0 && dropped > 0);
}
